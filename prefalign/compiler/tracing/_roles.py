"""Which quantity a parameter's name asks for; what it does not say is never guessed: a score is no log-probability."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Literal

Kind = Literal["logp", "mean", "prob", "ratio", "count", "index"]

_REFERENCE = {"ref", "reference", "old", "base", "sft"}
_CHOSEN = {"chosen", "w", "win", "winner", "winning", "pos", "positive", "preferred", "accepted", "better", "yw"}
_REJECTED = {"rejected", "l", "lose", "loser", "losing", "neg", "negative", "dispreferred", "worse", "yl", "reject"}
_COUNT = {"len", "lens", "length", "lengths", "tokens", "count", "counts", "ntokens", "n", "num"}
_LOGP = {"logp", "logps", "logprob", "logprobs", "lp", "lps"}
_PROB = {"prob", "probs", "probability", "probabilities"}
_MEAN = {"avg", "average", "averaged", "mean"}
_RATIO = {"logratio", "logratios"}  # `chosen_ratio` may be the ratio itself; `log_ratio` is joined below
_NORMALISED = {"normalised", "normalized", "norm", "per"}
_INDEX = {"idx", "idxs", "inds", "index", "indices"}
_POLICY = {"policy", "pi", "model", "actor"}
_NEUTRAL = {"log", "sum", "summed", "total", "all", "seq", "sequence", "answer", "answers", "response"}
_NEUTRAL |= {"responses", "completion", "completions", "y", "theta", "new", "current"}
# These say that it is something else, whatever stands beside them. Logits are no log-probabilities: of a reward model
# they are scores, of a language model they have an axis of words.
_OTHER = {"mask", "masks", "weight", "weights", "score", "scores", "reward", "rewards", "margin", "margins", "label"}
_OTHER |= {"labels", "id", "ids", "loss", "losses", "nll", "kl", "entropy", "advantage", "advantages", "penalty"}
_OTHER |= {"logit", "logits", "ratio", "ratios", "prompt", "prompts", "eos", "bos", "rate", "rank"}
_KNOWN = _REFERENCE | _CHOSEN | _REJECTED | _COUNT | _LOGP | _PROB | _MEAN | _RATIO | _INDEX | _POLICY | _NEUTRAL

_GLUED = {"logpw": "w", "logpl": "l", "piw": "w", "pil": "l", "refw": "rw", "refl": "rl", "rw": "rw", "rl": "rl"}


@dataclass(frozen=True)
class Role:
    """What a name asks for.

    Args:
        kind: A summed log-probability, its mean over tokens, the probability, the policy's log ratio to the reference
            (without a side: of chosen to rejected), a token count, or the places of one side in a joined batch.
        side: "w", "l", or "" for both sides joined, the chosen ones first.
        reference: Whether it is the reference's.
    """

    kind: Kind
    side: Literal["w", "l", ""]
    reference: bool


def words_of(name: str) -> frozenset[str]:
    """The words of a name, in snake case or camel case; `log_ratio` is one word."""
    lower = re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
    return frozenset(re.findall(r"[a-z]+", re.sub(r"log_(ratios?|probs?)(?![a-z])", r"log\1", lower)))


def holds_logps(name: str) -> bool:
    """Whether a name speaks of log-probabilities at all; for groups of answers that is enough."""
    return bool(words_of(name) & (_LOGP | _PROB | {"log", "policy", "pi"}))


@cache
def role_of(name: str) -> Role | None:
    """The role of a name such as `reference_chosen_logps`; None if it has none.

    Example:
        >>> role_of("reference_chosen_logps")
        Role(kind='logp', side='w', reference=True)
        >>> role_of("chosen_score") is None
        True
    """
    words = words_of(name)
    glued = next((_GLUED[word] for word in words if word in _GLUED), None)
    if glued and not words & _OTHER:
        return Role("logp", "w" if glued[-1] == "w" else "l", glued[0] == "r")
    explicit = bool(words & _LOGP or (words & _PROB and "log" in words))
    short = {"c": "w", "r": "l"} if explicit else {}
    stray = words - _KNOWN - set(short)
    if words & _OTHER or (stray and not explicit):
        return None
    if explicit and words & (_COUNT | _NORMALISED | {"token"}) and not words & _MEAN:
        return None  # of single tokens, or per token, or how many: the name does not say
    found = [side for side, known in (("w", _CHOSEN), ("l", _REJECTED)) if words & known]
    found = found or sorted({short[word] for word in words if word in short})
    if len(found) > 1:
        return None
    side: Literal["w", "l", ""] = "" if not found else "w" if found[0] == "w" else "l"
    kind = _kind(words, explicit)
    reference = bool(words & _REFERENCE)
    if kind == "ratio":
        one_model = reference or bool(words & _POLICY)
        return Role(kind, side, reference) if (not reference if side else one_model) else None
    if side:
        return Role(kind, side, reference)
    # Without a side a name must say that it holds log-probabilities: `policy` and `log` alone do not.
    wanted = explicit or words & _PROB - {"prob"}
    return Role(kind, side, reference) if wanted and kind not in ("count", "index") else None


def _kind(words: frozenset[str], explicit: bool) -> Kind:
    if words & _INDEX:
        return "index"
    if words & _MEAN and explicit:
        return "mean"
    if words & _COUNT:
        return "count"
    if words & _RATIO:
        return "ratio"
    if words & _MEAN:
        return "mean"
    return "prob" if words & _PROB and not explicit else "logp"
