"""The one table of losses: their names in expressions."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, TypeVar, cast

from .._errors import LossError

# A class of losses, or a function that returns one; `_loss` stands on this table, which thus cannot name its type.
Made = TypeVar("Made", bound=Callable[..., Any])

# Name -> what makes the loss. Classes enter through `register_loss`; a dotted string is imported when it is first used,
# so that parts above this one can offer losses without being imported by it.
_TABLE: dict[str, Callable[..., Any] | str] = {
    "logic": "prefalign.compiler:logic",
}
# Class -> its name; functions that make losses have none of their own.
_NAMES: dict[object, str] = {}
# TRL's `loss_type` -> what makes the same loss. In expressions these names serve too, unless a loss of ours bears them
# (`robust` wraps any loss; TRL's `robust` is `rdpo`).
_TRL: dict[str, Callable[..., Any]] = {}


def register_loss(name: str, *aliases: str, trl: str | None = None) -> Callable[[Made], Made]:
    """Give a loss class, or a function that returns a loss, its name in expressions.

    Args:
        name: The name in expressions, a lower-case identifier; `loss.expression` uses it.
        aliases: Further names that `parse_loss` reads.
        trl: The `loss_type` of TRL's DPOTrainer that is the same loss, if there is one.

    Raises:
        LossError: A name is taken, or is no lower-case identifier.

    Example:
        >>> @register_loss("my_loss")
        ... @dataclass(frozen=True)
        ... class MyLoss(Loss):
        ...     beta: float
        ...
        ...     @property
        ...     def formula(self):
        ...         return f"-{self.beta:g}*log pi(w)"
        ...
        ...     def __call__(self, pair_logps):
        ...         return -self.beta * pair_logps.chosen
        >>> parse_loss("my_loss(beta=2)")
        MyLoss(beta=2)
    """

    def enter(made: Made) -> Made:
        for each in (name, *aliases):
            if not each.isidentifier() or each != each.lower():
                raise LossError(f"the name of a loss must be a lower-case identifier (got {each!r}).")
            if each in _TABLE and not _is_again(_TABLE[each], made):
                raise LossError(f"the loss name `{each}` is taken by {_TABLE[each]!r}; choose another.")
        for each in (name, *aliases):
            _TABLE[each] = made
        _NAMES[made] = name
        if trl is not None:
            _TRL[trl] = made
        return made

    return enter


def loss_names() -> tuple[str, ...]:
    """Every name that an expression may use, sorted."""
    return tuple(sorted({*_TABLE, *_TRL}))


def trl_names() -> tuple[str, ...]:
    """Every `loss_type` of TRL's DPOTrainer, sorted."""
    return tuple(sorted(_TRL))


def find_loss(name: str) -> Callable[..., Any]:
    """What makes the loss of that name in an expression; KeyError if there is none."""
    entry = _TABLE[name] if name in _TABLE else _TRL[name]
    if isinstance(entry, str):
        module, _, attribute = entry.partition(":")
        return cast("Callable[..., Any]", getattr(importlib.import_module(module), attribute))
    return entry


def find_trl(loss_type: str) -> Callable[..., Any]:
    """What makes the loss that TRL calls `loss_type`; KeyError if there is none."""
    return _TRL[loss_type]


def name_of(made: object) -> str | None:
    """The name under which a class is registered, or None."""
    return _NAMES.get(made)


def _is_again(old: Any, new: Any) -> bool:
    """Whether `new` is `old` defined once more: in a module that is reloaded, or in a notebook's cell."""
    if isinstance(old, str) or old.__qualname__ != new.__qualname__:
        return False
    return bool(old.__module__ == new.__module__ or not old.__module__.startswith("prefalign."))
