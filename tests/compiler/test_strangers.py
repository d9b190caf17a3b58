"""Strangers' spellings are read right or refused; what a name or a number does not say is never assumed."""

# ruff: noqa: E741 - w and l are the two answers, as in the papers
from __future__ import annotations

import inspect
import time
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F

from prefalign import PrefalignError, derive
from tests.compiler.oracle import agrees


def dpo_like(margin):
    return -F.logsigmoid(0.1 * margin)


@pytest.mark.parametrize(
    "name",
    [
        *("other_logps", "logp_p", "logp_r", "chosen_logp_delta", "delta_logp_w", "logp_gain", "chosen_logp_var"),
        *("inv_chosen_logps", "tok_logps", "chosen_logps_normed", "logp_minus_ref", "foo_logps", "rejct_logps"),
    ],
)
@pytest.mark.parametrize("way", ["parameter", "entry", "field"])
def test_a_half_known_name_is_asked_for(name, way):
    if way == "parameter":

        def function(**logps):
            return dpo_like(logps["chosen_logps"] - logps["rejected_logps"] + logps[name])

        one = inspect.Parameter.POSITIONAL_OR_KEYWORD
        names = ("chosen_logps", "rejected_logps", name)
        function.__signature__ = inspect.Signature([inspect.Parameter(each, one) for each in names])
    else:

        def function(batch):
            other = batch[name] if way == "entry" else getattr(batch, name)
            return dpo_like(other - batch["rejected_logps"])

    with pytest.raises(PrefalignError, match=rf'derive\(function, roles={{"{name}": "r?[wl]"}}\)'):
        derive(function)


def test_what_a_name_means_can_be_said():
    def loss(chosen_logps, other_logps, beta=0.1):
        return -F.logsigmoid(beta * (chosen_logps - other_logps)).mean()

    found = derive(loss, roles={"other_logps": "l"})
    assert found.structure.rows == "bvxo"
    assert agrees(found, lambda w, l, rw, rl, n_w, n_l: loss(w, l))
    swapped = derive(loss, roles={"other_logps": "rw"})
    assert agrees(swapped, lambda w, l, rw, rl, n_w, n_l: loss(w, rw))
    with pytest.raises(PrefalignError, match="role of `other_logps` must be one of w, l, rw, rl"):
        derive(loss, roles={"other_logps": "rejected"})


def by_excess(w, l, n_w, n_l, alpha=0.01):
    return dpo_like(w - l) + alpha * F.relu(n_w - n_l)


def by_distance(w, l, n_w, n_l, alpha=0.01):
    return -F.logsigmoid(0.1 * (w - l) - alpha * (n_w - n_l).abs())


def by_the_shorter(w, l, n_w, n_l):
    return -F.logsigmoid((w - l) / torch.minimum(n_w, n_l))


def by_equality(w, l, n_w, n_l):
    return torch.where(n_w == n_l, 0.5, 1.0).double() * dpo_like(w - l)


def by_difference(w, l, n_w, n_l, alpha=0.01):
    return -F.logsigmoid(0.1 * (w - l) - alpha * (n_w - n_l))


@pytest.mark.parametrize("function", [by_excess, by_distance, by_the_shorter, by_equality, by_difference])
def test_lengths_are_read_whichever_answer_is_the_longer(function):
    def named(chosen_logps, rejected_logps, chosen_len, rejected_len):
        return function(chosen_logps, rejected_logps, chosen_len, rejected_len)

    assert agrees(derive(named), lambda w, l, rw, rl, n_w, n_l: function(w, l, n_w, n_l))


class Output(NamedTuple):
    margin: torch.Tensor
    loss: torch.Tensor


def test_the_entry_that_is_called_the_loss_is_read():
    def entries(chosen_logps, rejected_logps):
        margin = chosen_logps - rejected_logps
        return {"margin": margin.mean(), "dpo_loss": dpo_like(margin).mean()}

    def fields(chosen_logps, rejected_logps):
        margin = chosen_logps - rejected_logps
        return Output(margin.mean(), dpo_like(margin).mean())

    for function in (entries, fields):
        assert agrees(derive(function), lambda w, l, *_: dpo_like(w - l))


@pytest.mark.parametrize(
    "names", [("margin", "objective"), ("dpo_loss", "sft_loss"), ("a", "b")], ids=["no loss", "two losses", "letters"]
)
def test_a_result_whose_loss_is_not_certain_is_refused(names):
    def function(chosen_logps, rejected_logps):
        margin = chosen_logps - rejected_logps
        return dict(zip(names, (margin.mean(), dpo_like(margin).mean()), strict=True))

    with pytest.raises(PrefalignError, match="none is called `loss`"):
        derive(function)


def test_a_loss_of_the_reference_alone_is_refused():
    def function(ref_chosen_logps, ref_rejected_logps):
        return dpo_like(ref_chosen_logps - ref_rejected_logps)

    with pytest.raises(PrefalignError, match="the reference's log-probabilities alone"):
        derive(function)


def test_a_factor_of_unknown_sign_leaves_the_order_unknown():
    def function(chosen_logps, rejected_logps):
        margin = chosen_logps - rejected_logps
        return (margin.detach() * -F.logsigmoid(margin)).mean()

    (rule,) = derive(function).rules
    assert (rule.link.direction, rule.orders) == ("unknown", False)


def test_a_negative_hyperparameter_weighs_by_what_it_is():
    def function(chosen_logps, rejected_logps, adv=-0.5):
        return (-adv * F.logsigmoid(0.1 * (chosen_logps - rejected_logps))).mean()

    found = derive(function)
    (rule,) = found.rules  # 0.5 * logsigmoid(0.1 d) rises in d: it falls in the ratio l / w
    assert (str(rule.structure.ratio), rule.orders) == ("l/w", True)
    assert agrees(found, lambda w, l, *_: function(w, l))


def test_a_penalty_that_turns_is_one_rule_that_turns():
    def penalty(d):
        return d.exp() - 1 - d

    def function(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps):
        held = penalty(ref_chosen_logps - chosen_logps) + penalty(ref_rejected_logps - rejected_logps)
        return (dpo_like(chosen_logps - rejected_logps) + 0.1 * held).mean()

    found = derive(function)
    assert sorted(rule.link.direction for rule in found.rules) == ["decreasing", "turning", "turning"]
    near = ((-3.0, -4.0, -3.5, -3.8, 5, 5), (-60.0, -66.0, -61.0, -65.0, 30, 8))
    assert agrees(found, lambda w, l, rw, rl, *_: function(w, l, rw, rl), near)


def gated(w, l, rw, rl):
    return torch.where(rw > rl, dpo_like(w - l - rw + rl), 0)


def masked(w, l, rw, rl):
    return dpo_like(w - l - rw + rl).masked_fill(rl - rw > 0.5, 0.0)


@pytest.mark.parametrize("function", [gated, masked])
def test_where_a_loss_is_zero_there_is_no_rule(function):
    def named(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps):
        return function(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps)

    found = derive(named)
    assert [rule.guard is not None for rule in found.rules] == [True]
    assert agrees(found, lambda w, l, rw, rl, *_: function(w, l, rw, rl))


def test_numbers_for_a_log_do_not_hinder_a_reading():
    def function(chosen_logps, rejected_logps):
        margin = chosen_logps - rejected_logps
        log = {"mean": float(margin.mean()), "std": margin.std(), "all": margin.detach().cpu().numpy()}
        return dpo_like(margin).mean(), log

    assert agrees(derive(function), lambda w, l, *_: dpo_like(w - l))


@pytest.mark.parametrize(
    ("use", "said"),
    [
        (lambda d: dpo_like(d) * float(d.mean()), "Python number"),
        (lambda d: dpo_like(d) if float(d.mean()) > -3 else 2 * dpo_like(d), "Python number"),
        (lambda d: dpo_like(d) + float(d.detach().numpy().mean()), "Python number"),
        (lambda d: dpo_like(d / (d.std() + 1)), "spread of a batch"),
        (lambda d: dpo_like(d) if d.std() > 1 else 2 * dpo_like(d), "spread of a batch"),
    ],
)
def test_numbers_that_the_loss_hangs_on_are_refused(use, said):
    def function(chosen_logps, rejected_logps):
        return use(chosen_logps - rejected_logps).mean()

    with pytest.raises(PrefalignError, match=said):
        derive(function)


class LogSigmoid(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return F.logsigmoid(x)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * torch.sigmoid(-x)


class Wrong(LogSigmoid):
    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


def test_a_custom_autograd_function_is_read_where_its_gradient_is_its_formulas():
    def function(chosen_logps, rejected_logps):
        return -LogSigmoid.apply(0.1 * (chosen_logps - rejected_logps)).mean()

    def other(chosen_logps, rejected_logps):
        return -Wrong.apply(0.1 * (chosen_logps - rejected_logps)).mean()

    assert agrees(derive(function), lambda w, l, *_: dpo_like(w - l))
    with pytest.raises(PrefalignError, match="does not agree with the code"):
        derive(other)


class Keeps:
    def __init__(self):
        self.last, self.log = None, []

    def __call__(self, chosen_logps, rejected_logps):
        margin = chosen_logps - rejected_logps
        self.last = margin.detach()
        self.log.append(margin)
        return dpo_like(margin).mean()


def test_nothing_of_a_reading_is_left_in_the_callers_object():
    mine = Keeps()
    assert derive(mine).structure.rows == "bvxo"
    assert derive(mine.__call__).structure.rows == "bvxo"
    assert (mine.last, mine.log) == (None, [])


def test_a_hyperparameter_may_be_called_what_formulas_call_the_ratio():
    def function(chosen_logps, rejected_logps, rho=0.3):
        return -F.logsigmoid(rho * (chosen_logps - rejected_logps)).mean()

    found = derive(function)
    assert found.hyperparameters == {"rho_": 0.3}
    assert agrees(found, lambda w, l, *_: function(w, l))


def test_a_reading_that_takes_too_long_is_given_up():
    def function(chosen_logps, rejected_logps):
        time.sleep(5)
        return dpo_like(chosen_logps - rejected_logps)

    with pytest.raises(PrefalignError, match=r"within 0\.2 seconds"):
        derive(function, time_limit=0.2)
