"""Warnings that TRL 1.16 itself causes under transformers 5.23, and checkpoints of tiny models."""

from pathlib import Path

import pytest

from tests.tiny import save_tiny

# TRL still uses the names that transformers has renamed to `activation_checkpointing`.
RENAMED = (
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
    "ignore:`gradient_checkpointing_(en|dis)able` is deprecated:FutureWarning",
    "ignore:`gradient_checkpointing` is deprecated:FutureWarning",
)


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            for warning in RENAMED:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A directory with a tiny model and its tokenizer."""
    return str(save_tiny(tmp_path_factory.mktemp("policy")))


@pytest.fixture(scope="session")
def other_checkpoint(tmp_path_factory):
    """The same architecture with other weights."""
    return str(save_tiny(tmp_path_factory.mktemp("other"), seed=1))
