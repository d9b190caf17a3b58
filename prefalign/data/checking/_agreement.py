"""The flip rate that labels which were given twice point at."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..._errors import DataError

# Fewer comparisons than this say too little.
FEW_REPEATS = 100
# The likelihood of margins cannot tell eps from 1 - eps, and coins agree in half of the comparisons: beyond this rate
# nothing is left to learn.
HIGHEST_RATE = 0.49


def from_repeats(agreeing: int, compared: int) -> tuple[float, float, float]:
    """The flip rate from labels that were given twice, independently: (rate, low, high).

    Two independent labels agree with probability A = (1 - eps)^2 + eps^2, so eps = (1 - sqrt(2A - 1)) / 2.

    Args:
        agreeing: Pairs whose two labels agree.
        compared: Pairs that were labelled twice, > 0.

    Returns:
        The rate, and the rate at the bounds of A's 95 % Wilson interval. Agreement at or below one half gives 0.5.

    Raises:
        DataError: The counts are out of range.

    Example:
        >>> [round(x, 3) for x in from_repeats(agreeing=580, compared=1000)]
        [0.3, 0.265, 0.343]
    """
    if not compared > 0 or not 0 <= agreeing <= compared:
        raise DataError(f"`agreeing` must lie between 0 and `compared` > 0 (got {agreeing} of {compared}).")
    share, z = agreeing / compared, 1.96
    centre = (share + z * z / (2 * compared)) / (1 + z * z / compared)
    half = z / (1 + z * z / compared) * math.sqrt(share * (1 - share) / compared + z * z / (4 * compared**2))

    def rate(agreement: float) -> float:
        # Wilson's bound misses 1 by rounding only; a root would make 1e-8 of 1e-16.
        return 0.5 * (1.0 - math.sqrt(max(0.0, 2.0 * min(round(agreement, 12), 1.0) - 1.0)))

    return rate(share), rate(centre + half), rate(centre - half)


@dataclass(frozen=True)
class Agreement:
    """How labels that were given twice agree.

    Attributes:
        agreeing, compared: Of so many comparisons of two labels of one pair, so many agree; `compared` > 0.
    """

    agreeing: int
    compared: int

    @property
    def rate(self) -> float:
        """The flip rate that follows."""
        return from_repeats(self.agreeing, self.compared)[0]

    @property
    def low(self) -> float:
        """Lower bound of its 95 % interval."""
        return from_repeats(self.agreeing, self.compared)[1]

    @property
    def high(self) -> float:
        """Upper bound of its 95 % interval."""
        return from_repeats(self.agreeing, self.compared)[2]

    @property
    def reason_against(self) -> str | None:
        """Why the rate is not to be taken; None if it is.

        Labels that are thrown like coins agree in more than half of the comparisons every other time. So it is the
        interval that must end below one half, not the rate. With so many comparisons it is then narrower than 0.3, as
        that of the margins must be.
        """
        if self.compared < FEW_REPEATS:
            return f"there are fewer than {FEW_REPEATS} comparisons"
        if self.high >= HIGHEST_RATE:
            return "the interval reaches one half, as that of random labels does"
        return None
