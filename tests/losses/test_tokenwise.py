"""The losses on single tokens: against numpy (float64), TRL's own code, and numbers worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from prefalign import PrefalignError
from prefalign.losses import (
    DPO,
    IPO,
    LD,
    SFT,
    TDPO,
    WPO,
    DrDPO,
    Loss,
    PairLogps,
    Robust,
    SamPO,
    SimPO,
    TokenLogps,
    from_trl,
    parse_loss,
)

from .samples import title
from .trl_oracle import random_tokens, trl_loss

NAMES = ("policy", "reference", "log_sum_sq_probs", "kl")


def batch(seed: int, pairs: int = 4, width: int = 9) -> TokenLogps:
    """Completions of uneven lengths, one pair of equal ones among them; gaps inside, as between turns."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(2 * pairs, width, generator=generator) < 0.6
    mask[pairs] = mask[0]
    mask[:, 0] = True
    draw = [-2 * torch.rand(2 * pairs, width, generator=generator, dtype=torch.float64) * mask for _ in NAMES]
    draw[3] = -draw[3]
    return TokenLogps(draw[0], mask.long(), *draw[1:])


def pairs_of(single: TokenLogps) -> PairLogps:
    counts = single.lengths().double().chunk(2)
    return PairLogps(*single.policy.sum(1).chunk(2), *single.reference.sum(1).chunk(2), *counts, single=single)


def logistic(x):
    return np.log1p(np.exp(-x))


def rows(single: TokenLogps, name: str) -> list[np.ndarray]:
    """The tokens of each row that count."""
    masks = single.mask.bool()
    return [row[mask].detach().numpy() for row, mask in zip(getattr(single, name), masks, strict=True)]


def by_pair(single: TokenLogps, value) -> np.ndarray:
    """value(chosen, rejected), each a dict of the row's numbers by name."""
    found = {name: rows(single, name) for name in NAMES}
    count = len(single.mask) // 2
    return np.array([value(*({n: found[n][row] for n in NAMES} for row in (i, i + count))) for i in range(count)])


def ld_dpo(w, l):  # noqa: E741
    shared = min(len(w["policy"]), len(l["policy"]))

    def ratio(row):
        each = row["policy"] - row["reference"]
        return each[:shared].sum() + 0.3 * each[shared:].sum()

    return logistic(0.5 * (ratio(w) - ratio(l)))


def wpo_dpo(w, l):  # noqa: E741
    weight = math.prod(math.exp(np.mean(row["policy"] - row["log_sum_sq_probs"])) for row in (w, l))
    return weight * logistic(0.5 * sum(s * (row["policy"] - row["reference"]).sum() for s, row in ((1, w), (-1, l))))


def tdpo(w, l):  # noqa: E741
    margin = (w["policy"] - w["reference"]).sum() - (l["policy"] - l["reference"]).sum()
    return logistic(0.5 * (margin - 0.7 * (l["kl"].sum() - w["kl"].sum())))


CASES = [(LD(DPO(beta=0.5), 0.3), ld_dpo), (WPO(DPO(beta=0.5)), wpo_dpo), (TDPO(beta=0.5, alpha=0.7), tdpo)]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("loss", "oracle"), CASES, ids=title)
def test_a_loss_is_its_papers_formula(loss, oracle, seed):
    single = batch(seed)
    np.testing.assert_allclose(loss(pairs_of(single)).numpy(), by_pair(single, oracle), rtol=1e-12)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    "loss", [LD(IPO(beta=0.5), 0.3), SamPO(DPO(beta=0.5), 1), TDPO(0.5, 0.7, detach=False)], ids=title
)
def test_gradients_are_those_of_the_values(loss, seed):
    given = batch(seed)
    leaves = [given.policy.clone().requires_grad_(), given.kl.clone().requires_grad_()]

    def value(policy, kl):
        return loss(pairs_of(TokenLogps(policy * given.mask, given.mask, given.reference, None, kl)))

    assert torch.autograd.gradcheck(value, leaves)


SETTINGS = [
    ({"ld_alpha": 0.4}, ["sigmoid"], None),
    ({"ld_alpha": 0.0, "beta": 0.3}, ["ipo"], None),
    ({"ld_alpha": 0.4, "label_smoothing": 0.2}, ["robust"], None),
    ({"ld_alpha": 0.4, "f_divergence_type": "js_divergence"}, ["sigmoid_norm"], None),
    ({"ld_alpha": 0.4}, ["sigmoid", "sft"], [1.0, 0.5]),
    ({"use_weighting": True}, ["sigmoid"], None),
    ({"use_weighting": True, "label_smoothing": 0.2}, ["robust"], None),
    ({"use_weighting": True, "ld_alpha": 0.4}, ["bco_pair"], [0.3]),
]


@pytest.mark.parametrize("scale", [0.3, 5.0])
@pytest.mark.parametrize(("options", "types", "weights"), SETTINGS, ids=str)
def test_the_options_of_trl_are_these_losses_bit_for_bit(options, types, weights, scale):
    tokens = random_tokens(7, scale=scale)
    ours = from_trl(types, weights, **options).reduce(tokens.pairs())
    theirs = trl_loss(tokens, types, weights, **options)
    gradients = [torch.autograd.grad(each, tokens.policy)[0] for each in (ours, theirs)]
    assert torch.equal(ours, theirs)
    assert torch.equal(*gradients)


def test_the_oracle_reads_these_options():
    tokens = random_tokens(7)
    plain = trl_loss(tokens, ["sigmoid"])
    for options in ({"ld_alpha": 0.4}, {"use_weighting": True}):
        assert not torch.equal(trl_loss(tokens, ["sigmoid"], **options), plain)


def test_tdpo_on_a_vocabulary_of_three_worked_by_hand():
    # One token each. ref = (1/2, 1/4, 1/4) in both; pi(w) = (1/4, 1/2, 1/4), pi(l) = ref. w is token 1, l is token 0.
    # K(w) = 1/2 log 2 - 1/4 log 2 = log(2)/4, K(l) = 0, D = log(1/2) - log(1/4) - 0 = log 2.
    log = math.log
    logits = torch.tensor([[1, 2, 1], [2, 1, 1]], dtype=torch.float64).log().requires_grad_()
    ref = torch.tensor([[0.5, 0.25, 0.25]] * 2, dtype=torch.float64)
    logp = logits.log_softmax(1)
    kl = (ref * (ref.log() - logp)).sum(1, keepdim=True)
    policy = logp[[0, 1], [1, 0]][:, None]
    ones = torch.ones(2, 1, dtype=torch.long)
    reference = torch.tensor([[0.25], [0.5]], dtype=torch.float64).log()

    def value(**options):
        return TDPO(beta=1.0, **options)(pairs_of(TokenLogps(policy, ones, reference, None, kl)))

    margin = log(2) + 0.5 * log(2) / 4
    assert value(alpha=0.5).item() == pytest.approx(log(1 + math.exp(-margin)), rel=1e-12)
    # The gradient of K(w) by the logits of w is pi - ref = (-1/4, 1/4, 0); that of log pi(w) is (-1/4, 1/2, -1/4).
    slope = -1 / (1 + math.exp(margin))
    second = torch.autograd.grad(value(alpha=0.5).sum(), logits, retain_graph=True)[0]
    torch.testing.assert_close(second[0], slope * torch.tensor([-0.25, 0.5, -0.25], dtype=torch.float64))
    first = torch.autograd.grad(value(alpha=0.5, detach=False).sum(), logits)[0]
    both = torch.tensor([-0.25 - 0.125, 0.5 + 0.125, -0.25], dtype=torch.float64)
    torch.testing.assert_close(first[0], slope * both)
    # K(l) has the gradient pi - ref = 0 at pi = ref: what is left is that of log pi(l), (1/2, -1/4, -1/4).
    torch.testing.assert_close(first[1], -slope * torch.tensor([0.5, -0.25, -0.25], dtype=torch.float64))


@pytest.mark.parametrize("seed", [0, 5])
def test_sampo_takes_as_many_tokens_of_both_and_the_same_of_policy_and_reference(seed):
    single = batch(3)
    marks = single.mask.double() * (2.0 ** torch.arange(single.mask.shape[1]))
    seen: list[torch.Tensor] = []

    class Spy(DPO):
        def __call__(self, pair_logps):
            seen.extend([pair_logps.chosen, pair_logps.rejected, pair_logps.ref_chosen, pair_logps.ref_rejected])
            return super().__call__(pair_logps)

    SamPO(Spy(beta=0.1), seed)(pairs_of(TokenLogps(marks, single.mask, marks)))
    kept = [[bin(int(number)).count("1") for number in column] for column in seen]
    lengths = single.lengths().chunk(2)
    assert kept[0] == kept[1] == torch.minimum(*lengths).tolist()
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(seen[1], seen[3])


def test_the_draw_of_sampo_does_not_depend_on_the_batch_and_varies_with_the_seed():
    single = batch(4, pairs=6, width=40)
    whole = SamPO(DPO(beta=0.1), 1)(pairs_of(single))
    rows = [2, 8]
    alone = TokenLogps(single.policy[rows], single.mask[rows], single.reference[rows])
    assert torch.equal(SamPO(DPO(beta=0.1), 1)(pairs_of(alone)), whole[2:3])
    assert not torch.equal(SamPO(DPO(beta=0.1), 2)(pairs_of(single)), whole)


@pytest.mark.parametrize("make", [lambda loss: LD(loss, 1.0), lambda loss: SamPO(loss, 0)])
def test_pairs_of_equal_length_and_alpha_one_leave_the_loss(make):
    single = batch(5)
    even = TokenLogps(single.policy, torch.ones_like(single.mask), single.reference)
    torch.testing.assert_close(make(DPO(beta=0.3))(pairs_of(even)), DPO(beta=0.3)(pairs_of(even)))


@pytest.mark.parametrize("loss", [LD(DPO(beta=0.5), 0.3), WPO(DPO(beta=0.5)), SamPO(DPO(beta=0.5), 0)], ids=title)
def test_robust_swaps_single_tokens_too(loss):
    pairs = pairs_of(batch(6))
    expected = (0.8 * loss(pairs) - 0.2 * loss(pairs.swapped())) / 0.6
    torch.testing.assert_close(Robust(loss, 0.2)(pairs), expected)
    assert not torch.allclose(loss(pairs), loss(pairs.swapped()))


def test_the_weights_of_wpo_have_no_gradient():
    single = batch(8)
    policy = single.policy.clone().requires_grad_()
    made = TokenLogps(policy, single.mask, single.reference, single.log_sum_sq_probs)
    pairs = pairs_of(made)
    value = WPO(DPO(beta=0.5))(pairs)
    weights = (value / DPO(beta=0.5)(pairs)).detach()
    (gradient,) = torch.autograd.grad(value.sum(), policy, retain_graph=True)
    (expected,) = torch.autograd.grad((weights * DPO(beta=0.5)(pairs)).sum(), policy)
    torch.testing.assert_close(gradient, expected)


READS = {
    "ld(dpo(0.1), alpha=0.5)": {"logps"},
    "wpo(ld(dpo(0.1), alpha=0.5))": {"logps", "log_sum_sq_probs"},
    "robust(wpo(dpo(0.1)), 0.2) + 0.5*sft(sum)": {"log_sum_sq_probs"},
    "tdpo(0.1)": {"kl"},
    "dpo(0.1)": set(),
}


@pytest.mark.parametrize("text", READS)
def test_a_loss_says_what_it_reads_of_single_tokens(text):
    loss = parse_loss(text)
    assert loss.reads_tokens == READS[text]
    assert parse_loss(loss.expression) == loss
    if loss.reads_tokens:
        with pytest.raises(PrefalignError, match="give `single`"):
            loss(PairLogps(*torch.zeros(4, 2)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LD(DPO(beta=0.1), 1.1), "`alpha` must be"),
        (lambda: LD(LD(DPO(beta=0.1), 0.5), 0.5), "sums tokens by itself"),
        (lambda: LD(TDPO(beta=0.1), 0.5), "sums tokens by itself"),
        (lambda: LD("dpo", 0.5), "must be a loss"),
        (lambda: SamPO(DPO(beta=0.1), -1), "`seed` must be"),
        (lambda: SamPO(SimPO(beta=2.0, gamma=0.5), 0), "sums over tokens"),
        (lambda: WPO(DrDPO(beta=0.1)), "couples the pairs"),
        (lambda: WPO(SFT(reduction="token_mean")), "couples the pairs"),
        (lambda: TDPO(beta=0.1, alpha=-1), "`alpha` must be"),
        (lambda: TokenLogps(torch.zeros(3, 2), torch.zeros(3, 2)), "2 pairs"),
        (lambda: TokenLogps(torch.zeros(2, 2), torch.zeros(2, 1)), "`mask` must have the shape"),
        (lambda: LD(DPO(beta=0.1), 0.5)(pairs_without_reference()), "the reference's log-probability of every token"),
        (lambda: WPO(DPO(beta=0.1))(pairs_without_reference()), "`log_sum_sq_probs`"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(PrefalignError, match=message):
        make()


def pairs_without_reference() -> PairLogps:
    return PairLogps(*torch.zeros(4, 1), single=TokenLogps(torch.zeros(2, 3), torch.ones(2, 3)))


@pytest.mark.parametrize("loss", [case[0] for case in CASES] + [SamPO(DPO(beta=0.5), 3)], ids=title)
def test_it_prints_what_it_does(loss: Loss):
    assert "tokens" in str(loss)
