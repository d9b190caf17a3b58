"""One check that a number lies in its range, with one message."""

from __future__ import annotations

import math
import numbers

from ._errors import PrefalignError


def check_number(
    name: str,
    value: object,
    error: type[PrefalignError],
    low: float = -math.inf,
    high: float = math.inf,
    *,
    ends: str = "[]",
    whole: bool = False,
    hint: str = "",
) -> None:
    """Refuse what is no finite number in a range.

    Args:
        name: The argument, for the message.
        value: What was given.
        error: The kind of error.
        low, high: The ends of the range.
        ends: Which ends belong to it: "[]", "[)", "(]" or "()".
        whole: Whether the number must be an integer.
        hint: The remedy, which follows the message.

    Raises:
        PrefalignError: Of the kind `error`.

    Example:
        >>> check_number("every", 0, ValueError, 1, whole=True)
        Traceback (most recent call last):
        ValueError: `every` must be a whole number >= 1 (got 0).
    """
    fits = isinstance(value, int if whole else numbers.Real) and not isinstance(value, bool)
    if fits:
        number = value if whole else float(value)  # type: ignore[arg-type]
        above = low <= number if ends[0] == "[" else low < number  # type: ignore[operator]
        below = number <= high if ends[1] == "]" else number < high  # type: ignore[operator]
        fits = above and below and math.isfinite(number)  # type: ignore[arg-type]
    if not fits:
        said = _range(low, high, ends, whole)
        raise error(f"`{name}` must be {said} (got {value!r:.60}).{' ' if hint else ''}{hint}")


def _range(low: float, high: float, ends: str, whole: bool) -> str:
    if math.isfinite(high):
        return f"a {'whole ' * whole}number in {ends[0]}{low:g}, {high:g}{ends[1]}"
    least = "" if math.isinf(low) else f" {'>=' if ends[0] == '[' else '>'} {low:g}"
    return f"a {'whole' if whole else 'finite'} number{least}"
