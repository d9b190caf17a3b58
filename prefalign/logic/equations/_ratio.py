"""From an equation to one fraction of products: logarithms gathered, constants set apart, sums of fractions joined."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain

import sympy

from ..._errors import DerivationError
from ._grammar import Arena

# The factors of a fraction as they were written: nothing is cancelled here.
_Fraction = tuple[tuple[int, ...], tuple[int, ...]]
_MAX_FACTORS = 20_000
_MAX_JOINED = 200_000


@dataclass(frozen=True)
class Ratio:
    """exp(margin) times a quotient of products; the factors hold atoms and numbers, and no division.

    Args:
        numerator: Indices of the factors above, with repetitions.
        denominator: Those below.
        margin: The logarithm of the constant in front, in nats, as SymPy.
    """

    numerator: tuple[int, ...]
    denominator: tuple[int, ...]
    margin: sympy.Expr


def read_ratio(arena: Arena, index: int) -> Ratio:
    """The fraction whose logarithm is ρ: of the equation itself, or, where it holds `log`, of its exponential.

    Raises:
        DerivationError: Logarithms and probabilities are added, or a factor of ρ is no whole number.
    """
    reader = _Reader(arena)
    if reader.has(index, "log"):
        above, below, margin = reader.exponential(index)
    else:
        above, below = reader.fraction(index)
        margin = sympy.S.Zero
    constants = sympy.S.One
    factors: list[list[int]] = [[], []]
    for side, parts in enumerate((above, below)):
        for part in parts:
            if arena.kind(part) == "parameter":
                symbol = sympy.Symbol(str(arena.nodes[part][1]))
                constants *= symbol if side == 0 else 1 / symbol
            elif arena.kind(part) == "exp":  # of a constant; `fraction` undoes the others
                nats = reader.constant(arena.parts(part)[0])
                margin += nats if side == 0 else -nats
            elif reader.has(part, "parameter"):
                names = sorted(reader.parameters(part))
                raise DerivationError(
                    f"the constant {names[0]} stands inside a sum of probabilities. A constant can multiply the whole "
                    "ratio or be added to its logarithm, and becomes a margin of the link there."
                )
            elif reader.has(part, "exp"):
                raise DerivationError(
                    "the exponential of a constant stands inside a sum of probabilities. A constant can multiply the "
                    "whole ratio or be added to its logarithm, and becomes a margin of the link there."
                )
            else:
                factors[side].append(part)
    return Ratio(tuple(factors[0]), tuple(factors[1]), margin + sympy.log(constants))


@dataclass(frozen=True)
class _Scale:
    """What multiplies a logarithm: a number, and perhaps the link's `beta`."""

    number: Fraction
    with_beta: bool = False

    @property
    def sympy(self) -> sympy.Expr:
        number = sympy.Rational(self.number.numerator, self.number.denominator)
        return number * sympy.Symbol("beta") if self.with_beta else number


class _Reader:
    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self._fractions: dict[int, _Fraction] = {}
        self._holds: dict[tuple[int, str], bool] = {}

    def has(self, index: int, kind: str) -> bool:
        """Whether a node of that kind occurs; a logarithm under `exp` does not count, since it is undone there."""
        if kind == "log" and self.arena.kind(index) == "exp":
            return False
        key = (index, kind)
        if key not in self._holds:
            found = self.arena.kind(index) == kind or any(self.has(part, kind) for part in self.arena.parts(index))
            self._holds[key] = found
        return self._holds[key]

    def parameters(self, index: int) -> set[str]:
        """The constants that occur."""
        if self.arena.kind(index) == "parameter":
            return {str(self.arena.nodes[index][1])}
        return set().union(*(self.parameters(part) for part in self.arena.parts(index) if self.has(part, "parameter")))

    # ------------------------------------------------------------------------------------------------ logarithms

    def exponential(self, index: int) -> tuple[tuple[int, ...], tuple[int, ...], sympy.Expr]:
        """exp(ρ) for a sum of logarithms and constants: factors above, factors below, and the constant, in nats."""
        terms, margin = self.logarithms(index, _Scale(Fraction(1)))
        scales = {abs(scale.number) for scale, _ in terms}
        if len(scales) == 1 and scales != {Fraction(1)}:
            (number,) = scales
            raise DerivationError(
                f"every logarithm is multiplied by {number}. That is the beta of the link: leave it out."
            )
        if len({scale.with_beta for scale, _ in terms}) > 1:
            raise DerivationError(
                "`beta` multiplies one logarithm and not another; as the beta of the link it multiplies all of them."
            )
        above: list[int] = []
        below: list[int] = []
        for scale, argument in terms:
            number = scale.number
            if number.denominator != 1 or abs(number) > 64:
                raise DerivationError(
                    f"the logarithms have different factors, one of them {number}, and a model count has no roots. If "
                    "it is 1/|y|, read w and l as the normalised probabilities and leave it out."
                )
            top, bottom = self.fraction(argument)
            if number < 0:
                top, bottom = bottom, top
            above += top * abs(int(number))
            below += bottom * abs(int(number))
        if terms and terms[0][0].with_beta:  # f sees beta * (ρ + margin)
            margin = sympy.expand(margin / sympy.Symbol("beta"))
        return tuple(above), tuple(below), margin

    def logarithms(self, index: int, scale: _Scale) -> tuple[list[tuple[_Scale, int]], sympy.Expr]:
        """The terms scale · log(argument), and the constant, of a sum of both."""
        arena, kind = self.arena, self.arena.kind(index)
        if kind == "log":
            (inside,) = arena.parts(index)
            if arena.kind(inside) == "exp":
                return self.logarithms(arena.parts(inside)[0], scale)
            if not self.has(inside, "atom"):
                return [], scale.sympy * sympy.log(self.constant(inside))
            return [(scale, inside)], sympy.S.Zero
        if not self.has(index, "log"):
            if self.has(index, "atom"):
                raise DerivationError(
                    "the equation adds a probability to a logarithm. Give either the ratio or its logarithm: "
                    "log(w) - log(l), or w/l."
                )
            return [], scale.sympy * self.constant(index)
        if kind == "sum":
            terms: list[tuple[_Scale, int]] = []
            margin = sympy.S.Zero
            for part in arena.parts(index):
                found, constant = self.logarithms(part, scale)
                terms += found
                margin += constant
            return terms, margin
        if kind == "product":
            return self.scaled(index, scale)
        raise DerivationError("a logarithm stands under a power or an exponential; give the sum of logarithms itself.")

    def scaled(self, index: int, scale: _Scale) -> tuple[list[tuple[_Scale, int]], sympy.Expr]:
        """The terms of a product of numbers, perhaps `beta`, and one sum of logarithms."""
        arena = self.arena
        core = [part for part in arena.parts(index) if self.has(part, "log")]
        if len(core) != 1:
            raise DerivationError("the equation multiplies logarithms; ρ is a sum of them.")
        for part in arena.parts(index):
            value = arena.value(part)
            if part == core[0]:
                continue
            if value is not None:
                scale = _Scale(scale.number * value, scale.with_beta)
            elif arena.nodes[part] == ("parameter", "beta") and not scale.with_beta:
                scale = _Scale(scale.number, True)
            else:
                raise DerivationError(
                    "a logarithm is multiplied by something other than a number or, once, `beta`. ρ is a sum of "
                    "logarithms; a common factor belongs to the link."
                )
        return self.logarithms(core[0], scale)

    def constant(self, index: int) -> sympy.Expr:
        """An expression without atoms as SymPy."""
        arena, kind = self.arena, self.arena.kind(index)
        node = arena.nodes[index]
        value = arena.value(index)
        if value is not None:
            return sympy.Rational(value.numerator, value.denominator)
        if kind == "parameter":
            return sympy.Symbol(str(node[1]))
        parts = [self.constant(part) for part in arena.parts(index)]
        if kind == "sum":
            return sympy.Add(*parts)
        if kind == "product":
            return sympy.Mul(*parts)
        if kind == "power":
            return sympy.Pow(parts[0], node[2])
        return sympy.log(parts[0]) if kind == "log" else sympy.exp(parts[0])

    # ------------------------------------------------------------------------------------------------- fractions

    def fraction(self, index: int) -> _Fraction:
        """The factors above and below, in the order they were written."""
        if index not in self._fractions:
            above, below = self._fraction(index)
            if len(above) + len(below) > _MAX_FACTORS:
                raise DerivationError(f"the equation has more than {_MAX_FACTORS} factors; write it in a shorter form.")
            self._fractions[index] = above, below
        return self._fractions[index]

    def _fraction(self, index: int) -> _Fraction:
        arena, kind = self.arena, self.arena.kind(index)
        if kind in ("number", "atom", "parameter"):
            return (index,), ()
        if kind == "product":
            pairs = [self.fraction(part) for part in arena.parts(index)]
            # Not `sum`, which copies what it has for every part.
            return tuple(chain.from_iterable(top for top, _ in pairs)), tuple(
                chain.from_iterable(low for _, low in pairs)
            )
        if kind == "power":
            exponent = arena.nodes[index][2]
            assert isinstance(exponent, int)
            above, below = self.fraction(arena.parts(index)[0])
            if exponent < 0:
                above, below = below, above
            return above * abs(exponent), below * abs(exponent)
        if kind == "sum":
            return self._joined(arena.parts(index))
        if kind == "exp":
            if not self.has(index, "atom") and "beta" not in self.parameters(index):
                return (index,), ()
            above, below, margin = self.exponential(arena.parts(index)[0])
            if margin != 0 or "beta" in self.parameters(index):
                raise DerivationError("a constant stands under `exp`; take the logarithm, and add the constant there.")
            return above, below
        raise DerivationError("a logarithm stands inside a product or a quotient; ρ is a sum of logarithms.")

    def _joined(self, parts: tuple[int, ...]) -> _Fraction:
        """A sum of fractions over their common denominator."""
        arena = self.arena
        pairs = [self.fraction(part) for part in parts]
        common: Counter[int] = Counter()
        for _, below in pairs:
            common |= Counter(below)
            if common.total() * len(pairs) > _MAX_JOINED:
                raise DerivationError(
                    f"the equation adds {len(pairs)} fractions whose common denominator is too long; write it in a "
                    "shorter form."
                )
        terms = []
        for above, below in pairs:
            missing = common - Counter(below)
            terms.append(arena.many("product", [*above, *missing.elements()]) if above or missing else arena.number(1))
        return (arena.many("sum", terms),), tuple(common.elements())
