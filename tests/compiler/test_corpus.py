"""Losses of the literature in strangers' spellings: none is read wrong, nearly all are read, and refusals say why."""

from __future__ import annotations

import re
from functools import cache

import pytest
import sympy

from prefalign import PrefalignError, derive
from prefalign.compiler import Reading
from tests.compiler.oracle import differences
from tests.compiler.strangers import STRANGERS, Stranger

# A stranger's code warns of what it likes.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
ATOMS = {name: sympy.Symbol(name) for name in ("w", "l", "rw", "rl")}
# Every seventh in the fast suite; all of them take about ten seconds.
SAMPLED = [pytest.param(s, id=s.name, marks=[] if i % 7 == 0 else pytest.mark.slow) for i, s in enumerate(STRANGERS)]


@cache
def verdict(stranger: Stranger) -> Reading | str:
    """The reading of a stranger's loss, or the reason why there is none."""
    try:
        return derive(stranger.function, roles=dict(stranger.roles), **dict(stranger.given))
    except PrefalignError as error:
        return str(error)


@pytest.mark.parametrize("stranger", SAMPLED)
def test_a_strangers_loss_is_read_right_or_refused_with_the_true_reason(stranger):
    found = verdict(stranger)
    if isinstance(found, str):
        assert stranger.refused, f"It has a reading, and was refused: {found}"
        assert re.search(stranger.refused, found)
        return
    assert differences(found, stranger.call) == []
    assert not stranger.refused
    if stranger.ratios:
        wanted = {sympy.cancel(sympy.parse_expr(ratio, ATOMS)) for ratio in stranger.ratios}
        assert {sympy.cancel(structure.ratio) for structure in found.structures} == wanted


def test_the_corpus_is_large_and_mostly_readable():
    assert len(STRANGERS) >= 150
    assert len({s.name for s in STRANGERS}) == len(STRANGERS)
    assert sum(not s.refused for s in STRANGERS) >= 0.85 * len(STRANGERS)
