"""Arguments for the code that is read: each parameter's name says which quantity it wants, symbolic or random."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

import sympy as sp
from torch import Tensor

from ..._errors import DerivationError
from ...logic import PreferenceStructure
from ...losses import GroupLogps, Loss, PairLogps, WeightedSum
from ..lowering import Tape
from ._quantities import SPREAD, Quantities, Tokens, tokens
from ._roles import Role, given_roles, guess, holds_logps, role_of, roles_by_letter, roles_by_masks, words_of
from ._tensor import SymFloat

SPREAD |= {"rw": sp.Symbol("spread_rw", real=True), "rl": sp.Symbol("spread_rl", real=True)}

_BATCH = {"batch", "inputs", "pairs", "pair", "outputs", "output", "data", "x"}


class Lookup(dict[str, Any]):
    """A batch of unknown layout: any key or attribute whose name says what it wants is there."""

    def __init__(self, quantities: Quantities) -> None:
        super().__init__()
        self._quantities = quantities
        self._asked: list[str] = []

    def _find(self, key: str) -> Tensor | None:
        found = self._quantities.role(key)
        if found is not None and key not in self._asked:
            self._asked.append(key)
            # `chosen_logps` and `policy_chosen_logps` are two spellings; a `w` beside them is something else.
            if len(key) == 1 or any(len(name) == 1 for name in self._asked):
                _distinct(self._asked)
        return found

    def __missing__(self, key: str) -> Tensor:
        found = self._find(key)
        if found is None:
            if holds_logps(key):
                raise DerivationError(_unknown(f"The entry `{key}`", key))
            raise KeyError(key)
        return found

    def __getattr__(self, key: str) -> Tensor:
        found = None if key.startswith("__") else self._find(key)
        if found is None:
            if holds_logps(key) and not key.startswith("_"):
                raise DerivationError(_unknown(f"The field `{key}`", key))
            raise AttributeError(key)
        return found

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._quantities.role(key) is not None

    def get(self, key: str, default: Any = None) -> Any:
        found = self._find(key)
        return default if found is None else found


def takes_tokens(function: Callable[..., Any]) -> bool:
    """Whether the code is given single tokens, whose numbers then show in its formula."""
    return bool({Tokens, Quantities} & {hint for hint in _hints(function).values() if isinstance(hint, type)})


def masks_of(function: Callable[..., Any]) -> list[dict[str, str]]:
    """What the parameters' names may mean beside masks of tokens; nothing where there are none."""
    try:
        return roles_by_masks(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []


def arguments(function: Callable[..., Any], quantities: Quantities, given: Mapping[str, Any]) -> dict[str, Any]:
    """One value for each parameter of `function`.

    Raises:
        DerivationError: A parameter is required, and neither given nor recognised by its name.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise DerivationError(f"{function!r} has no signature to read its parameters from.") from error
    known = set(signature.parameters)
    variadic = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    for name in given:
        if name not in known and not variadic:
            raise DerivationError(f"`{name}` was given, but the function's parameters are: {', '.join(sorted(known))}.")
    hints = _hints(function)
    positional = [p for p in signature.parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    required = [p for p in positional if p.default is p.empty and p.name not in given]
    alone = len(required) == 1
    with given_roles(roles_by_letter(known)):
        values = {p.name: _argument(p, hints.get(p.name), quantities, given, alone) for p in positional}
        _distinct([name for name, value in values.items() if name not in given and isinstance(value, Tensor)])
    return values | {name: hyperparameters(v, quantities, name) for name, v in given.items() if name not in values}


def _distinct(names: list[str]) -> None:
    """Refuse two parameters with one meaning: `chosen_logps` and `w` beside it, which is a weight.

    A probability beside the log-probability counts as the same: `win_prob` there is a label's, not the policy's.
    """
    seen: dict[Role, str] = {}
    for name in names:
        role = role_of(name)
        if role is not None and role.kind == "prob":
            role = dataclasses.replace(role, kind="logp")
        if role is not None and seen.setdefault(role, name) != name:
            raise DerivationError(
                f"By their names `{seen[role]}` and `{name}` are the same quantity. Give the one that is something "
                f"else: derive(function, {name}=…)."
            )


def _hints(function: Callable[..., Any]) -> Mapping[str, Any]:
    target = function if isinstance(function, types.FunctionType | types.MethodType) else type(function).__call__
    try:
        return typing.get_type_hints(target)
    except Exception:  # a hint that does not resolve is no reason not to read the code
        return {}


def _argument(p: inspect.Parameter, hint: Any, quantities: Quantities, given: Mapping[str, Any], alone: bool) -> Any:
    if p.name in given:
        return hyperparameters(given[p.name], quantities, p.name)
    if hint is GroupLogps or GroupLogps in typing.get_args(hint):
        raise DerivationError(
            f"`{p.name}` is a batch of judged groups of any size, and rules are of so many answers. Read code over K "
            "answers, shape (groups, K), with derive(function, answers=K)."
        )
    if hint is PairLogps or p.name == "pair_logps":
        loss = given.get("self")
        reads = loss.reads_tokens if isinstance(loss, Loss) else frozenset()
        if "kl" in reads:
            raise DerivationError(
                "The loss reads the models' distribution over the vocabulary at every token, of which no proposition "
                "about whole answers speaks."
            )
        return quantities.pair_logps(single=bool(reads))
    if hint is Tokens:
        return tokens(quantities)
    if hint is Quantities:
        return quantities
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return hint(**_fields(hint, quantities))
    role = quantities.role(p.name)
    if role is not None and not isinstance(p.default, bool | int | float | str):
        return role
    if p.default is not p.empty:
        return hyperparameters(p.default, quantities, p.name)
    if words_of(p.name) & _BATCH or hint in (dict, Mapping) or typing.get_origin(hint) in (dict, Mapping) or alone:
        return Lookup(quantities)
    if p.name in _USUAL:
        return hyperparameters(_USUAL[p.name], quantities, p.name)
    if holds_logps(p.name):
        raise DerivationError(_unknown(f"The parameter `{p.name}`", p.name))
    raise DerivationError(
        f"The parameter `{p.name}` is neither a log-probability by its name (`chosen_logps`, `ref_rejected_logps`, …) "
        f"nor has it a default. Give it: derive(function, {p.name}=…)."
    )


def _unknown(what: str, name: str) -> str:
    return (
        f"{what} speaks of log-probabilities, and its name does not say of which answer and model, or says more than "
        f"that. Say it: {guess(name)}, or whatever it is; or give its value: derive(function, {name}=…)."
    )


_USUAL = {"beta": 0.1, "gamma": 0.5, "tau": 0.1, "alpha": 0.5, "lam": 0.5, "lambda_": 0.5, "margin": 0.5, "eps": 0.1}


def _fields(hint: type, quantities: Quantities) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field in dataclasses.fields(hint):
        role = quantities.role(field.name)
        if role is not None and not isinstance(field.default, bool | int | float | str):
            values[field.name] = role
        elif isinstance(field.default, float):
            values[field.name] = hyperparameters(field.default, quantities, field.name)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise DerivationError(
                f"The field `{field.name}` of `{hint.__name__}` is not recognised by its name. Say what it is: "
                f"{guess(field.name)}."
            )
    _distinct([name for name, value in values.items() if isinstance(value, Tensor)])
    return values


def hyperparameters(value: Any, quantities: Quantities, name: str) -> Any:
    """`value` with every float in it a named hyperparameter: in losses, dataclasses, namespaces and their like."""
    if isinstance(value, SymFloat | bool | int | str | Tensor | PreferenceStructure | Tape) or value is None:
        return value
    if isinstance(value, float):
        return quantities.hypers(name, value)
    if isinstance(value, types.SimpleNamespace):
        return types.SimpleNamespace(**{k: hyperparameters(v, quantities, k) for k, v in vars(value).items()})
    if isinstance(value, Loss) or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
        return _copied(value, quantities, name)
    if type(value) is dict:
        return {k: hyperparameters(v, quantities, k) if isinstance(k, str) else v for k, v in value.items()}
    if type(value) in (tuple, list):
        return type(value)(hyperparameters(v, quantities, f"{name}_{i + 1}") for i, v in enumerate(value))
    return value


def _copied(value: Any, quantities: Quantities, name: str) -> Any:
    # Not `dataclasses.replace`: checks at construction would turn a named number into a plain one.
    made = object.__new__(type(value))
    for key, part in vars(value).items():
        if isinstance(value, WeightedSum) and key == "parts":
            new: Any = tuple(
                (c if c == 1 else quantities.hypers(f"c_{i}", c), hyperparameters(term, quantities, name))
                for i, (c, term) in enumerate(part, 1)
            )
        else:
            new = hyperparameters(part, quantities, key)
        object.__setattr__(made, key, new)
    return made
