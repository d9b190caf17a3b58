"""The table of small changes that the tests must notice fits the package; to try the changes themselves is slow."""

from __future__ import annotations

from tests.mutants import MUTANTS, check_table


def test_every_change_finds_its_text_and_its_tests():
    assert check_table(MUTANTS) == []
    assert len(MUTANTS) >= 60
