"""What was compiled from logic is read back, from its code, as the same logic: the same P_f and the same N_f."""

from __future__ import annotations

import itertools
import random
import warnings

import pytest

from prefalign import derive, to_loss
from prefalign.logic import PreferenceStructure, coprime, equivalent, same_ratio
from prefalign.losses import PairLogps

ATOMS4 = ("w", "l", "rw", "rl")
COLUMNS = ["".join(c) for c in itertools.product("vxbo", repeat=4)]
SATISFIABLE = [c for c in COLUMNS if set(c) & set("vb") and set(c) & set("xb")]
LINKS = ["logistic", "hinge", "scaled_hinge", "perceptron", "square", "sigmoid", "exponential"]


def compiled(structure, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return to_loss(structure, **({"mean": False} | kwargs))


def comes_back(structure, **kwargs):
    reading = derive(compiled(structure, **kwargs))
    want = structure.with_reference() if kwargs.get("reference") else structure
    (rule,) = reading.rules
    assert equivalent(rule.structure, want), structure
    return rule


def test_225_of_the_pair_structures_have_satisfiable_parts():
    assert len(SATISFIABLE) == 225
    assert sum(not set(c) & set("vx") for c in SATISFIABLE) == 15  # of them with top and bottom equal: constants


@pytest.mark.parametrize("reference", [False, True])
def test_a_seventh_of_the_pair_structures_come_back_from_their_code(reference):
    for column in SATISFIABLE[reference::7]:
        assert comes_back(PreferenceStructure.from_rows(column), reference=reference).link.name == "logistic"


@pytest.mark.slow
@pytest.mark.parametrize("reference", [False, True])
def test_every_pair_structure_comes_back_from_its_code(reference):
    for column in SATISFIABLE:
        assert comes_back(PreferenceStructure.from_rows(column), reference=reference).link.name == "logistic"


def random_structures(count, seed, atoms=ATOMS4):
    rng = random.Random(seed)
    full = 1 << (1 << len(atoms))
    return [PreferenceStructure(atoms, rng.randrange(1, full), rng.randrange(1, full)) for _ in range(count)]


def test_random_structures_with_a_reference_come_back_from_their_code():
    for structure in random_structures(6, seed=5):
        comes_back(structure)


def test_random_structures_over_three_atoms_come_back_from_their_code():
    for structure in random_structures(8, seed=7, atoms=("w", "l", "rw")):
        comes_back(structure)


@pytest.mark.slow
def test_many_random_structures_with_a_reference_come_back_from_their_code():
    # All of 10 000, and more: python -m tests.compiler.round_trip --count 10000
    for structure in random_structures(500, seed=6):
        comes_back(structure)
    for structure in random_structures(500, seed=8, atoms=("w", "l", "rl")):
        comes_back(structure)


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("link", LINKS)
def test_every_link_comes_back_with_its_direction(link, mean):
    for column in ("vvxo", "boxo", "xvvo"):  # cCPO; w with l above and below; one that prefers the rejected answer
        rule = comes_back(PreferenceStructure.from_rows(column), link=link, mean=mean, reference=column == "vvxo")
        assert rule.link.direction == ("turning" if link == "square" else "decreasing")


# --- one ratio, several structures ---


def test_a_common_factor_of_top_and_bottom_comes_back_too():
    # w*l over w*(1 - l), (1-w)*l over (1-w)*(1-l), and l over 1 - l: one ratio, one loss, three demands.
    columns = ["vxoo", "oovx", "vxvx"]
    for one, other in itertools.combinations(map(PreferenceStructure.from_rows, columns), 2):
        assert same_ratio(one, other)
        assert not equivalent(one, other)
    for column in columns:
        found = comes_back(PreferenceStructure.from_rows(column), reference=False).structure
        assert found.over(("w", "l")).rows == column


def test_from_foreign_code_comes_the_structure_without_common_factors():
    loss = compiled(PreferenceStructure.from_rows("vxoo"), reference=False)

    def foreign(pair_logps: PairLogps):
        return loss(pair_logps)

    assert derive(foreign).structure == coprime(PreferenceStructure.from_rows("vxoo"))
    assert derive(foreign).structure.over(("w", "l")).rows == "vxvx"


def test_a_loss_is_not_believed_what_its_code_denies():
    loss = compiled(PreferenceStructure.from_rows("vxoo"), reference=False)
    other = compiled(PreferenceStructure.from_rows("vvxo"), reference=False)
    object.__setattr__(loss, "tape", other.tape)  # it computes cCPO and goes on saying that it is l / (1 - l)
    assert derive(loss).structure == other.structure


def test_terms_of_a_sum_come_back_as_declared():
    one, other = (PreferenceStructure.from_rows(c) for c in ("vxoo", "bvxo"))
    found = derive(compiled(one, reference=False) + 0.5 * compiled(other, reference=False))
    assert {rule.structure: float(rule.weight.subs("c_2", 0.5)) for rule in found.rules} == {one: 1.0, other: 0.5}


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("column", ["bbbb", "obbo", "bbob"])
def test_equal_sides_come_back_though_the_loss_is_a_constant(column, link):
    loss = compiled(PreferenceStructure.from_rows(column), link=link, reference=False)
    found = derive(loss)
    assert equivalent(found.structure, PreferenceStructure.from_rows(column))
    assert any("a constant" in note for note in found.notes)


def test_a_foreign_constant_is_refused():
    loss = compiled(PreferenceStructure.from_rows("obbo"), reference=False)

    def foreign(pair_logps: PairLogps):
        return loss(pair_logps)

    with pytest.raises(ValueError, match=r"does not depend on the log-probabilities: it is log\(2\)"):
        derive(foreign)


# --- groups ---


@pytest.mark.parametrize("k", [2, 3, 4])
def test_groups_come_back_from_their_code(k):
    others = [" & ".join(("" if i == j else "~") + f"y{i}" for i in range(1, k + 1)) for j in range(1, k + 1)]
    structure = PreferenceStructure.from_formulas("y1", given=" | ".join(f"({term})" for term in others))
    assert equivalent(derive(to_loss(structure, beta=0.5)).structure, structure)


def test_random_structures_over_three_answers_come_back_from_their_code():
    for structure in random_structures(6, seed=9, atoms=("y1", "y2", "y3")):
        assert equivalent(derive(to_loss(structure, beta=0.5)).structure, structure)
