"""A structure's behaviour in plain sentences."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING

from ..polynomials import MAX_VARIABLES, show
from ._behaviour import Behaviour, SignOnCube

if TYPE_CHECKING:
    import sympy

_SIGNS = {
    "zero": "0 everywhere",
    "positive": "≥ 0 everywhere: raising {p} lowers the loss",
    "negative": "≤ 0 everywhere: lowering {p} lowers the loss",
    "both": "of both signs",
}
_SUMMED = {
    "contrast": "a gradient is left at summed log-probabilities: it raises the chosen side and lowers the rejected",
    "chosen only": "at summed log-probabilities (near -500 nats) only the chosen answer still learns",
    "rejected only": "at summed log-probabilities (near -500 nats) only the rejected side still learns",
    "misdirected": "at summed log-probabilities (near -500 nats) a gradient is left, but it does not set the chosen "
    "answer against the rejected",
    "saturated": "at summed log-probabilities (near -500 nats) the loss is at its end and no gradient is left: "
    "use per-token means",
    "dead": "at summed log-probabilities (near -500 nats) ρ stands still near a constant and no gradient is left: "
    "use per-token means",
    "undefined": "one side is unsatisfiable, so ρ is infinite or undefined",
}


def gradient_lines(facts: Behaviour) -> list[tuple[str, str, str]]:
    """For each probability p: "∂ρ/∂p", its expression, and what its sign means."""
    lines = []
    for name, expression in facts.gradient.items():
        sign = facts.signs[name]
        meaning = _SIGNS[sign.kind].format(p=name)
        if sign.kind == "both":
            meaning += f": < 0 at {point(sign.below)}, > 0 at {point(sign.above)}"
        lines.append((f"∂ρ/∂{name}", readable(expression), meaning))
    return lines


def sentences(facts: Behaviour) -> list[str]:
    """What follows from the structure, one sentence per fact."""
    structure = facts.structure
    if structure.is_degenerate:
        return ["One side is unsatisfiable: the ratio is 0, infinite or 0/0, and this is no loss to train with."]
    said = [_limit(facts), f"Lengths: {_SUMMED[facts.summed]}."]
    if len(structure.atoms) > MAX_VARIABLES:
        return [*said, _bounds(facts), f"Gradients and displacement are derived up to {MAX_VARIABLES} propositions."]
    return [*said, _displacement(facts), _joint(facts.joint, facts), _bounds(facts)]


def _limit(facts: Behaviour) -> str:
    names = "w and l" if facts.chosen == "w" else "all probabilities"
    proportion = " with w = k·l" if {"w", "l"} <= set(facts.moving) else " in proportion"
    going = f"As {names} go to zero{proportion}, the ratio goes to {facts.limit}"
    if facts.limit.kind == "infinity":
        return f"{going}: the loss rewards collapse, and needs a term that holds the chosen answer up (SFT)."
    if facts.limit.kind == "zero":
        return f"{going}: collapse is punished without limit."
    if not facts.limit.expression.free_symbols:  # type: ignore[union-attr]
        return f"{going}: the loss forgets who was preferred."
    return f"{going}: only the contrast counts, not how likely the answers are."


def _displacement(facts: Behaviour) -> str:
    found = facts.displacement
    if found is None:
        return f"Displacement is impossible: the loss cannot fall while {facts.chosen} falls."
    changed = [name for name in found.before if found.before[name] != found.after[name]]
    moves = ", ".join(f"{name} from {found.before[name]} to {found.after[name]}" for name in changed)
    rest = {name: value for name, value in found.before.items() if name not in changed}
    elsewhere = f" (at {point(rest)})" if rest else ""
    return (
        f"Displacement is possible: the chosen probability may fall while the loss falls, as for {moves}{elsewhere}, "
        f"where the ratio rises from {found.ratios[0]} to {found.ratios[1]}."
    )


def _joint(sign: SignOnCube, facts: Behaviour) -> str:
    start = "If the model's probabilities all fall by the same factor,"
    if len(facts.moving) == 1:
        start = f"If {facts.chosen} falls,"
    if sign.kind == "zero":
        return f"{start} the loss does not notice."
    if sign.kind == "positive":
        return f"{start} the loss never falls."
    if sign.kind == "negative":
        return f"{start} the loss never rises: it is paid for sinking."
    return f"{start} the loss may fall (it does at {point(sign.below)}) or rise (at {point(sign.above)})."


def _bounds(facts: Behaviour) -> str:
    below = "ρ has no lower bound, so a single pair can dominate the loss"
    if facts.loss_is_bounded:
        below = "ρ is bounded below, so no pair's loss exceeds a constant"
    above = "ρ is bounded above" if facts.reward_is_bounded else "ρ has no upper bound"
    return f"Bounds: {below}; {above}."


def point(values: Mapping[str, Fraction] | None) -> str:
    """A point of the cube as text.

    Example:
        >>> point({"w": Fraction(1, 2), "l": Fraction(1, 10)})
        'w = 1/2, l = 1/10'
    """
    return ", ".join(f"{name} = {value}" for name, value in (values or {}).items())


def readable(expression: sympy.Expr) -> str:
    """A rational function with factors 1 - p instead of p - 1, as text.

    Example:
        >>> import sympy
        >>> w = sympy.Symbol("w")
        >>> readable(-1 / (w * (w - 1)))
        '1/(w*(1 - w))'
    """
    import sympy

    symbols = sorted(expression.free_symbols, key=str)
    centre = {symbol: sympy.Rational(1, 2 + place) for place, symbol in enumerate(symbols)}
    parts, sign = [], 1
    for factor in sympy.Mul.make_args(expression):
        base, exponent = factor.as_base_exp()
        if base.is_number:
            sign *= -1 if factor < 0 else 1
            if abs(factor) != 1:
                parts.append(abs(factor))
        elif base.subs(centre) < 0 and exponent.is_integer:
            sign *= -1 if exponent % 2 else 1
            parts.append((-base) ** exponent)
        else:
            parts.append(factor)
    text = show(sympy.Mul(*parts))
    return text if sign > 0 else f"-{text}"
