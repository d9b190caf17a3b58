"""Random names and spellings: whatever a loss's arguments are called, none is read as what its name does not say."""

from __future__ import annotations

import inspect
import os

import pytest
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefalign import PrefalignError, derive
from tests.compiler.oracle import differences

# What a person takes the words for; the reader's own lists are not asked.
SIDES = {
    "w": ("chosen", "win", "winner", "preferred", "positive", "better", "w", "yw", "accepted", "pos"),
    "l": ("rejected", "lose", "loser", "dispreferred", "negative", "worse", "l", "yl", "neg", "rej"),
    "?": ("other", "first", "second", "a", "b", "candidate", "sample", "best", "alt", "x", "one", "two"),
}
LOGPS = ("logps", "logp", "logprobs", "log_probs", "log_prob", "lps")
PLAIN = ("policy", "pi", "model", "theta", "answer", "response", "seq", "sum")
REFERENCE = ("ref", "reference", "sft")
MEANS = ("avg", "mean", "average")
# Beside "logps" each of these makes the number something else.
ODD = ("delta", "gain", "var", "std", "inv", "diff", "gap", "minus", "ratio", "change", "tok", "normed", "entropy")
ODD += ("kl", "score", "reward", "margin", "weight", "adv", "grad", "target", "scaled", "clipped", "mask", "prev")
STYLES = ("arguments", "batch", "attributes", "keywords")


@st.composite
def named(draw, side):
    """A name, and what it means to a person: a role, or "?"."""
    said = draw(st.sampled_from((side,) * 5 + ("?",)))
    words, meaning = [draw(st.sampled_from(SIDES[said])), draw(st.sampled_from(LOGPS))], said
    if draw(st.booleans()):
        words.append(draw(st.sampled_from(PLAIN)))
    extra = draw(st.integers(0, 9))
    if extra == 0:
        words.append(draw(st.sampled_from(ODD)))
        meaning = "?"
    elif extra == 1:
        words.append(draw(st.sampled_from(MEANS)))
        meaning = "?" if said == "?" else f"mean_{said}"
    elif extra <= 3 and len(words) == 2:
        words.append(draw(st.sampled_from(REFERENCE)))
        meaning = "?" if said == "?" else f"r{said}"
    words = draw(st.permutations(words))
    name = "_".join(words)
    return (
        ("".join(w.title() if i else w for i, w in enumerate(name.split("_"))), meaning)
        if draw(st.integers(0, 5)) == 0
        else (name, meaning)
    )


def written(names, style):
    """A loss of the two numbers in which they are not exchangeable, as code that calls them so."""

    def loss(a, b):
        return F.softplus(0.7 * b - a).mean()

    if style == "batch":
        return lambda batch: loss(batch[names[0]], batch[names[1]])
    if style == "attributes":
        return lambda batch: loss(getattr(batch, names[0]), getattr(batch, names[1]))

    def function(*values, **by_name):
        return loss(*(by_name[name] for name in names)) if by_name else loss(*values)

    kind = inspect.Parameter.KEYWORD_ONLY if style == "keywords" else inspect.Parameter.POSITIONAL_OR_KEYWORD
    function.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in names])
    return function


def meant(roles):
    """The same loss on the columns that a person would give it."""

    def call(w, l, rw, rl, n_w, n_l):  # noqa: E741
        columns = {"w": w, "l": l, "rw": rw, "rl": rl, "mean_w": w / n_w, "mean_l": l / n_l}
        return F.softplus(0.7 * columns[roles[1]] - columns[roles[0]]).mean()

    return call


def tried(first, second, style):
    names, roles = (first[0], second[0]), (first[1], second[1])
    if names[0] == names[1]:
        return False
    try:
        reading = derive(written(names, style))
    except PrefalignError:
        return False
    assert "?" not in roles, f"{names} do not say what they are, and were read as {reading}"
    assert differences(reading, meant(roles)) == [], (names, roles, str(reading))
    return True


SETTINGS = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=60, **SETTINGS)
@given(named("w"), named("l"), st.sampled_from(STYLES))
def test_no_name_is_read_as_what_it_does_not_say(first, second, style):
    tried(first, second, style)


@pytest.mark.slow
@settings(max_examples=int(os.environ.get("PREFALIGN_NAMES", "1000")), **SETTINGS)
@given(named("w"), named("l"), st.sampled_from(STYLES))
def test_no_name_in_many_is_read_as_what_it_does_not_say(first, second, style):
    tried(first, second, style)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("names", [("chosen_logps", "rejected_logps"), ("pi_logp_w", "pi_logp_l")])
def test_plain_names_are_read(names, style):
    assert tried((names[0], "w"), (names[1], "l"), style)
