"""Structures compiled into losses: their values, gradients, extremes, and what is said about them."""

from __future__ import annotations

import pickle
import random
import warnings

import mpmath
import numpy as np
import pytest
import torch

from prefalign import to_loss
from prefalign.compiler import GroupLoss, LogicLoss, logic
from prefalign.logic import PreferenceStructure, catalogue
from prefalign.losses import (
    BCO,
    DPO,
    IPO,
    SFT,
    APODown,
    APOZero,
    OddsRatio,
    PairLogps,
    RankHinge,
    SimPO,
    SLiC,
    Smoothed,
    parse_loss,
)

ATOMS2, ATOMS4 = ("w", "l"), ("w", "l", "rw", "rl")
COLUMNS = [f"{a}{b}{c}{d}" for a in "vxbo" for b in "vxbo" for c in "vxbo" for d in "vxbo"]
SATISFIABLE = [c for c in COLUMNS if set(c) & set("vb") and set(c) & set("xb")]


def quiet(structure, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return to_loss(structure, **({"mean": False} | kwargs))


def pairs(*columns, dtype=torch.float64):
    tensors = [torch.tensor(c, dtype=dtype, requires_grad=i < 2) for i, c in enumerate(columns)]
    return PairLogps(*tensors)


def naive(structure, logps):
    """rho and its gradient by the definition, in 60 digits: sums over rows of products of p and 1 - p."""
    mpmath.mp.dps = 60
    p = {a: mpmath.exp(mpmath.mpf(x)) for a, x in logps.items()}
    n = len(structure.atoms)
    sides = []
    for mask in (structure.top_mask, structure.bottom_mask):
        total, slopes = mpmath.mpf(0), dict.fromkeys(structure.atoms, mpmath.mpf(0))
        for row in range(1 << n):
            if not mask >> row & 1:
                continue
            false = {a: bool(row >> (n - 1 - i) & 1) for i, a in enumerate(structure.atoms)}
            weight = mpmath.fprod((1 - p[a]) if false[a] else p[a] for a in structure.atoms)
            total += weight
            for a in structure.atoms:
                slopes[a] += weight * (-p[a] / (1 - p[a]) if false[a] else 1)
        sides.append((mpmath.log(total), {a: slopes[a] / total for a in structure.atoms}))
    (top, up), (bottom, down) = sides
    return top - bottom, {a: up[a] - down[a] for a in structure.atoms}


def test_there_are_225_structures_with_satisfiable_parts():
    assert len(SATISFIABLE) == 225


POINTS = [(-0.3, -2.0, -0.5, -1.5), (-1e-8, -5.0, -0.1, -3.0), (-7.0, -1e-8, -6.0, -0.2), (-30.0, -25.0, -28.0, -26.0)]


@pytest.mark.parametrize("reference", [False, True])
def test_every_pair_structure_has_the_values_and_gradients_of_the_definition(reference):
    for column in SATISFIABLE:
        structure = PreferenceStructure.from_rows(column)
        loss = quiet(structure, beta=1.0, reference=reference)
        batch = pairs(*zip(*POINTS, strict=True))
        rho_at = [naive(structure, dict(zip(ATOMS2, point[:2], strict=True))) for point in POINTS]
        value = loss(batch)
        inputs = (batch.chosen, batch.rejected)
        dw, dl = torch.autograd.grad(value.sum(), inputs, allow_unused=True, materialize_grads=True)
        value = value.detach()
        for i, (rho, slope) in enumerate(rho_at):
            shift = POINTS[i][3] - POINTS[i][2] if reference else 0.0
            x = rho + shift
            assert float(value[i]) == pytest.approx(float(mpmath.log1p(mpmath.exp(-x))), rel=1e-9, abs=1e-12), column
            outer = -1 / (1 + mpmath.exp(x))
            for found, atom in ((dw, "w"), (dl, "l")):
                want = float(outer * slope[atom])
                assert float(found[i]) == pytest.approx(want, rel=1e-7, abs=1e-9), (column, POINTS[i], atom)


def rows_weights(logp):
    """Weights of the 16 rows over four atoms, in float64, by numpy: shape (points, 16)."""
    weights = np.ones((len(logp), 16))
    for i in range(4):
        p, q = np.exp(logp[:, i]), -np.expm1(logp[:, i])
        false = (np.arange(16) >> (3 - i)) & 1
        weights *= np.where(false[None, :], q[:, None], p[:, None])
    return weights


def random_masks(count, seed):
    rng = random.Random(seed)
    return [(rng.randrange(1, 1 << 16), rng.randrange(1, 1 << 16)) for _ in range(count)]


def agree_at_four_atoms(count, seed):
    rng = np.random.default_rng(seed)
    logp = -3 * rng.random((4, 4)) - 0.05
    weights, slopes = rows_weights(logp), []
    for i in range(2):  # d log weight / d log p = 1 where p is a factor, -p/(1-p) where 1 - p is
        false = (np.arange(16) >> (3 - i)) & 1
        odds = np.exp(logp[:, i]) / -np.expm1(logp[:, i])
        slopes.append(np.where(false[None, :], -odds[:, None], 1.0))
    logps = dict(zip(ATOMS4, torch.tensor(logp.T), strict=True))
    found, want = [], []
    for top, bottom in random_masks(count, seed):
        loss = quiet(PreferenceStructure(ATOMS4, top, bottom), beta=1.0)
        sides = []
        for mask in (top, bottom):
            rows = (mask >> np.arange(16)) & 1
            total = weights @ rows
            sides.append((np.log(total), [(weights * s) @ rows / total for s in slopes]))
        rho = sides[0][0] - sides[1][0]
        outer = -1 / (1 + np.exp(rho))
        want.append(
            [np.logaddexp(0, -rho), *(outer * (up - down) for up, down in zip(sides[0][1], sides[1][1], strict=True))]
        )
        live = {a: x.clone().requires_grad_(a in ATOMS2) for a, x in logps.items()}
        value = loss.of_logps(live)
        gradients = (
            torch.autograd.grad(value.sum(), [live["w"], live["l"]], allow_unused=True, materialize_grads=True)
            if value.requires_grad
            else [torch.zeros(4)] * 2
        )
        found.append([value.detach().numpy(), *(g.numpy() for g in gradients)])
    np.testing.assert_allclose(np.array(found), np.array(want), rtol=1e-8, atol=1e-11)


def test_random_structures_with_a_reference_have_the_values_of_the_definition():
    agree_at_four_atoms(300, seed=1)


@pytest.mark.slow
def test_ten_thousand_structures_with_a_reference_have_the_values_of_the_definition():
    agree_at_four_atoms(10_000, seed=2)


# --- equal to what was written by hand ---


def batch(dtype=torch.float32, n=64):
    g = torch.Generator().manual_seed(0)
    w, lost, rw, rl = (-80 * torch.rand(n, generator=g, dtype=dtype) for _ in range(4))
    tokens = torch.randint(4, 40, (2, n), generator=g).to(dtype)
    return PairLogps(w.requires_grad_(), lost.requires_grad_(), rw, rl, tokens[0], tokens[1])


@pytest.mark.parametrize(
    ("compiled", "by_hand"),
    [
        (to_loss("dpo", beta=0.1), DPO(beta=0.1)),
        (to_loss("cpo", beta=0.1), DPO(beta=0.1)),
        (to_loss("cpo", beta=0.1, mean=True), DPO(beta=0.1, mean=True)),
        (to_loss("dpo", link="square", beta=0.1, mean=True), IPO(beta=0.1)),
        (to_loss("dpo", link="scaled_hinge", beta=0.1), SLiC(beta=0.1)),
        (to_loss("cpo", beta=2.0, reference=False, mean=True), SimPO(beta=2.0, gamma=0.0)),
        (to_loss("orpo", beta=1.0, reference=False, mean=True), OddsRatio(beta=1.0)),
        (to_loss("ce", beta=1.0, reference=False, mean=False), SFT(reduction="sum")),
        (Smoothed(to_loss("dpo", beta=0.1), 0.1), Smoothed(DPO(beta=0.1), 0.1)),
        (to_loss("slic", link="hinge", beta=1.5, reference=False), RankHinge(delta=1.5)),
        (to_loss("rrhf", link="perceptron", reference=False, mean=True), RankHinge(delta=0.0, mean=True)),
        (to_loss("w/rw", beta=0.1) + to_loss("rl/l", beta=0.1), BCO(beta=0.1)),
        (to_loss("w/rw", "sigmoid", 0.1) + to_loss("rl/l", "sigmoid", 0.1), APOZero(beta=0.1)),
        (to_loss("dpo", "sigmoid", 0.1) + to_loss("rw/w", "sigmoid", 0.1), APODown(beta=0.1)),
    ],
    ids=lambda loss: getattr(loss, "expression", ""),
)
def test_the_catalogue_compiles_to_the_hand_written_losses(compiled, by_hand):
    one, two = batch(), batch()
    ours, theirs = compiled(one), by_hand(two)
    torch.testing.assert_close(ours, theirs, rtol=2e-6, atol=2e-6)
    for a, b in zip(
        torch.autograd.grad(ours.sum(), (one.chosen, one.rejected), allow_unused=True, materialize_grads=True),
        torch.autograd.grad(theirs.sum(), (two.chosen, two.rejected), allow_unused=True, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=2e-6, atol=2e-6)


def test_dpo_compiles_to_its_own_bits():
    assert torch.equal(to_loss("dpo", beta=0.1)(batch()), DPO(beta=0.1)(batch()))
    assert not to_loss("dpo").tape.exact


@pytest.mark.parametrize("column", ["vvxo", "ovxb", "bvxv", "xvbo"])
def test_gradients_pass_gradcheck(column):
    loss = quiet(PreferenceStructure.from_rows(column), beta=0.7)
    inputs = [torch.tensor([-0.4, -2.0, -6.0], dtype=torch.float64, requires_grad=True) for _ in range(4)]
    assert torch.autograd.gradcheck(lambda *x: loss(PairLogps(*x)), inputs)


# --- what a loss says ---


@pytest.mark.parametrize(
    ("column", "word"), [("vvxv", "saturated"), ("ovxb", "dead"), ("bvxx", "learns from one answer only")]
)
def test_sums_where_no_answer_is_valid_are_warned_about_once_with_the_remedy(column, word):
    with pytest.warns(UserWarning, match=rf"{word}.*mean=True.*sft") as caught:
        to_loss(PreferenceStructure.from_rows(column), mean=False)(batch())
    assert len(caught) == 1


@pytest.mark.parametrize("column", ["bvxo", "ovxo", "vvxo", "xvxo", "vvxx"])
def test_sums_that_keep_their_contrast_are_the_default_and_not_warned_about(column):
    assert to_loss(PreferenceStructure.from_rows(column)).mean is False


@pytest.mark.parametrize("column", ["vvxv", "ovxb", "bvxx"])
def test_the_mean_is_the_default_where_the_last_row_counts(column):
    loss = to_loss(PreferenceStructure.from_rows(column))
    assert loss.mean is True
    assert loss.needs_lengths
    assert "means over tokens" in str(loss)


def test_one_answer_against_its_reference_keeps_its_contrast():
    # rl/l at e^-510 over e^-500: rho is 10, whatever the row says in which neither is valid.
    loss = to_loss("rl/l", beta=0.1)  # no warning
    assert loss.mean is False
    at = {"l": torch.tensor([-510.0], requires_grad=True), "rl": torch.tensor([-500.0]), "w": torch.tensor([-1.0])}
    assert float(loss.of_logps(at).detach()) == pytest.approx(0.313262, abs=1e-6)  # -log sigmoid(0.1 * 10)
    assert to_loss("(1-l)/l").mean is True  # without a reference there is nothing to contrast with


def test_the_claimed_fate_of_sums_is_what_happens():
    # Every probability e^-500: unCPO's loss is 0 without a gradient, qfUNL's is log 2, cCPO's is DPO-like contrast.
    at = {"w": torch.tensor([-500.0], requires_grad=True), "l": torch.tensor([-510.0], requires_grad=True)}
    unlearned = quiet(catalogue["uncpo"].structure, beta=1.0, reference=False).of_logps(at)
    assert float(unlearned.detach()) == 0.0
    assert float(torch.autograd.grad(unlearned.sum(), at["w"])[0]) == 0.0
    dead = quiet(catalogue["qfunl"].structure, beta=1.0, reference=False).of_logps(at)
    assert float(dead.detach()) == pytest.approx(0.693147, abs=1e-6)
    assert float(torch.autograd.grad(dead.sum(), at["w"])[0]) == 0.0
    contrast = quiet(catalogue["ccpo"].structure, beta=0.1, reference=False).of_logps(at)
    assert float(contrast.detach()) == pytest.approx(0.313262, abs=1e-6)  # -log sigmoid(0.1 * 10)


def test_a_structure_with_equal_sides_is_said_to_be_a_constant():
    with pytest.warns(UserWarning, match="no gradient"):
        loss = to_loss(PreferenceStructure.from_rows("bbob"), mean=True)
    batch = pairs([-1.0], [-2.0], [-1.0], [-1.0], [3.0], [3.0])
    assert torch.autograd.grad(loss(batch).sum(), batch.chosen)[0].tolist() == [0.0]


# --- objects ---


@pytest.mark.parametrize("column", ["bvxo", "vvxo", "ovxb", "xvbv"])
@pytest.mark.parametrize("reference", [True, False])
def test_the_expression_reads_back_to_an_equal_loss(column, reference):
    loss = quiet(PreferenceStructure.from_rows(column), link="square", beta=0.25, reference=reference, mean=True)
    assert parse_loss(loss.expression) == loss
    assert parse_loss(f"0.5*{loss.expression} + sft(reduction='sum')").needs_lengths


def test_the_expression_language_has_formulas():
    loss = parse_loss("logic('M(l) >> M(w)', given='M(w) | M(l)', beta=0.1, mean=True)")
    assert isinstance(loss, LogicLoss)
    assert loss.structure == catalogue["ccpo"].structure
    assert (loss.beta, loss.mean, loss.reference, loss.needs_reference) == (0.1, True, True, True)


def test_a_formula_keeps_its_wording_in_the_expression():
    assert "'M(l) -> M(w)', given='M(w) | M(l)'" in logic("M(l) >> M(w)", given="M(w) | M(l)").expression


def test_columns_formulas_and_equations_are_taken_as_text():
    assert to_loss("ovxo") == to_loss(PreferenceStructure.from_rows("ovxo"))
    for column in SATISFIABLE[::11]:
        assert quiet(column).structure == PreferenceStructure.from_rows(column)
    # "w" is a formula and an equation: the formula is meant, as its docstring says.
    assert quiet("w").structure == catalogue["ce"].structure
    assert quiet("w/1").structure.rows == "bbxx"
    assert quiet("bvxo").structure == quiet("w/l").structure == quiet("cpo").structure


def test_a_loss_pickles_and_compiles():
    loss = quiet(PreferenceStructure.from_rows("ovxb"))
    again = pickle.loads(pickle.dumps(loss))  # noqa: S301  (our own bytes)
    assert again == loss
    assert torch.equal(again(batch()), loss(batch()))
    compiled = torch.compile(loss.__call__, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(batch()), loss(batch()))


def test_bad_arguments_are_named():
    structure = PreferenceStructure.from_rows("bvxo")
    for kwargs, reason in (
        ({"link": "logitsic"}, "Did you mean `logistic`"),
        ({"beta": 0.0}, "`beta` must be"),
        ({"mean": "yes"}, "`mean` must be True or False"),
        ({"reference": 1}, "`reference` must be True or False"),
        ({"link": "perceptron", "beta": 0.1}, "no effect"),
        ({"reference": True, "structure": catalogue["dpo"].structure}, "has them"),
        ({"structure": PreferenceStructure.from_rows("vvvo")}, "bottom.*unsatisfiable"),
        ({"structure": catalogue["bco"].rules}, "must give a number for `delta`"),
    ):
        with pytest.raises(ValueError, match=reason):
            to_loss(**({"structure": structure} | kwargs))


# --- groups ---


def exactly_one(k):
    others = [" & ".join(("" if i == j else "~") + f"y{i}" for i in range(1, k + 1)) for j in range(1, k + 1)]
    return " | ".join(f"({term})" for term in others)


@pytest.mark.parametrize("k", [2, 3, 5, 8])
def test_only_y1_given_exactly_one_is_softmax_cross_entropy_over_log_odds(k):
    loss = to_loss(PreferenceStructure.from_formulas("y1", given=exactly_one(k)), beta=1.0)
    assert isinstance(loss, GroupLoss)
    logps = (-4 * torch.rand(6, k, generator=torch.Generator().manual_seed(k), dtype=torch.float64)).requires_grad_()
    odds = logps - torch.log(-torch.expm1(logps))
    want = torch.nn.functional.cross_entropy(odds, torch.zeros(6, dtype=torch.long), reduction="none")
    torch.testing.assert_close(loss(logps), want)
    for a, b in zip(torch.autograd.grad(loss(logps).sum(), logps), torch.autograd.grad(want.sum(), logps), strict=True):
        torch.testing.assert_close(a, b)


def test_a_group_that_is_too_narrow_is_refused():
    loss = to_loss(PreferenceStructure.from_formulas("y1", given="y1 ^ y2"))
    with pytest.raises(ValueError, match=r"\(groups, 2\)"):
        loss(torch.zeros(3))
