"""Whether two structures have one ratio: a fingerprint that tells them apart at once, and a proof where it does not."""

from __future__ import annotations

from functools import lru_cache

from ..structures import PreferenceStructure, aligned
from ..tables import atom_key, bits
from ._derive import coprime

_PRIME = (1 << 61) - 1
_FEW = 5  # atoms: with more, integers of thousands of digits take longer than cancelling


def equal_ratios(a: PreferenceStructure, b: PreferenceStructure) -> bool:
    """Whether the ratios of two structures, none of them degenerate, are one function."""
    if fingerprint(a) != fingerprint(b):
        return False
    one, other = aligned(a.reduced, b.reduced)
    return proved_equal(one, other) if len(one.atoms) <= _FEW else coprime(a) == coprime(b)


def proved_equal(a: PreferenceStructure, b: PreferenceStructure) -> bool:
    """Whether top(a) * bottom(b) and top(b) * bottom(a) are one polynomial, by their values at a single point.

    The products have degree 2 at most in each of the n atoms, and coefficients of 8^n at most. So with an atom that is
    M = 2^(3n + 2), the next M^3, the next M^9, … each monomial has digits of its own in base M.
    """
    count = len(a.atoms)
    weights = [1]
    for place in range(count):
        p = 1 << (3 * count + 2) * 3**place
        weights = [weight * factor for weight in weights for factor in (p, 1 - p)]
    tops, bottoms = (
        [sum(weights[row] for row in bits(mask)) for mask in masks]
        for masks in ((a.top_mask, b.top_mask), (a.bottom_mask, b.bottom_mask))
    )
    return tops[0] * bottoms[1] == tops[1] * bottoms[0]


@lru_cache(maxsize=1024)
def fingerprint(structure: PreferenceStructure) -> int:
    """The ratio at one point of a field of 2^61 - 1 elements: what differs here differs, and nothing was expanded."""
    small = structure.reduced
    weights = [1]
    for atom in small.atoms:
        first, second = atom_key(atom)
        p = pow(3, 1009 + 31 * first + second, _PRIME)
        weights = [weight * factor % _PRIME for weight in weights for factor in (p, 1 - p)]
    top, bottom = (sum(weights[row] for row in bits(mask)) for mask in (small.top_mask, small.bottom_mask))
    return top * pow(bottom, -1, _PRIME) % _PRIME
