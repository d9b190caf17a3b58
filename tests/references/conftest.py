"""Warnings that PEFT and TRL themselves cause under transformers 5.23."""

from pathlib import Path

import pytest

from tests.train.conftest import RENAMED


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            for warning in RENAMED:
                item.add_marker(pytest.mark.filterwarnings(warning))
