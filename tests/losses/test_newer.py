"""The newer losses against independent forms in numpy (float64), worked from the papers' formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prefalign import PrefalignError
from prefalign.losses import (
    AOT,
    DPO,
    IPO,
    NCA,
    RDPO,
    AlphaPO,
    BetaDPO,
    CalDPO,
    ChiPO,
    DiscoPOP,
    FDivergence,
    FocalPO,
    PairLogps,
    SimPER,
    SquaredPO,
    from_trl,
    parse_loss,
    re_po,
)

from .samples import random_pairs, title
from .trl_oracle import random_tokens, trl_loss


def logistic(x):
    return np.log1p(np.exp(-x))


def ratios(p):
    return p.chosen - p.ref_chosen, p.rejected - p.ref_rejected


def f_dpo(beta, slope):
    """-log sigmoid(beta*(f'(u_w) - f'(u_l))) with f' given in u = pi/ref."""

    def value(p):
        w, l = (slope(np.exp(r)) for r in ratios(p))  # noqa: E741
        return logistic(beta * (w - l))

    return value


def chi_po(p):
    u_w, u_l = (np.exp(r) for r in ratios(p))
    return logistic(np.clip(0.2 * (u_w + np.log(u_w) - u_l - np.log(u_l)), -4.0, 4.0))


def alpha_po(p):
    w, l = np.exp(p.chosen / p.chosen_tokens), np.exp(p.rejected / p.rejected_tokens)  # noqa: E741
    return logistic(2.5 * (1 - w**-0.25) / 0.25 - 2.5 * (1 - l**-0.25) / 0.25 - 0.1)


def beta_dpo(p):
    r_w, r_l = ratios(p)
    return logistic(max(0.5 * (1 + 0.3 * (np.mean(r_w - r_l) - 0.2)), 1e-3) * (r_w - r_l))


def focal_po(p):
    r_w, r_l = ratios(p)
    sigma = 1 / (1 + np.exp(-0.3 * (r_w - r_l)))
    return -(sigma**0.7) * np.log(sigma)


CASES = [
    (FDivergence(DPO(beta=0.3), "forward_kl"), f_dpo(0.3, lambda u: 1 - 1 / u)),
    (FDivergence(DPO(beta=0.3), "js"), f_dpo(0.3, lambda u: np.log(2 * u / (1 + u)))),
    (FDivergence(DPO(beta=0.3), "alpha", alpha=0.4), f_dpo(0.3, lambda u: (1 - u**-0.4) / 0.4)),
    (SquaredPO(beta=0.3), f_dpo(0.3, lambda u: np.log(u) / u)),
    (ChiPO(beta=0.2, bound=2.0), chi_po),
    (AlphaPO(beta=2.5, gamma=0.1, alpha=0.25), alpha_po),
    (
        RDPO(beta=0.3, alpha=0.05),
        lambda p: logistic(0.3 * (ratios(p)[0] - ratios(p)[1]) + 0.05 * (p.chosen_tokens - p.rejected_tokens)),
    ),
    (FocalPO(beta=0.3, gamma=0.7), focal_po),
    (BetaDPO(beta=0.5, alpha=0.3, center=0.2), beta_dpo),
    (
        CalDPO(beta=0.25, weight=0.5),
        lambda p: logistic(ratios(p)[0] - ratios(p)[1]) + 0.5 * ((ratios(p)[0] - 2) ** 2 + (ratios(p)[1] + 2) ** 2),
    ),
    (re_po(0.4), lambda p: np.maximum(0, 0.4 - p.chosen / p.chosen_tokens + p.rejected / p.rejected_tokens)),
    (SimPER(), lambda p: np.exp(p.rejected / p.rejected_tokens) - np.exp(p.chosen / p.chosen_tokens)),
]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("loss", "oracle"), CASES, ids=title)
def test_a_loss_is_its_papers_formula(loss, oracle, seed):
    pairs = random_pairs(seed)
    # Log-ratios of a few nats, both signs, so that neither the caps nor an underflow plays a part.
    near = {n: getattr(pairs, n) / 10.0 for n in ("chosen", "rejected", "ref_chosen", "ref_rejected")}
    pairs = PairLogps(**near, chosen_tokens=pairs.chosen_tokens, rejected_tokens=pairs.rejected_tokens)
    numbers = type("Numbers", (), {n: getattr(pairs, n).numpy() for n in (*near, "chosen_tokens", "rejected_tokens")})
    np.testing.assert_allclose(loss(pairs).numpy(), oracle(numbers), rtol=1e-10)


@pytest.mark.parametrize(
    ("divergence", "trl"), [("forward_kl", "forward_kl"), ("js", "js_divergence"), ("alpha", "alpha_divergence")]
)
@pytest.mark.parametrize("loss_type", ["sigmoid", "sigmoid_norm", "hinge", "ipo", "robust", "exo_pair", "discopop"])
def test_the_divergences_are_trls(loss_type, divergence, trl):
    settings = {"robust": {"label_smoothing": 0.3}, "exo_pair": {"label_smoothing": 1e-3}}.get(loss_type, {})
    options = {"f_divergence_type": trl} | ({"f_alpha_divergence_coef": 0.7} if divergence == "alpha" else {})
    tokens = random_tokens(3, scale=1.0)
    loss = from_trl(loss_type, beta=0.3, **settings, **options)
    (inside,) = (part for part in [getattr(loss, "loss", loss)])
    assert FDivergence in (type(loss), type(inside))
    ours, theirs = loss.reduce(tokens.pairs()), trl_loss(tokens, [loss_type], beta=0.3, **settings, **options)
    gradients = [torch.autograd.grad(value, tokens.policy)[0] for value in (ours, theirs)]
    if loss_type in ("exo_pair", "discopop"):  # another order of operations than TRL's, as without a divergence
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)
    else:
        assert torch.equal(ours, theirs)
        assert torch.equal(*gradients)


def test_a_divergence_leaves_the_likelihood_term_as_trl_does():
    tokens = random_tokens(4)
    loss = from_trl(["sigmoid", "sft"], [1.0, 0.5], f_divergence_type="js_divergence")
    theirs = trl_loss(tokens, ["sigmoid", "sft"], [1.0, 0.5], f_divergence_type="js_divergence")
    assert torch.equal(loss.reduce(tokens.pairs()), theirs)


def test_the_alpha_divergence_at_one_is_the_reverse_kl_as_in_trl():
    options = {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 1.0}
    assert from_trl("sigmoid", **options) == DPO(beta=0.1)


def test_the_beta_of_a_batch_is_a_constant_for_the_gradient():
    pairs = random_pairs(2)
    chosen = (pairs.chosen / 10).requires_grad_()
    rest = {name: getattr(pairs, name) / 10 for name in ("rejected", "ref_chosen", "ref_rejected")}
    BetaDPO(beta=0.5, alpha=0.3)(PairLogps(chosen, **rest)).sum().backward()
    margin = (chosen.detach() - rest["ref_chosen"]) - (rest["rejected"] - rest["ref_rejected"])
    beta = 0.5 * (1 + 0.3 * margin.mean())
    assert beta > 0.1
    torch.testing.assert_close(chosen.grad, -beta * torch.sigmoid(-beta * margin))


def test_a_chosen_completion_at_e_times_the_reference_is_not_pulled_by_squared_po():
    chosen = torch.ones(1, dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(1, dtype=torch.float64)
    SquaredPO(beta=1.0)(PairLogps(chosen, zero, zero, zero)).backward()
    assert chosen.grad.item() == 0.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FDivergence(NCA(beta=0.1), "js"), "cannot wrap NCA"),
        (lambda: FDivergence(AOT(beta=0.1), "js"), "cannot wrap AOT"),
        (lambda: FDivergence("dpo", "js"), "must be a loss"),
        (lambda: FDivergence(DPO(beta=0.1), "jss"), "`divergence` must be one of"),
        (lambda: FDivergence(DPO(beta=0.1), "alpha", alpha=0.0), "reverse KL"),
        (lambda: FDivergence(DPO(beta=0.1), "js", alpha=0.3), "no effect"),
        (lambda: AlphaPO(beta=1.0, gamma=0.0, alpha=0.0), "simpo"),
        (lambda: ChiPO(beta=0.1, bound=0.0), "`bound` must be"),
        (lambda: FocalPO(beta=0.1, gamma=-1.0), "`gamma` must be"),
        (lambda: RDPO(beta=0.1, alpha=-1.0), "`alpha` must be"),
        (lambda: BetaDPO(beta=0.1, alpha=0.1, center=float("nan")), "`center` must be"),
        (lambda: CalDPO(beta=0.1, weight=0.0), "`weight` must be"),
        (lambda: parse_loss("robust(beta_dpo(0.1, 0.5), 0.2)"), "couples the pairs"),
        (lambda: from_trl("nca_pair", f_divergence_type="js_divergence"), "f_divergence_type"),
        (lambda: from_trl("sigmoid", f_divergence_type="js"), "`f_divergence_type` must be"),
        (lambda: from_trl("sigmoid", f_alpha_divergence_coef=0.7), "`f_alpha_divergence_coef` has no effect"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(PrefalignError, match=message):
        make()


def test_the_divergences_take_sums_and_wrappers():
    loss = FDivergence(DPO(beta=0.1) + 0.5 * IPO(beta=0.2) + DiscoPOP(beta=0.1), "js")
    assert parse_loss(loss.expression) == loss
    assert parse_loss("robust(f_dpo(0.1, js), 0.2)").loss == FDivergence(DPO(beta=0.1), "js")
