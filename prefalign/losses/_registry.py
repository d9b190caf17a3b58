"""The one table of losses: their names in expressions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from .._calls import Makers
from .._errors import LossError

# A class of losses, or a function that returns one; `_loss` stands on this table, which thus cannot name its type.
Made = TypeVar("Made", bound=Callable[..., Any])

_LATER = {name: f"prefalign.compiler:{name}" for name in ("logic", "rule")}
LOSSES: Makers[Any] = Makers("loss", "losses", LossError, _LATER)
# TRL's `loss_type` -> what makes the same loss. In expressions these names serve too, unless a loss of ours bears them
# (`robust` wraps any loss; TRL's `robust` is `rdpo`).
_TRL = LOSSES.others
# Class -> its name; functions that make losses have none of their own.
_NAMES: dict[object, str] = {}


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

    enter = LOSSES.register(name, *aliases)

    def remember(made: Made) -> Made:
        _NAMES[enter(made)] = name
        if trl is not None:
            _TRL[trl] = made
        return made

    return remember


def loss_names() -> tuple[str, ...]:
    """Every name that an expression may use, sorted."""
    return LOSSES.names()


def trl_names() -> tuple[str, ...]:
    """Every `loss_type` of TRL's DPOTrainer, sorted."""
    return tuple(sorted(_TRL))


def find_loss(name: str) -> Callable[..., Any]:
    """What makes the loss of that name in an expression; KeyError if there is none."""
    return LOSSES.find(name)


def find_trl(loss_type: str) -> Callable[..., Any]:
    """What makes the loss that TRL calls `loss_type`; KeyError if there is none."""
    return _TRL[loss_type]


def name_of(made: object) -> str | None:
    """The name under which a class is registered, or None."""
    return _NAMES.get(made)
