"""Losses of judged groups against closed forms in numpy, finite differences, and DPO for groups of two."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from prefalign import PrefalignError, derive
from prefalign.losses import (
    CPO,
    DPO,
    KTO,
    ODPO,
    BestOf,
    Davidson,
    GroupLogps,
    LiPO,
    PairLogps,
    Pairs,
    PlackettLuce,
    RaoKupper,
    Robust,
    UnpairedAPO,
    UnpairedBCO,
    parse_loss,
)
from tests.losses.samples import title

LOGPS = [[-3.0, -5.5, -4.0, -9.0], [-2.0, -2.5, -7.0, 0.0], [-1.0, -30.0, 0.0, 0.0]]
REFS = [[-3.5, -5.0, -4.5, -8.0], [-2.5, -2.0, -6.0, 0.0], [-4.0, -20.0, 0.0, 0.0]]
THERE = [[True] * 4, [True, True, True, False], [True, True, False, False]]
RANKS = [[2, 1, 4, 3], [1, 3, 2, 1], [2, 1, 1, 1]]
SCORES = [[1.5, 2.0, -1.0, 0.5], [3.0, 0.0, 1.0, 9.0], [0.25, 1.0, 9.0, 9.0]]
LABELS = [[True, False, False, True], [False, True, True, True], [True, True, False, False]]
BETA = 0.7


def groups(**given):
    double = {"dtype": torch.float64}
    logps = torch.tensor(LOGPS, **double).requires_grad_()
    return GroupLogps(logps, torch.tensor(REFS, **double), mask=torch.tensor(THERE), **given)


def ranked():
    return groups(ranks=torch.tensor(RANKS))


def scored():
    return groups(scores=torch.tensor(SCORES, dtype=torch.float64))


def labelled(**more):
    return groups(labels=torch.tensor(LABELS), **more)


def rows(judgement):
    """(rewards, judgements) of each group, in numpy."""
    for logps, refs, there, said in zip(LOGPS, REFS, THERE, judgement, strict=True):
        kept = np.array(there)
        yield (np.array(logps) - np.array(refs))[kept], np.array(said)[kept]


def lse(values):
    return float(np.log(np.sum(np.exp(values))))


def plackett_luce(r, ranks, top=None):
    ordered = BETA * r[np.argsort(ranks, kind="stable")]
    return sum(lse(ordered[j:]) - ordered[j] for j in range(min(len(r) - 1, top or 99)))


def lipo(r, scores):
    place = np.empty(len(r))
    place[np.argsort(-r)] = np.arange(1, len(r) + 1)
    total = 0.0
    for i, j in itertools.permutations(range(len(r)), 2):
        if scores[i] > scores[j]:
            gain = abs(2 ** scores[i] - 2 ** scores[j])
            weight = gain * abs(1 / math.log(1 + place[i]) - 1 / math.log(1 + place[j]))
            total += weight * math.log(1 + math.exp(-BETA * (r[i] - r[j])))
    return total


def ordered_pairs(judgement, better=np.greater):
    return [(i, j) for i, j in itertools.permutations(range(len(judgement)), 2) if better(judgement[i], judgement[j])]


def odpo(r, scores):
    return float(
        np.mean(
            [
                math.log(1 + math.exp(-(BETA * (r[i] - r[j]) - 0.5 * math.log(scores[i] - scores[j]))))
                for i, j in ordered_pairs(scores)
            ]
        )
    )


def adjacent_dpo(r, ranks):
    order = np.argsort(ranks)
    return float(np.mean([math.log(1 + math.exp(-BETA * (r[a] - r[b]))) for a, b in itertools.pairwise(order)]))


def kto(r, labels):
    z = 0.4
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    good, bad = (lambda x: 1.5 * (1 - sigmoid(BETA * (x - z)))), (lambda x: 0.5 * (1 - sigmoid(BETA * (z - x))))
    return float(np.mean([good(x) if label else bad(x) for x, label in zip(r, labels, strict=True)]))


def apo(r, labels):
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    return float(
        np.mean([1 - sigmoid(BETA * x) if label else sigmoid(BETA * x) for x, label in zip(r, labels, strict=True)])
    )


def bco(r, labels):
    sides = [
        math.log(1 + math.exp(-(BETA * x - 0.3) * (1 if label else -1))) for x, label in zip(r, labels, strict=True)
    ]
    return float(np.mean(sides))


CASES = [
    (PlackettLuce(BETA), ranked, RANKS, plackett_luce),
    (PlackettLuce(BETA, top=2), ranked, RANKS, lambda r, ranks: plackett_luce(r, ranks, 2)),
    (BestOf(BETA), ranked, RANKS, lambda r, ranks: plackett_luce(r, ranks, 1)),
    (LiPO(BETA), scored, SCORES, lipo),
    (ODPO(BETA, alpha=0.5), scored, SCORES, odpo),
    (Pairs(DPO(BETA), which="adjacent"), ranked, RANKS, adjacent_dpo),
    (KTO(BETA, desirable=1.5, undesirable=0.5, baseline=0.4), labelled, LABELS, kto),
    (UnpairedAPO(BETA), labelled, LABELS, apo),
    (UnpairedBCO(BETA, shift=0.3), labelled, LABELS, bco),
]


@pytest.mark.parametrize(("loss", "judged", "said", "form"), CASES, ids=title)
def test_a_loss_is_its_closed_form_and_its_gradient_the_finite_difference(loss, judged, said, form):
    made = judged()
    values = loss(made)
    np.testing.assert_allclose(values.detach(), [form(*row) for row in rows(said)], rtol=1e-9)
    (slopes,) = torch.autograd.grad(values.sum(), made.logps)
    assert torch.isfinite(slopes).all()
    assert not slopes[~torch.tensor(THERE)].any()  # an answer that is not there is never read

    def total(logps):
        given = {n: getattr(made, n) for n in ("ref_logps", "mask", "ranks", "scores", "labels")}
        return loss(GroupLogps(logps, **given)).sum()

    if not isinstance(loss, LiPO):  # whose weights stand still
        assert torch.autograd.gradcheck(total, made.logps.detach().requires_grad_())


@pytest.mark.parametrize("loss", [PlackettLuce(0.1), PlackettLuce(0.1, top=1), BestOf(0.1), Pairs(DPO(0.1))])
def test_of_two_answers_it_is_dpo_to_the_last_bit(loss):
    drawn = torch.Generator().manual_seed(0)
    pairs = PairLogps(*(-50 * torch.rand(64, generator=drawn) for _ in range(4)))
    assert torch.equal(loss(pairs), DPO(0.1)(pairs))
    assert torch.equal(loss(pairs.as_group()), DPO(0.1)(pairs))


def test_of_tied_answers_the_orders_are_averaged():
    # Two tied, then one: the mean over both orders, which Efron's form approximates and meets at equal rewards.
    for rewards, slack in (([-1.0, -1.0, -2.0], 1e-12), ([-1.0, -1.3, -2.0], 2e-2)):
        r = np.array(rewards)
        exact = np.mean([plackett_luce(r, np.array(ranks)) for ranks in ([1, 2, 3], [2, 1, 3])])
        tied = GroupLogps(
            torch.tensor([rewards], dtype=torch.float64), torch.zeros(1, 3), ranks=torch.tensor([[1, 1, 2]])
        )
        assert PlackettLuce(BETA)(tied).item() == pytest.approx(exact, abs=slack)


@pytest.mark.parametrize("kind", [RaoKupper, Davidson])
@pytest.mark.parametrize("d", [-3.0, 0.0, 0.4, 8.0])
def test_two_wins_and_a_tie_make_one(kind, d):
    loss = kind(beta=1.0, tie=0.6)
    logps = torch.tensor([[d, 0.0]], dtype=torch.float64)
    said = [[1, 2], [2, 1], [1, 1]]
    parts = [loss(GroupLogps(logps, 0 * logps, ranks=torch.tensor([ranks]))).item() for ranks in said]
    assert sum(math.exp(-part) for part in parts) == pytest.approx(1.0, abs=1e-12)
    clear = kind(beta=1.0, tie=1e-9)(GroupLogps(logps, 0 * logps, ranks=torch.tensor([[1, 2]]))).item()
    assert clear == pytest.approx(math.log(1 + math.exp(-d)), abs=1e-6)


def test_ktos_point_is_the_batchs_kl_and_has_no_gradient():
    other = torch.tensor([-2.0, -1.0, -4.0], dtype=torch.float64).requires_grad_()
    made = labelled(mismatched=other, ref_mismatched=torch.tensor([-2.5, -2.0, -4.0], dtype=torch.float64))
    values = KTO(BETA)(made)
    np.testing.assert_allclose(values.detach(), KTO(BETA, baseline=0.5)(labelled()).detach(), rtol=1e-12)
    values.sum().backward()
    assert other.grad is None
    with pytest.raises(PrefalignError, match="give `mismatched`"):
        KTO(BETA)(labelled())


def test_a_swapped_label_exchanges_the_two_sides_so_that_robust_debiases_it():
    clean, rate = KTO(BETA, baseline=0.0), 0.2
    noisy = Robust(clean, flip_rate=rate)
    flipped = groups(labels=~torch.tensor(LABELS))
    # The mean over the flips of the robust loss is the clean loss.
    mean = (1 - rate) * noisy(labelled()) + rate * noisy(flipped)
    torch.testing.assert_close(mean, clean(labelled()))
    with pytest.raises(PrefalignError, match="cannot be swapped"):
        Robust(PlackettLuce(BETA), flip_rate=0.2)


@pytest.mark.parametrize(
    "text",
    [
        "plackett_luce(beta=0.1, top=2)",
        "best_of(beta=0.1)",
        "pairs(robust(dpo(beta=0.1), flip_rate=0.2), which='adjacent')",
        "lipo(beta=0.1)",
        "odpo(beta=0.1, alpha=1.0)",
        "rao_kupper(beta=0.1, tie=0.5)",
        "davidson(beta=0.1, tie=0.5)",
        "kto(beta=0.1, desirable=1.0, undesirable=1.0, baseline='batch')",
        "unpaired_bco(beta=0.1)",
        "unpaired_apo(beta=0.1)",
    ],
)
def test_expressions_are_read_and_written(text):
    loss = parse_loss(text)
    assert parse_loss(loss.expression) == loss
    assert loss.reads != "pair"
    with pytest.raises(PrefalignError, match="judged groups"):
        derive(loss)


@pytest.mark.parametrize(
    ("which", "wanted"),
    [
        ("all", {(1, 0), (1, 3), (1, 2), (0, 3), (0, 2), (3, 2)}),
        ("adjacent", {(1, 0), (0, 3), (3, 2)}),
        ("best_worst", {(1, 2)}),
        ("best_rest", {(1, 0), (1, 3), (1, 2)}),
    ],
)
def test_which_pairs_a_ranking_gives(which, wanted):
    better, worse, group = ranked().ordered(which)
    assert {(i, j) for i, j, g in zip(better.tolist(), worse.tolist(), group.tolist(), strict=True) if g == 0} == wanted
    assert not any((j == 3) for j, g in zip(worse.tolist(), group.tolist(), strict=True) if g == 1)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: GroupLogps(torch.zeros(3)), r"shape \(groups, K\)"),
        (lambda: GroupLogps(torch.zeros(2, 3), ranks=torch.zeros(3)), "`ranks` must have the shape"),
        (lambda: GroupLogps(torch.zeros(2, 3), labels=torch.zeros(2, 3)), "truth values"),
        (lambda: GroupLogps(torch.zeros(1, 2), mask=torch.zeros(1, 2, dtype=torch.bool)), "at least one answer"),
        (lambda: GroupLogps(torch.zeros(1, 2), mismatched=torch.zeros(1)), "given together"),
        (lambda: PlackettLuce(0.1)(GroupLogps(torch.zeros(1, 2), torch.zeros(1, 2))), "not judged"),
        (lambda: PlackettLuce(0.1)(GroupLogps(torch.zeros(1, 2))), "give `ref_logps`"),
        (lambda: GroupLogps(torch.zeros(1, 2), scores=torch.tensor([[1.0, math.nan]])), "finite numbers"),
        (lambda: LiPO(0.1)(ranked()), "reads scores"),
        (lambda: UnpairedAPO(0.1)(ranked()), "reads labels"),
        (lambda: PlackettLuce(0.0), "`beta` must be"),
        (lambda: PlackettLuce(0.1, top=0), "`top` must be"),
        (lambda: Pairs(BestOf(0.1)), "a loss of pairs"),
        (lambda: Pairs(CPO(0.1), which="some"), "`which` must be"),
        (lambda: KTO(0.1, baseline="running"), "`baseline` must be"),
    ],
)
def test_bad_input_gets_its_one_error(make, reason):
    with pytest.raises(PrefalignError, match=reason):
        make()


@pytest.mark.parametrize(
    "text",
    ["kto(beta=0.1)", "lipo(beta=0.1)", "dpo(beta=0.1) + odpo(beta=0.1)", "robust(kto(beta=0.1), flip_rate=0.1)"],
)
def test_the_trainer_of_pairs_refuses_what_pairs_do_not_have(text, tmp_path):
    from prefalign.train import PrefConfig
    from prefalign.train.config import put_together

    with pytest.raises(PrefalignError, match="rows are pairs, which have none"):
        put_together(PrefConfig(output_dir=str(tmp_path), report_to="none"), parse_loss(text))


def test_a_weight_by_the_gap_follows_the_scores_order():
    made = groups(scores=torch.tensor(SCORES, dtype=torch.float64))
    turned = groups(scores=torch.tensor(SCORES, dtype=torch.float64), ranks=torch.tensor(RANKS))
    loss = Pairs(DPO(BETA), weight="gap")
    torch.testing.assert_close(loss(turned), loss(made))
    assert (loss(made) >= 0).all()
