"""The base of every loss, and sums and multiples of losses."""

from __future__ import annotations

import dataclasses
import math
import numbers
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from .. import _numbers
from .._errors import LossError, did_you_mean
from ._pairs import PairLogps
from ._registry import name_of
from ._tokens import TokenReading

Reads = Literal["pair", "ranking", "best", "scores", "label"]
RICHNESS: tuple[Reads, ...] = ("pair", "best", "ranking", "scores", "label")


@dataclass(frozen=True)
class Loss(ABC):
    """A pure function from the log-probabilities of a batch of pairs to one value per pair, in nats.

    Its fields are its hyperparameters, checked when it is made. Losses compare by their fields, add (`a + b`), multiply
    (`0.5 * a`), print as the formula they compute, and say what they need. A subclass is a frozen dataclass with
    `__call__` and `formula`; `register_loss` gives it a name in expressions.

    Example:
        >>> loss = DPO(beta=0.1) + 0.005 * SFT(reduction="sum")
        >>> loss.expression
        "dpo(beta=0.1) + 0.005*sft(reduction='sum')"
    """

    @abstractmethod
    def __call__(self, pair_logps: PairLogps) -> Tensor:
        """The loss of every pair, shape (pairs,).

        Args:
            pair_logps: Summed log-probabilities in nats, each of shape (pairs,).

        Raises:
            LossError: The batch lacks what the loss needs: a reference, or token counts.
        """

    @property
    @abstractmethod
    def formula(self) -> str:
        """The formula of one pair's loss with its numbers, in `log pi(w)`, `log ref(l)` and token counts `|w|`."""

    @property
    def needs_reference(self) -> bool:
        """Whether the loss reads the reference's log-probabilities."""
        return True

    @property
    def needs_lengths(self) -> bool:
        """Whether the loss reads token counts."""
        return bool(getattr(self, "mean", False))

    @property
    def couples_pairs(self) -> bool:
        """Whether a pair's value depends on the other pairs of its batch, as in `dr_dpo`."""
        return False

    @property
    def reads(self) -> Reads:
        """The judgement that the loss reads: of a pair, or of any number of answers; of a wrapper, as what it wraps."""
        inside = getattr(self, "loss", None)
        return inside.reads if isinstance(inside, Loss) else "pair"

    @property
    def reads_tokens(self) -> frozenset[TokenReading]:
        """What the loss reads of single tokens, in `PairLogps.single`: as the losses inside it; most read nothing."""
        inside = (getattr(self, field.name) for field in dataclasses.fields(self))
        return frozenset().union(*(loss.reads_tokens for loss in inside if isinstance(loss, Loss)))

    @property
    def swap_obstacle(self) -> str | None:
        """Why the loss cannot be evaluated on a pair whose label is flipped; None if it can."""
        return None

    @property
    def aggregation(self) -> str:
        """What the formula's log-probabilities are: sums or means over tokens."""
        return "means over tokens" if self.needs_lengths else "sums over tokens"

    @property
    def terms(self) -> tuple[tuple[float, Loss], ...]:
        """The loss as a weighted sum: (weight, loss) for each term. A trainer minimises the sum of weight * mean."""
        return ((1.0, self),)

    def terms_at(self, done: float) -> tuple[tuple[float, Loss], ...]:
        """`terms` with the weights they have when the share `done` of the training, in [0, 1], is done."""
        return self.terms

    @property
    def expression(self) -> str:
        """Text that `parse_loss` reads back to an equal loss.

        Raises:
            LossError: The class is not registered.
        """
        name = name_of(type(self))
        if name is None:
            raise LossError(
                f"`{type(self).__name__}` has no name in expressions; decorate the class with `@register_loss('name')`."
            )
        return f"{name}({', '.join(_arguments(self, _written))})"

    @property
    def title(self) -> str:
        """The class's name with the arguments that differ from their defaults."""
        return f"{type(self).__name__}({', '.join(_arguments(self, _titled))})"

    def __str__(self) -> str:
        return f"{self.title}: {self.formula}, {self.aggregation}"

    def reduce(self, pair_logps: PairLogps) -> Tensor:
        """The number that training minimises: each term's mean over the pairs times its weight, added in order."""
        return self.combine(self.term_values(pair_logps))

    def term_values(self, pair_logps: PairLogps) -> list[Tensor]:
        """The value of each term on each pair, without its weight; (pairs,) each."""
        return [term(pair_logps) for _, term in self.terms]

    def combine(
        self,
        values: Sequence[Tensor],
        weights: Sequence[float] | None = None,
        mean: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """`reduce`, given the terms' values.

        Args:
            values: What `term_values` gave.
            weights: The terms' weights at this step; None: those of `terms`.
            mean: The mean over pairs; None: all count the same.
        """
        total: Tensor | float = 0.0
        for weight, value in zip([w for w, _ in self.terms] if weights is None else weights, values, strict=True):
            total = total + (value.mean() if mean is None else mean(value)) * weight
        assert not isinstance(total, float)
        return total

    def __add__(self, other: object) -> Loss:
        if not isinstance(other, Loss):
            return NotImplemented
        return WeightedSum((*parts_of(self), *parts_of(other)))

    def __mul__(self, factor: object) -> Loss:
        if isinstance(factor, bool) or not isinstance(factor, numbers.Real):
            return NotImplemented
        if not math.isfinite(factor):
            raise LossError(f"a loss can be multiplied by a finite number (got {factor!r}).")
        return simplest(tuple((weight * _as_float(factor), part) for weight, part in parts_of(self)))

    __rmul__ = __mul__


class Composite(Loss):
    """A loss that is, by definition, a weighted sum of others; a subclass gives its `terms`."""

    @property
    @abstractmethod
    def terms(self) -> tuple[tuple[float, Loss], ...]:
        """(weight, loss) for each term, none of them composite."""

    def __call__(self, pair_logps: PairLogps) -> Tensor:
        (weight, first), *others = self.terms
        total = weight * first(pair_logps)
        for weight, term in others:
            total = total + weight * term(pair_logps)
        return total

    @property
    def needs_reference(self) -> bool:
        """Whether any term reads the reference's log-probabilities."""
        return any(term.needs_reference for _, term in self.terms)

    @property
    def needs_lengths(self) -> bool:
        """Whether any term reads token counts."""
        return any(term.needs_lengths for _, term in self.terms)

    @property
    def couples_pairs(self) -> bool:
        """Whether any term does."""
        return any(term.couples_pairs for _, term in self.terms)

    @property
    def reads_tokens(self) -> frozenset[TokenReading]:
        """What any term reads."""
        return frozenset().union(*(term.reads_tokens for _, term in self.terms))

    @property
    def reads(self) -> Reads:
        """The richest judgement that a term reads."""
        return max((term.reads for _, term in self.terms), key=RICHNESS.index)

    @property
    def swap_obstacle(self) -> str | None:
        """The first obstacle among the terms."""
        return next((term.swap_obstacle for _, term in self.terms if term.swap_obstacle), None)

    @property
    def formula(self) -> str:
        """One formula per term, with its weight, each saying sum or mean."""
        return " + ".join(f"{weight} * [{term.formula}, {term.aggregation}]" for weight, term in self._weighed())

    def __str__(self) -> str:
        lines = (f"\n    {weight} * [{term.formula}], {term.aggregation}" for weight, term in self._weighed())
        return f"{self.title}:{''.join(lines)}"

    def _weighed(self) -> tuple[tuple[str, Loss], ...]:
        """Every term with its weight as text."""
        return tuple((f"{weight:g}", term) for weight, term in self.terms)


@dataclass(frozen=True)
class WeightedSum(Composite):
    """What `a + b` and `c * a` make: losses with their weights, nested sums flattened.

    Args:
        parts: (weight, loss) pairs, at least one.

    Raises:
        LossError: There is no part, or a weight is not finite.

    Example:
        >>> print(DPO(beta=0.1) + 0.005 * SFT(reduction="sum"))
        DPO(beta=0.1) + 0.005*SFT(reduction='sum'):
            1 * [-log sigmoid(0.1*((log pi(w) - log ref(w)) - (log pi(l) - log ref(l))))], sums over tokens
            0.005 * [-log pi(w)], sums over tokens
    """

    parts: tuple[tuple[float, Loss], ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise LossError("`parts` must hold at least one (weight, loss).")
        for weight, part in self.parts:
            if not isinstance(part, Loss) or isinstance(part, WeightedSum):
                raise LossError(f"`parts` must hold losses that are no sums themselves (got {part!r}); use `a + b`.")
            if not math.isfinite(weight):
                raise LossError(f"the weight of a loss must be finite (got {weight!r}).")

    @property
    def terms(self) -> tuple[tuple[float, Loss], ...]:
        """Every part's terms, weights multiplied."""
        return self.terms_at(0.0)

    def terms_at(self, done: float) -> tuple[tuple[float, Loss], ...]:
        """Every part's terms with their weights of that time, multiplied."""
        return tuple((weight * inner, term) for weight, part in self.parts for inner, term in part.terms_at(done))

    def _weighed(self) -> tuple[tuple[str, Loss], ...]:
        told: list[tuple[str, Loss]] = []
        for weight, part in self.parts:
            own = part._weighed() if isinstance(part, Composite) else (("1", part),)
            numbers = [f"{weight * number:g}" for number, _ in part.terms]
            # A weight that is no number, but follows the training, is told beside the factor.
            told += [
                (number if _is_number(text) else text if weight == 1 else f"{weight:g}*{text}", term)
                for number, (text, term) in zip(numbers, own, strict=True)
            ]
        return tuple(told)

    @property
    def expression(self) -> str:
        """Text that `parse_loss` reads back to an equal loss."""
        return _join(self.parts, lambda part: part.expression)

    @property
    def title(self) -> str:
        """The parts' titles with their weights."""
        return _join(self.parts, lambda part: part.title)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _join(parts: tuple[tuple[float, Loss], ...], write: Any) -> str:
    return " + ".join(write(part) if weight == 1.0 else f"{weight!r}*{write(part)}" for weight, part in parts)


def parts_of(loss: Loss) -> tuple[tuple[float, Loss], ...]:
    """The summands of a sum; a loss that is not a sum is its own only summand, with weight 1."""
    return loss.parts if isinstance(loss, WeightedSum) else ((1.0, loss),)


def simplest(parts: tuple[tuple[float, Loss], ...]) -> Loss:
    """The sum of the parts; a single one with weight 1 is the loss itself."""
    return parts[0][1] if len(parts) == 1 and parts[0][0] == 1.0 else WeightedSum(parts)


def _arguments(loss: Loss, write: Any) -> list[str]:
    """The arguments that differ from their defaults; wrapped losses come first and without their keyword."""
    texts = []
    for field in dataclasses.fields(loss):
        value = getattr(loss, field.name)
        if isinstance(value, Loss):
            texts.append(write(value))
        elif value != field.default:
            texts.append(f"{field.name}={write(value)}")
    return texts


def _written(value: object) -> str:
    if isinstance(value, Loss):
        return value.expression
    if isinstance(value, str) and "'" in value:
        if '"' in value:
            raise LossError(f"{value!a} cannot be written in an expression: it holds both kinds of quotes.")
        return f'"{value}"'
    return f"'{value}'" if isinstance(value, str) else repr(value)


def _titled(value: object) -> str:
    return value.title if isinstance(value, Loss) else repr(value)


def check_number(
    loss: Loss, name: str, low: float, high: float = math.inf, closed: bool = False, hint: str = ""
) -> None:
    """Check that the field `name` is a number with low < value < high (low <= value where `closed`); store a float."""
    value = getattr(loss, name)
    _numbers.check_number(name, value, LossError, low, high, ends="[)" if closed else "()", hint=hint)
    object.__setattr__(loss, name, _as_float(value))


def check_flag(loss: Loss, name: str) -> None:
    """Check that the field `name` is True or False."""
    value = getattr(loss, name)
    if not isinstance(value, bool):
        raise LossError(f"`{name}` must be True or False (got {value!r}).")


def check_choice(loss: Loss, name: str, choices: tuple[str, ...]) -> None:
    """Check that the field `name` is one of the words `choices`."""
    value = getattr(loss, name)
    if value not in choices:
        known = ", ".join(f"'{choice}'" for choice in choices)
        raise LossError(f"`{name}` must be one of {known} (got {value!r}).{did_you_mean(str(value), choices)}")


def _as_float(value: Any) -> float:
    # The compiler reads losses with hyperparameters that know their symbol: such a float is kept as it is.
    return value if isinstance(value, float) and hasattr(value, "expr") else float(value)
