"""Weights that change while a loss is trained: functions of the share of the steps that is done, of nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from .._errors import LossError, ParseError, did_you_mean
from .._expressions import Call, Number, read_expression

Shape = Callable[[float, float, float], float]

# (first argument, second argument, share done) -> value.
_SHAPES: dict[str, tuple[str, Shape]] = {
    "linear": ("linear(START, END)", lambda start, end, done: start + (end - start) * done),
    "cosine": ("cosine(START, END)", lambda start, end, done: end + (start - end) * (1 + math.cos(math.pi * done)) / 2),
    "warmup": ("warmup(VALUE, SHARE)", lambda value, share, done: value * min(1.0, done / share)),
}


@dataclass(frozen=True)
class Schedule:
    """A number >= 0 that follows the training.

    linear(START, END) goes straight from START at the first step to END at the last, cosine(START, END) along half a
    cosine; warmup(VALUE, SHARE) rises from 0 to VALUE over the first SHARE of the steps and stays there.

    Args:
        shape: "linear", "cosine" or "warmup".
        first: START or VALUE, >= 0.
        second: END, >= 0, or SHARE, in (0, 1].

    Example:
        >>> [Schedule.read("linear(0.1, 0)", "eta").at(done) for done in (0.0, 0.5, 1.0)]
        [0.1, 0.05, 0.0]
    """

    shape: str
    first: float
    second: float

    @classmethod
    def read(cls, text: str, name: str) -> Schedule:
        """The schedule that `text` says.

        Args:
            text: Such as "linear(0.1, 0)".
            name: The argument that it stands in, for error messages.

        Raises:
            LossError: The text is no schedule, or a number in it is out of range.
        """
        known = ", ".join(form for form, _ in _SHAPES.values())
        try:
            node = read_expression(text, "schedule")
        except ParseError as error:
            raise LossError(f"`{name}` must be a number >= 0 or a schedule: {known} (got {text!a:.80}).") from error
        if not isinstance(node, Call) or node.name not in _SHAPES:
            near = did_you_mean(node.name, _SHAPES) if isinstance(node, Call) else ""
            raise LossError(f"`{name}` must be a number >= 0 or a schedule: {known} (got {text!a:.80}).{near}")
        form = _SHAPES[node.name][0]
        numbers = [a.value.value for a in node.arguments if isinstance(a.value, Number) and a.keyword is None]
        if len(numbers) != 2 or len(node.arguments) != 2:
            raise LossError(f"`{name}` must have two numbers in its schedule, {form} (got {text!a:.80}).")
        first, second = map(float, numbers)
        if min(first, second) < 0:
            raise LossError(f"`{name}` must be >= 0 at every step (got {text!a:.80}).")
        if node.name == "warmup" and not 0 < second <= 1:
            raise LossError(f"`{name}` must warm up over a share of the steps in (0, 1], {form} (got {text!a:.80}).")
        return cls(node.name, first, second)

    def at(self, done: float) -> float:
        """The value when the share `done` of the steps, in [0, 1], is done."""
        return _SHAPES[self.shape][1](self.first, self.second, done)

    @property
    def highest(self) -> float:
        """The largest value on the way."""
        return self.first if self.shape == "warmup" else max(self.first, self.second)

    def __str__(self) -> str:
        return f"{self.shape}({_plain(self.first)}, {_plain(self.second)})"


def _plain(number: float) -> str:
    """The shortest text that reads back to the same number."""
    short = f"{number:g}"
    return short if float(short) == number else repr(number)


def share_done(step: int, steps: int) -> float:
    """The share of training that is done before a step: 0 at the first of all `steps`, 1 at the last.

    Example:
        >>> [share_done(step, 5) for step in range(5)], share_done(0, 1)
        ([0.0, 0.25, 0.5, 0.75, 1.0], 0.0)
    """
    return min(1.0, step / (steps - 1)) if steps > 1 else 0.0
