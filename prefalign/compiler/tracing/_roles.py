"""Which quantity a parameter's name asks for; what it does not say is never guessed: a score is no log-probability."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Literal

from ..._errors import DerivationError

Kind = Literal["logp", "mean", "prob", "ratio", "count", "index", "tokens", "mask"]

_REFERENCE = {"ref", "reference", "old", "base", "sft"}
_CHOSEN = {
    "chosen",
    "choose",
    "w",
    "win",
    "winner",
    "winning",
    "pos",
    "positive",
    "preferred",
    "accepted",
    "better",
    "yw",
    "good",
}
_REJECTED = {
    "rejected",
    "l",
    "lose",
    "loser",
    "losing",
    "neg",
    "negative",
    "dispreferred",
    "worse",
    "yl",
    "reject",
    "rej",
}
_REJECTED |= {"unpreferred", "nonpreferred", "unchosen", "loose", "bad"}
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
            (without a side: of chosen to rejected), a token count, the places of one side in a joined batch, the
            log-probabilities of single tokens, shape (pairs, tokens), or the mask of those that count.
        side: "w", "l", or "" for both sides joined, the chosen ones first.
        reference: Whether it is the reference's.
    """

    kind: Kind
    side: Literal["w", "l", ""]
    reference: bool


# What a user may say of a name, `derive(function, roles={"rej_logps": "l"})`.
ROLES = {
    **{side: Role("logp", side[-1], len(side) > 1) for side in ("w", "l", "rw", "rl")},  # type: ignore[arg-type]
    **{f"mean_{side}": Role("mean", side[-1], len(side) > 1) for side in ("w", "l", "rw", "rl")},  # type: ignore[arg-type]
    **{f"prob_{side}": Role("prob", side[-1], len(side) > 1) for side in ("w", "l", "rw", "rl")},  # type: ignore[arg-type]
    **{f"tokens_{side}": Role("tokens", side[-1], len(side) > 1) for side in ("w", "l", "rw", "rl")},  # type: ignore[arg-type]
    "mask_w": Role("mask", "w", False),
    "mask_l": Role("mask", "l", False),
    "ratio_w": Role("ratio", "w", False),
    "ratio_l": Role("ratio", "l", False),
    "n_w": Role("count", "w", False),
    "n_l": Role("count", "l", False),
    "wl": Role("logp", "", False),
    "rwrl": Role("logp", "", True),
}
_GIVEN: ContextVar[Mapping[str, Role] | None] = ContextVar("given", default=None)


@contextmanager
def given_roles(roles: Mapping[str, str]) -> Iterator[None]:
    """Within, these names have these roles, whatever their words say.

    Args:
        roles: Name -> a key of `ROLES`.

    Raises:
        DerivationError: There is no such role.
    """
    for name, role in roles.items():
        if role not in ROLES:
            raise DerivationError(
                f"The role of `{name}` must be one of {', '.join(ROLES)} (got {role!r}): the policy's log-probability "
                "of the chosen and of the rejected answer, the reference's, their means over tokens, probabilities, "
                "log-probabilities of single tokens and their masks, log ratios, token counts, or both answers joined."
            )
    token = _GIVEN.set({name: ROLES[role] for name, role in roles.items()} | dict(_GIVEN.get() or {}))
    try:
        yield
    finally:
        _GIVEN.reset(token)


def roles_by_letter(names: Iterable[str]) -> dict[str, str]:
    """`logps_c` beside `logps_r`: a letter alone says nothing, and the two together chosen and rejected."""
    letters = {"c": "w", "r": "l"}
    found = {
        name: letters[stray.pop()]
        for name in names
        if (words := words_of(name)) & _LOGP and (stray := set(words - _KNOWN)) <= set(letters) and len(stray) == 1
    }
    return found if set(found.values()) == set(letters.values()) else {}


_OF_TOKENS = {"token", "tokens", "tok", "per"}
_OF_MASK = _OF_TOKENS | {"mask", "masks", "loss", "attention", "response", "completion", "answer"}


def roles_by_masks(names: Iterable[str]) -> list[dict[str, str]]:
    """What names may mean beside `chosen_mask` and `rejected_mask`: one map of roles for each possibility.

    `chosen_token_logps` is of tokens then; `chosen_logps` may be that, or the sum beside a mask that is only counted.
    """
    masks, tokens, sums = dict[str, str](), dict[str, str](), dict[str, str]()
    for name in names:
        words = words_of(name)
        sides = [side for side, known in (("w", _CHOSEN), ("l", _REJECTED)) if words & known]
        if len(sides) != 1 or re.search(r"\d", name):
            continue
        rest = words - _CHOSEN - _REJECTED
        if rest & {"mask", "masks"} and rest <= _OF_MASK:
            masks[name] = f"mask_{sides[0]}"
        elif rest & _LOGP and rest - _OF_TOKENS <= _LOGP | _POLICY | _REFERENCE | _NEUTRAL:
            role = f"tokens_{'r' if rest & _REFERENCE else ''}{sides[0]}"
            (tokens if rest & _OF_TOKENS else sums)[name] = role
    masked = {role[-1] for role in masks.values()}
    if not {role[-1] for role in (tokens | sums).values()} <= masked or not masked:
        return []
    return [masks | tokens | sums, masks | tokens] if sums else [masks | tokens]


def guess(name: str) -> str:
    """How to say what a name means, with the likeliest role."""
    words = words_of(name)
    side = "l" if words & _REJECTED or re.search(r"rej|los|neg|bad|wors|other|_r$|_l$", name.lower()) else "w"
    role = ("r" if words & _REFERENCE else "") + side
    return f'derive(function, roles={{"{name}": "{role}"}})'


def words_of(name: str) -> frozenset[str]:
    """The words of a name, in snake case or camel case; `log_ratio` is one word."""
    lower = re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
    return frozenset(re.findall(r"[a-z]+", re.sub(r"log_(ratios?|probs?)(?![a-z])", r"log\1", lower)))


def holds_logps(name: str) -> bool:
    """Whether a name speaks of log-probabilities at all; for groups of answers that is enough."""
    return bool(words_of(name) & (_LOGP | _PROB | {"log", "policy", "pi"}))


def role_of(name: str) -> Role | None:
    """The role of a name: what was said of it, else what its words say; None if it has none.

    Example:
        >>> role_of("reference_chosen_logps")
        Role(kind='logp', side='w', reference=True)
        >>> role_of("chosen_score") is None
        True
    """
    return (_GIVEN.get() or {}).get(name) or _by_words(name)


@cache
def _by_words(name: str) -> Role | None:
    words = words_of(name)
    glued = next((_GLUED[word] for word in words if word in _GLUED), None)
    if glued and not words & _OTHER:
        return Role("logp", "w" if glued[-1] == "w" else "l", glued[0] == "r")
    explicit = bool(words & _LOGP or (words & _PROB and "log" in words))
    # A word that is not known may say that it is something else: `chosen_logp_var`, `logp_minus_ref`, `logp_2`.
    if words & _OTHER or words - _KNOWN or re.search(r"\d", name):
        return None
    if explicit and words & (_COUNT | _NORMALISED | {"token"}) and not words & _MEAN:
        return None  # of single tokens, or per token, or how many: the name does not say
    found = [side for side, known in (("w", _CHOSEN), ("l", _REJECTED)) if words & known]
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
