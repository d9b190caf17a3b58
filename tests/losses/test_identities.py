"""What the papers state about their losses, as identities."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from scipy.optimize import brentq
from torch.nn.functional import logsigmoid

from prefalign.losses import (
    AOT,
    BCO,
    CPO,
    DPO,
    DPOP,
    IPO,
    NCA,
    RPO,
    SFT,
    DiscoPOP,
    DrDPO,
    HolderDPO,
    OddsRatio,
    PairLogps,
    Robust,
    SePPO,
    SimPO,
    Smoothed,
    conservative_dpo,
    robust_dpo,
)

from .samples import SWAPPABLE, pairs_of, random_pairs, title

RATES = [0.0, 0.1, 0.3, 0.49]
MARGINS = torch.tensor([-60.0, -3.0, -0.1, 0.0, 0.5, 7.0, 80.0], dtype=torch.float64)


def slope(loss, margins: torch.Tensor) -> torch.Tensor:
    """d loss / d D, moving the chosen log-probability."""
    pairs = pairs_of(margins)
    chosen = pairs.chosen.clone().requires_grad_()
    value = loss(dataclasses.replace(pairs, chosen=chosen)).sum()
    return torch.autograd.grad(value, chosen)[0]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("loss", SWAPPABLE, ids=title)
def test_robust_is_unbiased(loss, rate):
    pairs = random_pairs(1)
    robust = Robust(loss, flip_rate=rate)
    expected = (1 - rate) * robust(pairs) + rate * robust(pairs.swapped())
    torch.testing.assert_close(expected, loss(pairs), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rate", RATES)
def test_robust_dpo_is_dpo_minus_a_linear_term(rate):
    beta, pairs = 0.2, pairs_of(MARGINS)
    expected = -logsigmoid(beta * MARGINS) - rate / (1 - 2 * rate) * beta * MARGINS
    torch.testing.assert_close(robust_dpo(beta, rate)(pairs), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rate", RATES)
def test_conservative_dpo_is_dpo_plus_a_linear_term(rate):
    beta, pairs = 0.2, pairs_of(MARGINS)
    expected = -logsigmoid(beta * MARGINS) + rate * beta * MARGINS
    torch.testing.assert_close(conservative_dpo(beta, rate)(pairs), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rate", RATES)
def test_gradient_weights_of_robust_and_conservative_dpo(rate):
    beta = 0.2
    pull = torch.sigmoid(-beta * MARGINS)
    torch.testing.assert_close(slope(robust_dpo(beta, rate), MARGINS), -beta * (pull + rate / (1 - 2 * rate)))
    torch.testing.assert_close(slope(conservative_dpo(beta, rate), MARGINS), -beta * (pull - rate))


@pytest.mark.parametrize("loss", SWAPPABLE, ids=title)
def test_at_flip_rate_zero_the_wrappers_change_nothing(loss):
    pairs = random_pairs(2, dtype=torch.float32)
    assert torch.equal(Robust(loss, flip_rate=0.0)(pairs), loss(pairs))
    assert torch.equal(Smoothed(loss, flip_rate=0.0)(pairs), loss(pairs))


@pytest.mark.parametrize("rate", RATES)
def test_robust_ipo_has_a_shifted_target(rate):
    beta, pairs = 0.05, pairs_of(MARGINS)
    target = 1 / (2 * beta * (1 - 2 * rate))
    difference = Robust(IPO(beta, mean=False), rate)(pairs) - (MARGINS - target) ** 2
    torch.testing.assert_close(difference, difference[:1].expand_as(difference), rtol=1e-9, atol=1e-7)


def expected_loss(loss, preferred: float, margin: float) -> float:
    """The slope in the margin of the mean loss, where w wins with probability `preferred`."""
    margins = torch.tensor([margin], dtype=torch.float64)
    return float(preferred * slope(loss, margins) - (1 - preferred) * slope(loss, -margins))


@pytest.mark.parametrize(("make", "optimum"), [("robust", 2.197), ("dpo", 0.663), ("smoothed", 0.257)])
def test_optimal_margins_under_thirty_percent_flips(make, optimum):
    flip_rate, clean = 0.3, 0.9
    observed = (1 - flip_rate) * clean + flip_rate * (1 - clean)
    dpo = DPO(beta=1.0)
    loss = {"robust": Robust(dpo, flip_rate), "dpo": dpo, "smoothed": Smoothed(dpo, flip_rate)}[make]
    found = brentq(lambda margin: expected_loss(loss, observed, margin), -10, 10, xtol=1e-10)
    assert found == pytest.approx(optimum, abs=5e-4)


def test_rpo_without_regulariser_is_dpo_bit_for_bit():
    pairs = random_pairs(3, dtype=torch.float32)
    rpo = RPO(beta=0.1, eta=0.0, reduction="token_mean")
    assert torch.equal(rpo(pairs), DPO(beta=0.1)(pairs))
    assert not rpo.needs_lengths


@pytest.mark.parametrize("reduction", ["sum", "sequence_mean", "token_mean"])
def test_rpo_is_dpo_plus_eta_beta_times_the_likelihood(reduction):
    pairs = random_pairs(3)
    likelihood = {
        "sum": -pairs.chosen,
        "sequence_mean": -pairs.chosen / pairs.chosen_tokens,
        "token_mean": (-pairs.chosen.sum() / pairs.chosen_tokens.sum()).expand(6),
    }[reduction]
    difference = RPO(beta=0.2, eta=0.05, reduction=reduction)(pairs) - DPO(beta=0.2)(pairs)
    torch.testing.assert_close(difference, 0.2 * 0.05 * likelihood, rtol=1e-9, atol=1e-12)


def seppo_case(anchor: float, flipper: str) -> float:
    """The loss at beta = 0.5, log-ratio `anchor` of the winner and 4 of the reference's sample."""
    zero = torch.zeros(1, dtype=torch.float64)
    return float(SePPO(beta=0.5, flipper=flipper)(PairLogps(zero + anchor, zero + 4.0, zero, zero)))


@pytest.mark.parametrize(
    ("anchor", "flipper", "logit"),
    [
        (3.0, "sign", 1.5 - 2.0),
        (3.0, "indicator", 1.5 - 2.0),
        (3.0, "none", 1.5 - 2.0),
        (0.0, "sign", -2.0),
        (0.0, "indicator", -2.0),
        (-3.0, "sign", -1.5 + 2.0),
        (-3.0, "indicator", -1.5),
        (-3.0, "none", -1.5 - 2.0),
    ],
)
def test_seppo_on_both_sides_of_the_anchor(anchor, flipper, logit):
    assert seppo_case(anchor, flipper) == pytest.approx(math.log1p(math.exp(-logit)), rel=1e-12)


@pytest.mark.parametrize("flipper", ["sign", "indicator", "none"])
def test_seppo_equals_spin_bit_for_bit_where_the_anchor_is_not_negative(flipper):
    pairs = random_pairs(4, count=50, dtype=torch.float32)
    pairs = dataclasses.replace(pairs, ref_chosen=torch.minimum(pairs.ref_chosen, pairs.chosen))
    beta = 0.3
    spin = -logsigmoid(beta * ((pairs.chosen - pairs.ref_chosen) - (pairs.rejected - pairs.ref_rejected)))
    assert torch.equal(SePPO(beta, flipper)(pairs), spin)


def test_the_gate_of_seppo_is_one_at_the_first_step():
    logps = torch.tensor([-7.0, -3.0], dtype=torch.float64)
    chosen, rejected = logps.clone().requires_grad_(), logps.clone().requires_grad_()
    SePPO(beta=0.4)(PairLogps(chosen, rejected, logps, logps)).sum().backward()
    torch.testing.assert_close(chosen.grad, torch.full_like(logps, -0.2))
    torch.testing.assert_close(rejected.grad, torch.full_like(logps, 0.2))


@pytest.mark.parametrize(("flipper", "gate"), [("sign", -1.0), ("indicator", 0.0)])
def test_the_gradient_of_seppo_takes_the_gate_as_a_constant(flipper, gate):
    zero = torch.zeros(1, dtype=torch.float64)
    chosen, rejected = (zero - 3.0).requires_grad_(), (zero + 4.0).requires_grad_()
    SePPO(beta=0.5, flipper=flipper)(PairLogps(chosen, rejected, zero, zero)).sum().backward()
    pull = 0.5 * torch.sigmoid(-0.5 * (-3.0 - gate * 4.0 + zero))
    torch.testing.assert_close(chosen.grad, -pull)
    torch.testing.assert_close(rejected.grad, gate * pull + zero)


def test_ipo_is_zero_at_its_margin():
    loss = IPO(beta=0.05, mean=False)
    assert loss(pairs_of(torch.tensor([10.0, 12.0]))).tolist() == [0.0, 4.0]


def test_dpop_is_dpo_where_the_chosen_completion_gains():
    pairs = pairs_of(torch.tensor([0.0, 3.0]))
    assert torch.equal(DPOP(beta=0.2, penalty=50.0)(pairs), DPO(beta=0.2)(pairs))


def test_dr_dpo_tends_to_dpo_as_its_temperature_grows():
    pairs = pairs_of(MARGINS)
    mean = DPO(beta=0.1)(pairs).mean()
    torch.testing.assert_close(DrDPO(beta=0.1, beta_prime=1e6)(pairs).mean(), mean, rtol=1e-5, atol=0.0)


def test_dr_dpo_at_temperature_one_is_the_mean_probability():
    pairs = pairs_of(MARGINS)
    expected = -torch.log(torch.sigmoid(0.1 * MARGINS).mean())
    torch.testing.assert_close(DrDPO(beta=0.1)(pairs), expected.expand(7))


def test_dr_dpo_weighs_pairs_by_how_well_they_fit():
    weights = torch.softmax(logsigmoid(MARGINS) / 0.5, dim=0)
    expected = -weights * torch.sigmoid(-MARGINS)
    torch.testing.assert_close(slope(DrDPO(beta=1.0, beta_prime=0.5), MARGINS) / 7, expected)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_holder_dpo_has_no_slope_at_either_end(gamma):
    p = torch.sigmoid(MARGINS)
    expected = -gamma * (1 + gamma) * p**gamma * (1 - p) ** 2
    torch.testing.assert_close(slope(HolderDPO(beta=1.0, gamma=gamma), MARGINS), expected)


def test_cpo_is_dpo_under_a_uniform_reference_plus_the_likelihood():
    pairs = random_pairs(5)
    flat = dataclasses.replace(pairs, ref_chosen=torch.zeros(6).double(), ref_rejected=torch.zeros(6).double())
    expected = DPO(beta=0.2)(flat) - 0.3 * pairs.chosen
    torch.testing.assert_close(CPO(beta=0.2, alpha=0.3, reduction="sum")(pairs), expected)


def test_odds_ratio_on_probabilities_worked_by_hand():
    # odds 0.6/0.4 = 1.5 and 0.2/0.8 = 0.25: the ratio is 6, and -log sigmoid(log 6) = log(7/6).
    logps = torch.tensor([[0.6], [0.2]], dtype=torch.float64).log()
    assert float(OddsRatio(mean=False)(PairLogps(*logps))) == pytest.approx(math.log(7 / 6), rel=1e-12)


def test_odds_ratio_of_long_completions_is_simpo_without_margin():
    pairs = PairLogps(torch.tensor([-501.0]), torch.tensor([-500.0]))
    expected = SimPO(beta=1.0, gamma=0.0, mean=False)(pairs)
    torch.testing.assert_close(OddsRatio(mean=False)(pairs), expected, rtol=1e-6, atol=0.0)


def test_bco_shift_moves_both_rewards():
    zero = torch.zeros(1, dtype=torch.float64)
    # r_w = 2, r_l = -1, shift 0.5: -log sigmoid(1.5) - log sigmoid(1.5)
    value = BCO(beta=0.5, shift=0.5)(PairLogps(zero + 4.0, zero - 2.0, zero, zero))
    assert float(value) == pytest.approx(2 * math.log1p(math.exp(-1.5)), rel=1e-12)


def test_nca_holds_the_rewards_near_zero():
    # At r_w = r_l = 0 the slopes are -1/2 + 1/4 and +1/4.
    zero = torch.zeros(1, dtype=torch.float64)
    chosen, rejected = zero.clone().requires_grad_(), zero.clone().requires_grad_()
    NCA(beta=1.0)(PairLogps(chosen, rejected, zero, zero)).sum().backward()
    assert (chosen.grad.item(), rejected.grad.item()) == (-0.25, 0.25)


def test_discopop_is_exponential_far_right_and_logistic_far_left():
    values = DiscoPOP(beta=1.0)(pairs_of(torch.tensor([-30.0, 5.0], dtype=torch.float64)))
    torch.testing.assert_close(values, torch.tensor([30.0, math.exp(-5.0)], dtype=torch.float64), rtol=1e-9, atol=0.0)


def test_aot_compares_ranks_and_not_pairs():
    pairs = random_pairs(6)
    permuted = dataclasses.replace(pairs, ref_chosen=pairs.ref_chosen.flip(0), ref_rejected=pairs.ref_rejected.flip(0))
    assert torch.equal(AOT(beta=0.1)(pairs), AOT(beta=0.1)(permuted))


def test_sft_reductions_worked_by_hand():
    ones = torch.ones(2)
    pairs = PairLogps(torch.tensor([-6.0, -1.0]), ones, None, None, torch.tensor([3.0, 4.0]), ones)
    assert SFT(reduction="sum")(pairs).tolist() == [6.0, 1.0]
    assert SFT(reduction="sequence_mean")(pairs).tolist() == [2.0, 0.25]
    assert SFT(reduction="token_mean")(pairs).tolist() == [1.0, 1.0]
