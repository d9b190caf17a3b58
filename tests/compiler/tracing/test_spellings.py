"""Code as strangers write it: one loss in many spellings comes out as one structure."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import sympy as sp
import torch
import torch.nn.functional as F
from torch import Tensor

from prefalign import derive
from prefalign.logic import catalogue, same_ratio

# --- CPO's core, log w - log l, through the logistic function ---


def softplus(chosen_logps, rejected_logps, beta=0.1):
    return F.softplus(-beta * (chosen_logps - rejected_logps)).mean()


def by_hand(logp_w: Tensor, logp_l: Tensor, beta: float = 0.1) -> Tensor:
    return -torch.log(1 / (1 + torch.exp(-beta * (logp_w - logp_l))))


def log_softmax_of_the_pair(chosen_logps, rejected_logps, beta=0.1):
    return -F.log_softmax(beta * torch.stack([chosen_logps, rejected_logps], dim=-1), dim=-1)[..., 0]


def cross_entropy(chosen_logps, rejected_logps, beta=0.1):
    logits = torch.stack([beta * chosen_logps, beta * rejected_logps], dim=1)
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))


def log_of_sigmoid(pi_w, pi_l, beta=0.1):
    return -torch.log(torch.sigmoid(beta * (pi_w - pi_l)) + 1e-10)


def binary_cross_entropy(chosen_logps, rejected_logps, beta=0.1):
    margin = beta * (chosen_logps - rejected_logps)
    return F.binary_cross_entropy_with_logits(margin, torch.ones_like(margin))


def logsumexp(chosen_logps, rejected_logps, beta=0.1):
    both = torch.stack([beta * chosen_logps, beta * rejected_logps])
    return (torch.logsumexp(both, dim=0) - both[0]).mean()


def chunked(policy_logps, beta=0.1):
    chosen, rejected = policy_logps.chunk(2)
    losses = -F.logsigmoid(beta * (chosen - rejected))
    return losses, chosen.detach(), rejected.detach()


def in_place(chosen_logps, rejected_logps, beta=0.1):
    margin = chosen_logps - rejected_logps
    margin *= beta
    loss = 0.0
    loss += F.softplus(-margin).mean()
    return {"loss": loss, "margin": margin.detach().mean().item()}


def dictionary(batch, beta=0.1):
    return -F.logsigmoid(beta * (batch["policy_chosen_logps"] - batch["policy_rejected_logps"]))


def stable_by_max(chosen_logps, rejected_logps, beta=0.1):
    a, b = beta * chosen_logps, beta * rejected_logps
    top = torch.maximum(a, b)
    return top + torch.log(torch.exp(a - top) + torch.exp(b - top)) - a


class Callable:
    beta = 0.1

    def __call__(self, chosen_logps, rejected_logps):
        return -F.logsigmoid(self.beta * (chosen_logps - rejected_logps))


@dataclass
class Outputs:
    chosen_logps: Tensor
    rejected_logps: Tensor


def of_a_dataclass(outputs: Outputs, beta: float = 0.1) -> Tensor:
    return -F.logsigmoid(beta * (outputs.chosen_logps - outputs.rejected_logps))


CPO = [
    *(softplus, by_hand, log_softmax_of_the_pair, cross_entropy, log_of_sigmoid, binary_cross_entropy, logsumexp),
    *(chunked, in_place, dictionary, stable_by_max, Callable(), of_a_dataclass),
]


@pytest.mark.parametrize("function", CPO, ids=lambda f: getattr(f, "__name__", "Callable"))
def test_every_spelling_of_the_logistic_pair_loss_is_cpo(function):
    (rule,) = derive(function).rules
    assert rule.structure == catalogue["cpo"].structure
    rho, beta = sp.symbols("rho beta")
    at = rule.link.expression.subs({beta: 0.1}).subs({rho: 7.0})
    # -log sigmoid(0.1 * 7), worked out: log(1 + e^-0.7)
    assert float(at * sp.sympify(rule.weight, strict=True).subs(beta, 0.1)) == pytest.approx(0.403186, abs=1e-5)
    assert rule.link.direction == "decreasing"


# --- ORPO's odds, log of w(1-l)/(l(1-w)) ---


def odds_by_log1p(logp_w, logp_l):
    odds = (logp_w - logp_l) - (torch.log1p(-torch.exp(logp_w)) - torch.log1p(-torch.exp(logp_l)))
    return -F.logsigmoid(odds)


def odds_by_logit(chosen_logps, rejected_logps):
    return -F.logsigmoid(torch.logit(chosen_logps.exp()) - torch.logit(rejected_logps.exp()))


def odds_with_guards(chosen_logps, rejected_logps):
    w = chosen_logps.exp().clamp(1e-8, 1 - 1e-8)
    lost = rejected_logps.exp().clamp(1e-8, 1 - 1e-8)
    return -torch.log(torch.sigmoid(torch.log(w / (1 - w)) - torch.log(lost / (1 - lost))))


def odds_branch_by_branch(chosen_logps, rejected_logps):
    def complement(x):
        return torch.where(x < -0.6931, torch.log1p(-torch.exp(x)), torch.log(-torch.expm1(x)))

    return F.softplus(complement(chosen_logps) - chosen_logps + rejected_logps - complement(rejected_logps))


def odds_as_one_fraction(chosen_logps, rejected_logps):
    w, lost = chosen_logps.exp(), rejected_logps.exp()
    return torch.log(1 + lost * (1 - w) / (w * (1 - lost)))


@pytest.mark.parametrize(
    "function", [odds_by_log1p, odds_by_logit, odds_with_guards, odds_branch_by_branch, odds_as_one_fraction]
)
def test_every_spelling_of_the_odds_loss_is_orpo(function):
    (rule,) = derive(function).rules
    assert rule.structure.rows == "ovxo"
    assert rule.link.name == "logistic"


# --- other links and shapes ---


def clamp_for_relu(chosen_logps, rejected_logps, beta=0.1):
    return torch.clamp(1 - beta * (chosen_logps - rejected_logps), min=0)


def ranking(chosen_logps, rejected_logps, margin=0.5):
    return F.margin_ranking_loss(chosen_logps, rejected_logps, torch.ones(len(chosen_logps)), margin=margin)


def maximum_of_zero(chosen_logps, rejected_logps, beta=0.1):
    gap = 1 - beta * (chosen_logps - rejected_logps)
    return torch.where(gap > 0, gap, torch.zeros_like(gap))


@pytest.mark.parametrize("function", [clamp_for_relu, ranking, maximum_of_zero])
def test_spellings_of_the_hinge_are_one_rule_with_a_max(function):
    (rule,) = derive(function).rules
    assert rule.structure.rows == "bvxo"
    assert rule.link.expression.has(sp.Max)


def unlikelihood(chosen_logps, rejected_logps):
    return -chosen_logps - torch.log(1 - rejected_logps.exp())


def test_minus_log_of_a_product_is_the_semantic_loss_of_the_conjunction():
    # -log w(1-l) is -log sigma(log w(1-l)/(1 - w(1-l))): CEUnl.
    (rule,) = derive(unlikelihood).rules
    assert rule.structure.rows == "xvxx"


def length_normalised(chosen_logps, rejected_logps, chosen_len, rejected_len, beta=2.0, gamma=0.5):
    return -F.logsigmoid(beta * (chosen_logps / chosen_len - rejected_logps / rejected_len) - gamma).mean()


def test_length_normalisation_is_noticed_and_the_margin_kept():
    reading = derive(length_normalised)
    w, n = (next(s for s in reading.meanings[0]["w"].free_symbols if s.name == name) for name in ("W", "n_w"))
    assert reading.meanings[0]["w"] == w / n
    rho, beta, gamma = sp.symbols("rho beta gamma")
    assert reading.rules[0].link.expression == sp.log(1 + sp.exp(gamma - beta * rho))
    assert reading.hyperparameters == {"beta": 2.0, "gamma": 0.5}
    assert reading.batch == ("mean",)


def weighted_by_confidence(chosen_logps, rejected_logps, beta=0.1):
    with torch.no_grad():
        weight = torch.sigmoid(chosen_logps - rejected_logps)
    return -weight * F.logsigmoid(beta * (chosen_logps - rejected_logps))


def test_a_detached_factor_is_a_weight_and_is_said():
    reading = derive(weighted_by_confidence)
    assert {s.name for s in reading.rules[0].weight.free_symbols} == {"W°", "L°"}
    assert any("detached" in note for note in reading.notes)


def only_when_behind(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1):
    gap = (chosen_logps - ref_chosen_logps) - (rejected_logps - ref_rejected_logps)
    return torch.where(chosen_logps < ref_chosen_logps, -chosen_logps, -F.logsigmoid(beta * gap))


def test_a_branch_on_other_quantities_makes_guarded_rules():
    rules = derive(only_when_behind).rules
    w, rw = sp.symbols("w rw")
    found = {rule.guard: rule.structure for rule in rules}
    assert found[sp.Lt(w, rw)] == catalogue["ce"].structure
    assert found[sp.Ge(w, rw)] == catalogue["dpo"].structure


def python_if(chosen_logps, rejected_logps, beta=0.1):
    if (chosen_logps > rejected_logps).all():
        return -F.logsigmoid(beta * (chosen_logps - rejected_logps)).sum()
    return (rejected_logps - chosen_logps).sum()


def test_an_if_over_a_batch_is_followed_both_ways_and_then_refused_as_coupling():
    with pytest.raises(ValueError, match="couples the pairs"):
        derive(python_if)


def scalar_if(chosen_logps, rejected_logps, beta=0.1):
    gap = chosen_logps - rejected_logps
    if gap > 0:
        return -F.logsigmoid(beta * gap)
    return -beta * gap + 1.0


def test_an_if_that_takes_one_pair_at_a_time_is_one_link_in_two_pieces():
    (rule,) = derive(scalar_if).rules
    assert rule.structure.rows == "bvxo"
    assert rule.link.expression.has(sp.Piecewise)


def test_a_stub_for_self_gives_its_numbers_as_hyperparameters():
    class Trainer:
        def dpo_loss(self, chosen_logps, rejected_logps, reference_chosen_logps, reference_rejected_logps):
            gap = chosen_logps - rejected_logps - (reference_chosen_logps - reference_rejected_logps)
            if self.args.kind == "sigmoid":
                return -F.logsigmoid(self.args.beta * gap)
            raise AssertionError

    stub = SimpleNamespace(args=SimpleNamespace(beta=0.3, kind="sigmoid"))
    reading = derive(Trainer.dpo_loss, self=stub)
    assert same_ratio(reading.structure, catalogue["dpo"].structure)
    assert reading.hyperparameters == {"beta": 0.3}


def switched(chosen_logps, rejected_logps, beta=0.1, smoothing=0.0):
    gap = beta * (chosen_logps - rejected_logps)
    return -(1 - smoothing) * F.logsigmoid(gap) - smoothing * F.logsigmoid(-gap)


def test_a_hyperparameter_at_zero_is_a_feature_that_is_off():
    assert derive(switched).rules[0].link.name == "logistic"
    link = derive(switched, smoothing=0.2).rules[0].link
    assert (link.name, link.direction) == ("smoothed" if link.name == "smoothed" else link.name, "turning")


def depends_on_a_value(chosen_logps, rejected_logps, beta=0.1, power=1.0):
    gap = beta * (chosen_logps - rejected_logps)
    return F.softplus(-gap) if abs(power - 1.0) < 1e-6 else torch.exp(-power * gap)


def test_a_form_that_hangs_on_a_value_is_read_at_that_value():
    reading = derive(depends_on_a_value)
    assert reading.rules[0].link.name == "logistic"
    assert reading.hyperparameters == {"beta": 0.1}


def test_equations_names_and_structures_are_forwarded():
    assert derive("w*(1-l)/(l*(1-w))").rows == "ovxo"
    assert derive("cpo").rows == "bvxo"
    w, lost = sp.symbols("w l")
    assert derive(w / lost).rows == "bvxo"
    assert derive(catalogue["cpo"].structure) is catalogue["cpo"].structure


def floor_of_two_tokens(chosen_logps, rejected_logps, chosen_len, rejected_len):
    return F.softplus(rejected_logps / rejected_len.clamp(min=2) - chosen_logps / chosen_len.clamp(min=2))


def test_a_floor_of_two_tokens_is_more_than_a_guard():
    (meaning,) = derive(floor_of_two_tokens).meanings
    (tokens,) = (symbol for symbol in meaning["w"].free_symbols if symbol.name == "n_w")
    halves = [meaning["w"].subs(tokens, count) for count in (1, 2, 4)]
    assert [str(half) for half in halves] == ["W/2", "W/2", "W/4"]


# Words of torch with an option each, on the gap log w - log l; what they are worth, torch itself says.
WORDS = {
    "softplus": lambda gap: F.softplus(-gap, beta=2.0),
    "sub": lambda gap: F.softplus(-torch.sub(gap, gap, alpha=0.5)),
    "rsub": lambda gap: F.softplus(torch.rsub(gap, 1.0)),
    "lerp": lambda gap: torch.lerp(F.softplus(-gap), gap**2, 0.25),
    "minimum": lambda gap: -torch.minimum(gap, torch.full_like(gap, 0.5)),
    "clamp": lambda gap: F.softplus(-gap.clamp(-1, 2)),
    "leaky_relu": lambda gap: F.leaky_relu(-gap, 0.2),
    "elu": lambda gap: F.elu(-gap, alpha=0.5),
    "huber_loss": lambda gap: F.huber_loss(gap, torch.ones_like(gap), reduction="none", delta=0.5),
    "smooth_l1_loss": lambda gap: F.smooth_l1_loss(gap, torch.ones_like(gap), reduction="none", beta=0.5),
    "l1_loss": lambda gap: F.l1_loss(gap, torch.ones_like(gap), reduction="none"),
    "mse_loss": lambda gap: F.mse_loss(gap, torch.ones_like(gap), reduction="none"),
    "margin_ranking_loss": lambda gap: F.margin_ranking_loss(
        gap, torch.zeros_like(gap), torch.ones_like(gap), margin=0.5, reduction="none"
    ),
    "soft_margin_loss": lambda gap: F.soft_margin_loss(gap, torch.ones_like(gap), reduction="none"),
    "binary_cross_entropy_with_logits": lambda gap: F.binary_cross_entropy_with_logits(
        gap, torch.full_like(gap, 0.8), torch.full_like(gap, 0.5), reduction="none"
    ),
    "cross_entropy": lambda gap: F.cross_entropy(
        torch.stack([gap, torch.zeros_like(gap)], 1),
        torch.zeros(len(gap), dtype=torch.long),
        reduction="none",
        label_smoothing=0.2,
    ),
}


@pytest.mark.parametrize("word", WORDS)
def test_a_word_of_torch_is_worth_what_torch_says(word):
    found = derive(lambda chosen_logps, rejected_logps: WORDS[word](chosen_logps - rejected_logps))
    assert {rule.structure.rows for rule in found.rules} == {"bvxo"}
    for gap in (-2.5, 0.25, 0.75, 3.0):
        ours = sum(float(rule.weight * rule.link.expression.subs("rho", gap)) for rule in found.rules)
        assert ours == pytest.approx(WORDS[word](torch.tensor([gap], dtype=torch.float64)).item(), rel=1e-9)


def huber(chosen_logps, rejected_logps):
    return F.huber_loss(chosen_logps - rejected_logps, torch.ones(len(chosen_logps)), delta=0.5)


def focal(chosen_logps, rejected_logps, beta=0.1, gamma=2.0):
    p = torch.sigmoid(beta * (chosen_logps - rejected_logps))
    return -((1 - p) ** gamma) * torch.log(p)


def far_is_linear(chosen_logps, rejected_logps):
    gap = chosen_logps - rejected_logps
    return torch.where(gap.abs() > 1, 2 - gap, gap**2).sum()


def pair_by_pair(chosen_logps, rejected_logps):
    return sum(F.softplus(r - c) for c, r in zip(chosen_logps, rejected_logps, strict=True)) / len(chosen_logps)


def adaptive_beta(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, alpha=0.5):
    gap = (chosen_logps - ref_chosen_logps) - (rejected_logps - ref_rejected_logps)
    return -F.logsigmoid((beta * (1 + alpha * (gap.detach() - 1))).clamp(min=1e-3) * gap)


@pytest.mark.parametrize(
    ("function", "rows", "direction"),
    [
        (huber, "bvxo", "turning"),
        (focal, "bvxo", "decreasing"),
        (far_is_linear, "bvxo", "turning"),
        (pair_by_pair, "bvxo", "decreasing"),
        (adaptive_beta, catalogue["dpo"].structure.rows, "decreasing"),
    ],
)
def test_other_links_keep_the_structure(function, rows, direction):
    (rule,) = derive(function).rules
    assert (rule.structure.rows, rule.link.direction) == (rows, direction)


def kl_of_the_batch(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1):
    kl = (rejected_logps - ref_rejected_logps).mean().clamp(min=0).detach()
    chosen = 1 - torch.sigmoid(beta * (chosen_logps - ref_chosen_logps - kl))
    return torch.cat([chosen, 1 - torch.sigmoid(beta * (kl - rejected_logps + ref_rejected_logps))])


def test_a_statistic_of_the_batch_couples_its_pairs():
    with pytest.raises(ValueError, match="couples the pairs"):
        derive(kl_of_the_batch)


def untyped(anything: Any) -> Any:
    return -F.logsigmoid(anything.chosen_logps - anything.rejected_logps)


def test_a_single_unknown_argument_is_taken_for_the_batch():
    assert derive(untyped).structure.rows == "bvxo"
