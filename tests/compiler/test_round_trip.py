"""What was compiled from logic is read back, from its code, as the same logic."""

from __future__ import annotations

import itertools
import random
import warnings

import pytest

from prefalign import derive, to_loss
from prefalign.logic import PreferenceStructure, same_ratio

ATOMS4 = ("w", "l", "rw", "rl")
COLUMNS = ["".join(c) for c in itertools.product("vxbo", repeat=4)]
SATISFIABLE = [c for c in COLUMNS if set(c) & set("vb") and set(c) & set("xb")]
# Top and bottom equal: the ratio is 1, the loss a constant, and its code says nothing of the structure.
TELLING = [c for c in SATISFIABLE if set(c) & set("vx")]


def back(structure, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return derive(to_loss(structure, **({"mean": False} | kwargs)))


def comes_back(structure, **kwargs):
    reading = back(structure, **kwargs)
    want = structure.with_reference() if kwargs.get("reference") else structure
    # A factor that top and bottom share cancels in the code, so the ratio is all that a loss can tell.
    assert same_ratio(reading.structure, want), structure
    assert reading.rules[0].link.name == "logistic"


def test_210_of_the_pair_structures_tell_something():
    assert len(TELLING) == 210


@pytest.mark.parametrize("reference", [False, True])
def test_a_sixth_of_the_pair_structures_come_back_from_their_code(reference):
    for column in TELLING[reference::6]:
        comes_back(PreferenceStructure.from_rows(column), reference=reference)


@pytest.mark.slow
@pytest.mark.parametrize("reference", [False, True])
def test_every_pair_structure_comes_back_from_its_code(reference):
    for column in TELLING:
        comes_back(PreferenceStructure.from_rows(column), reference=reference)


def random_structures(count, seed):
    rng = random.Random(seed)
    return [PreferenceStructure(ATOMS4, rng.randrange(1, 1 << 16), rng.randrange(1, 1 << 16)) for _ in range(count)]


def test_random_structures_with_a_reference_come_back_from_their_code():
    for structure in random_structures(8, seed=5):
        comes_back(structure)


@pytest.mark.slow
def test_many_random_structures_with_a_reference_come_back_from_their_code():
    for structure in random_structures(80, seed=6):
        comes_back(structure)


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize(
    "link", ["logistic", "hinge", "scaled_hinge", "perceptron", "square", "sigmoid", "exponential"]
)
def test_every_link_comes_back_with_its_direction(link, mean):
    rule = back(PreferenceStructure.from_rows("vvxo"), link=link, mean=mean).rules[0]
    assert same_ratio(rule.structure, PreferenceStructure.from_rows("vvxo").with_reference())
    assert rule.link.direction == ("turning" if link == "square" else "decreasing")


@pytest.mark.parametrize("k", [2, 3, 4])
def test_groups_come_back_from_their_code(k):
    others = [" & ".join(("" if i == j else "~") + f"y{i}" for i in range(1, k + 1)) for j in range(1, k + 1)]
    structure = PreferenceStructure.from_formulas("y1", given=" | ".join(f"({term})" for term in others))
    assert same_ratio(derive(to_loss(structure, beta=0.5)).structure, structure)
