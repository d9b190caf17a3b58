"""What has no reading is refused, and the reason is the right one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from prefalign import derive
from prefalign._errors import DerivationError
from prefalign.compiler import Tokens, derive_target, load_function
from prefalign.losses import AOT, DPO, DrDPO


def one_function_each(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps):
    return -F.logsigmoid((ref_chosen_logps - chosen_logps).exp() - (ref_rejected_logps - rejected_logps).sigmoid())


def square_of_a_probability(chosen_logps, rejected_logps):
    w, lost = chosen_logps.exp(), rejected_logps.exp()
    return -F.logsigmoid(torch.log(w**2 + w * lost + lost) - rejected_logps)


def token_clamp(batch: Tokens):
    chosen, rejected = (batch.log_probs.clamp(min=-5.0) * batch.mask).sum(1).chunk(2)
    return -F.logsigmoid(chosen - rejected)


def standardised(chosen_logps, rejected_logps):
    gap = chosen_logps - rejected_logps
    return F.softplus(-gap / gap.std())


def through_python(chosen_logps, rejected_logps):
    return F.softplus(-torch.tensor([float(c) for c in chosen_logps]) + rejected_logps)


def into_zeros(chosen_logps, rejected_logps):
    out = torch.zeros(len(chosen_logps))
    out[:] = F.softplus(rejected_logps - chosen_logps)
    return out


def constant(chosen_logps, rejected_logps):
    return torch.tensor(1.0)


def wrong_gradient(chosen_logps, rejected_logps):
    # The value of the logistic loss with half its gradient: a straight-through estimator.
    loss = F.softplus(rejected_logps - chosen_logps)
    return loss.detach() * 0.5 + loss * 0.5


def random_margin(chosen_logps, rejected_logps):
    return F.softplus(rejected_logps - chosen_logps + torch.rand(len(chosen_logps)))


def unknown_parameter(chosen_logps, rejected_logps, temperature_of_the_day):
    return F.softplus((rejected_logps - chosen_logps) / temperature_of_the_day)


def gamma_function(chosen_logps, rejected_logps):
    return torch.lgamma(chosen_logps - rejected_logps)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (one_function_each, "2 log ratios at once"),
        (square_of_a_probability, "w\\^2|w\\*\\*2|square|twice|multilinear"),
        (token_clamp, "spreads over its tokens"),
        (standardised, "spread of a batch"),
        (through_python, "turned into a Python number"),
        (into_zeros, "ordinary tensor"),
        (constant, "does not depend on the log-probabilities"),
        (random_margin, "other numbers each time"),
        (unknown_parameter, "temperature_of_the_day"),
        (gamma_function, "No symbolic reading of `torch.lgamma`"),
        (AOT(beta=0.1), "pairs of a batch"),
        (DrDPO(beta=0.1, beta_prime=1.0), "couples the pairs of a batch"),
        (DPO, "is a class"),
        (3, "must be an equation"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_loss_without_a_reading_is_refused_with_the_reason(function, reason):
    with pytest.raises(DerivationError, match=reason):
        derive(function)


def test_a_detached_half_is_no_mistake_of_the_reading():
    # loss = 0.5 * detached + 0.5 * live: the value is the loss, the gradient half of it.
    reading = derive(wrong_gradient)
    assert reading.rules[0].weight == pytest.approx(0.5)


def test_arguments_that_the_function_does_not_have_are_refused():
    with pytest.raises(DerivationError, match="`betta` was given"):
        derive(one_function_each, betta=0.1)
    with pytest.raises(DerivationError, match="takes none"):
        derive("w/l", beta=0.1)


def test_load_function_imports_a_file_and_names_what_is_missing(tmp_path):
    file = tmp_path / "strangers_losses.py"
    file.write_text(
        "import torch.nn.functional as F\n"
        "class Losses:\n"
        "    @staticmethod\n"
        "    def pair(chosen_logps, rejected_logps):\n"
        "        return F.softplus(rejected_logps - chosen_logps)\n"
    )
    assert derive(load_function(f"{file}:Losses.pair")).structure.rows == "bvxo"
    for target, reason in (
        (f"{file}:Losses.pear", "no `pear`.*`pair`"),
        (f"{file}", "path/to/file.py:name"),
        (f"{tmp_path}/absent.py:f", "no file"),
    ):
        with pytest.raises(DerivationError, match=reason):
            load_function(target)
    file.write_text("raise RuntimeError('boom')")
    with pytest.raises(DerivationError, match="boom"):
        load_function(f"{file}:anything")


METHODS = """
import torch.nn.functional as F

class Plain:
    beta = 0.3

    def pair(self, chosen_logps, rejected_logps):
        return F.softplus(-self.beta * (chosen_logps - rejected_logps))

    def scored(self, chosen_logps, rejected_logps, score):
        return score * F.softplus(rejected_logps - chosen_logps)

class Trainer:
    def __init__(self, beta):
        self.beta = beta

    def pair(self, chosen_logps, rejected_logps):
        return F.softplus(-self.beta * (chosen_logps - rejected_logps))

mine = Trainer(0.2)
"""


def test_on_the_command_line_a_method_is_read_on_an_instance(tmp_path):
    file = tmp_path / "strangers_methods.py"
    file.write_text(METHODS)
    assert derive_target(f"{file}:Plain.pair").rules[0].structure.rows == "bvxo"
    assert derive_target(f"{file}:mine.pair").rules[0].structure.rows == "bvxo"


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("Trainer.pair", r"`Trainer\(\)` cannot be made .* `mine = Trainer\(…\)`, and name `mine.pair`"),
        ("Plain.scored", "Give `score` a default in the file, or name a function there"),
    ],
)
def test_the_command_line_gives_a_remedy_that_it_can_follow(tmp_path, name, remedy):
    file = tmp_path / "strangers_methods.py"
    file.write_text(METHODS)
    with pytest.raises(DerivationError, match=remedy) as caught:
        derive_target(f"{file}:{name}")
    assert "derive(function" not in str(caught.value)
