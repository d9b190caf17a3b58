"""Rules written as losses: what was read from code is written, trains as the code does, and is read back."""

from __future__ import annotations

import pickle

import pytest
import sympy as sp
import torch

from prefalign import PrefalignError, derive, to_loss
from prefalign.compiler import RuleLoss, rule
from prefalign.logic import LINKS, Link, PreferenceStructure, Rule, RuleSet, TwoRatioRule, catalogue, named_inner
from prefalign.losses import DPO, PairLogps, parse_loss
from tests.compiler.oracle import tensors
from tests.compiler.strangers import STRANGERS

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
RHO, BETA = sp.Symbol("rho"), sp.Symbol("beta")
READABLE = [s for s in STRANGERS if not s.refused]
SAMPLED = [pytest.param(s, id=s.name, marks=[] if i % 9 == 0 else pytest.mark.slow) for i, s in enumerate(READABLE)]


def batch():
    w, lost, rw, rl, n_w, n_l = tensors()
    return PairLogps(w, lost, rw, rl, n_w, n_l), (w, lost, rw, rl, n_w, n_l)


@pytest.mark.parametrize("stranger", SAMPLED)
def test_what_was_read_is_written_trains_as_the_code_and_is_read_back(stranger):
    reading = derive(stranger.function, roles=dict(stranger.roles), **dict(stranger.given))
    loss = to_loss(reading)
    assert parse_loss(loss.expression) == loss
    again = derive(loss)
    assert again == reading
    assert again.meanings == reading.meanings
    assert again.constants == reading.constants
    pairs, columns = batch()
    theirs = stranger.call(*columns)
    theirs = theirs["loss"] if isinstance(theirs, dict) else theirs
    theirs = getattr(theirs, "loss", theirs[0]) if isinstance(theirs, tuple) else theirs
    ours = loss.reduce(pairs)
    theirs = theirs.double().mean()
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)
    for mine, other in zip(
        *(torch.autograd.grad(x, columns[:2], allow_unused=True) for x in (ours, theirs)), strict=True
    ):
        zero = torch.zeros(4, dtype=torch.float64)
        torch.testing.assert_close(*(zero if g is None else g for g in (mine, other)), rtol=1e-6, atol=1e-7)


def test_dpo_as_a_rule_is_dpo():
    pairs, _ = batch()
    made = to_loss(derive(DPO(beta=0.3)))
    torch.testing.assert_close(made(pairs), DPO(beta=0.3)(pairs), rtol=1e-12, atol=0)
    assert made.needs_reference
    assert not made.needs_lengths
    assert not made.couples_pairs
    assert pickle.loads(pickle.dumps(made)) == made  # noqa: S301 - our own


def test_a_guarded_bounded_loss_can_be_written_by_hand():
    # Push the chosen answer up always, the rejected one down only where it is likelier than to the reference.
    up = Rule(PreferenceStructure.from_formulas("M(w)"), LINKS["sigmoid"], sp.Rational(1, 2))
    down = Rule(PreferenceStructure.from_formulas("~M(l)"), LINKS["sigmoid"], guard=sp.Symbol("l") > sp.Symbol("rl"))
    loss = to_loss(RuleSet((up, down)), beta=2.0)
    w, lost = torch.tensor([-1.0, -1.0]).log_softmax(0), torch.tensor([-1.0, -1.0]).log_softmax(0)
    pairs = PairLogps(w, lost, torch.tensor([-5.0, -5.0]), torch.tensor([-0.1, -3.0]))
    # At one half the log odds are 0 and the logistic function 1/2; in the first pair l is below the reference's.
    torch.testing.assert_close(loss(pairs), torch.tensor([0.25, 0.75]))
    assert derive(loss).rules[1].guard is not None


def test_a_link_of_ones_own_is_a_formula_in_rho():
    tanh = to_loss("w/l", (-sp.tanh(BETA * RHO)).rewrite(sp.exp), beta=0.5, reference=False, mean=False)
    pairs, (w, lost, *_) = batch()
    torch.testing.assert_close(tanh(pairs), -torch.tanh(0.5 * (w - lost)))
    assert tanh.rule.link.direction == "decreasing"
    square = to_loss("w/l", Link((RHO - 3) ** 2, "turning"), reference=False, mean=False)
    torch.testing.assert_close(square(pairs), (w - lost - 3) ** 2)
    with_target = to_loss("w/l", (RHO - sp.Symbol("target")) ** 2, values={"target": 3.0}, reference=False, mean=False)
    torch.testing.assert_close(with_target(pairs), square(pairs))
    mean = to_loss("w/l", -RHO, reference=True, mean=True)
    _, (w, lost, rw, rl, n_w, n_l) = pairs, batch()[1]
    torch.testing.assert_close(mean(pairs), (rw - w) / n_w - (rl - lost) / n_l)


def test_rules_of_two_ratios_and_their_text():
    first, second = derive("w/rw"), derive("l/rl")
    made = TwoRatioRule(first, second, named_inner(RHO * sp.exp(-RHO), "turning"))
    loss = to_loss(RuleSet((made,)), beta=0.1)
    assert parse_loss(loss.expression) == loss
    pairs, (w, lost, rw, rl, *_) = batch()
    gap = (w - rw) * torch.exp(rw - w) - (lost - rl) * torch.exp(rl - lost)
    torch.testing.assert_close(loss(pairs), -torch.nn.functional.logsigmoid(0.1 * gap))


@pytest.mark.parametrize("name", ["rpo", "seppo", "nca", "bco", "dpop", "slic-hf", "kto"])
def test_the_rules_of_the_catalogue_are_losses(name):
    entry = catalogue[name]
    names = {
        s.name for r in entry.rules for part in (r.link.expression, r.weight) for s in getattr(part, "free_symbols", ())
    }
    loss = to_loss(entry.rules, values=dict.fromkeys(names - {"rho"}, 0.3))
    assert derive(loss) == entry.rules


def test_a_boolean_of_sympy_is_a_formula():
    w, lost = sp.symbols("w l")
    assert to_loss(lost >> w).structure.rows == to_loss("M(l) -> M(w)").structure.rows


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: to_loss(catalogue["rpo"].rules), "must give a number for `eta`"),
        (lambda: to_loss(derive(DPO(beta=0.1)), values={"tau": 1.0}), "which no link, weight or guard has"),
        (lambda: to_loss(derive(DPO(beta=0.1)), "hinge"), "bring their own"),
        (lambda: to_loss(derive(DPO(beta=0.1)), mean=True), "its atoms say what they are"),
        (lambda: to_loss("w/l", sp.Symbol("x")), "in rho"),
        (lambda: to_loss("w/l", values={"x": 1.0}), "for rules and for a link of your own"),
        (lambda: rule("M(w)", link="__import__('os').system('true')*rho"), "cannot stand in it"),
        (lambda: rule("M(w)", link="rho.__class__"), "cannot stand in it"),
        (lambda: rule("M(w)", link="rho*9**9**9**9"), "exponent of 64 at most"),
        (lambda: rule("M(w)", link="(" * 3000 + "rho" + ")" * 3000), "no formula|at most"),
        (lambda: rule("M(w)", link="lambda rho: rho"), "no formula|cannot stand"),
        (lambda: rule("M(w)", inner="exp(rho)"), "belong together"),
        (lambda: rule("M(w)", link="-rho", direction="decreasing!"), "must be 'unknown'"),
        (lambda: rule("M(w)", link="-rho", reduction="median"), "`reduction` must be"),
        (lambda: rule("M(w)", values="beta"), "name = formula"),
        (lambda: rule("M(w)", values="beta = high"), "a number for `beta`"),
        (lambda: rule("M(y1) & M(y2)", link="-rho"), "must be over w, l, rw, rl"),
    ],
)
def test_what_cannot_be_written_is_refused_with_the_reason(make, reason):
    with pytest.raises(PrefalignError, match=reason):
        make()


def test_a_sum_over_the_batch_couples_its_pairs():
    assert RuleLoss(Rule(derive("w/l"), Link(-RHO, "decreasing")), reduction="sum").couples_pairs
