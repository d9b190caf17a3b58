"""Loss equations as expressions: the grammar of equation text, and the same from SymPy.

Equal expressions are one object (an index into an `Arena`), so that what is asked of them is computed once, and deeply
shared expressions stay cheap.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from math import prod
from typing import Literal

import sympy

from ..._errors import DerivationError, did_you_mean
from ..._scan import MAX_DEPTH, TokenStream, compile_pattern
from ..tables import canonical, is_atom

# Names in an equation that are no probabilities: they may scale the ratio or be added to its logarithm.
PARAMETERS = ("alpha", "beta", "gamma", "delta", "epsilon", "eta", "mu", "tau", "zeta", "margin")

Kind = Literal["number", "atom", "parameter", "sum", "product", "power", "log", "exp"]
# ("number", Fraction), ("atom" | "parameter", name), ("sum" | "product", index, ...), ("power", index, int),
# ("log" | "exp", index)
Node = tuple[object, ...]


@cache  # not at import: compiling takes milliseconds
def _pattern() -> re.Pattern[str]:
    return compile_pattern(
        number=r"(?:\d{1,30}(?:\.\d{0,30})?|\.\d{1,30})(?:[eE][+-]?\d{1,2})?(?![\w.])",
        name=r"[A-Za-z_][A-Za-z_0-9₀-₉]*",
        sign=r"\*\*|[-+*/^()−·×÷]",
    )


_DIGITS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_MODELS = {**dict.fromkeys(("P", "M", "pi", "policy"), ""), **dict.fromkeys(("R", "ref", "P_ref", "pi_ref"), "r")}
_FUNCTIONS = ("log", "ln", "exp", "log1p", "odds", "logit")
_MAX_POWER = 64
_MAX_NODES = 200_000
_MAX_BITS = 20_000


class Arena:
    """Expressions without repetition; an expression is its index.

    Args:
        parameters: Further names that stand for constants.
    """

    def __init__(self, parameters: Sequence[str] = ()) -> None:
        self.nodes: list[Node] = []
        self.parameters = frozenset((*PARAMETERS, *parameters))
        self._index: dict[Node, int] = {}

    def add(self, *node: object) -> int:
        """The index of a node, which is new only if no equal one is there.

        Raises:
            DerivationError: The expression is too large.
        """
        index = self._index.get(node)
        if index is None:
            if len(self.nodes) >= _MAX_NODES:
                raise DerivationError(f"the equation has more than {_MAX_NODES} parts; write it in a shorter form.")
            index = self._index[node] = len(self.nodes)
            self.nodes.append(node)
        return index

    def kind(self, index: int) -> Kind:
        """What kind of expression it is."""
        return self.nodes[index][0]  # type: ignore[return-value]

    def parts(self, index: int) -> tuple[int, ...]:
        """The expressions directly below."""
        node = self.nodes[index]
        if node[0] in ("number", "atom", "parameter"):
            return ()
        return node[1:2] if node[0] == "power" else node[1:]  # type: ignore[return-value]

    def number(self, value: Fraction | int) -> int:
        """A number.

        Raises:
            DerivationError: It has thousands of digits.
        """
        value = Fraction(value)
        if max(value.numerator.bit_length(), value.denominator.bit_length()) > _MAX_BITS:
            raise DerivationError("the equation holds a number with thousands of digits; none is needed.")
        return self.add("number", value)

    def value(self, index: int) -> Fraction | None:
        """The value of a number; None for anything else."""
        node = self.nodes[index]
        return node[1] if node[0] == "number" else None  # type: ignore[return-value]

    def many(self, kind: Literal["sum", "product"], parts: Sequence[int]) -> int:
        """A sum or product of any number of parts; one of numbers only is a number."""
        if len(parts) == 1:
            return parts[0]
        values = [self.value(part) for part in parts]
        if all(value is not None for value in values):
            known = [value for value in values if value is not None]
            return self.number(sum(known, Fraction(0)) if kind == "sum" else prod(known, start=Fraction(1)))
        return self.add(kind, *parts)

    def power(self, base: int, exponent: Fraction) -> int:
        """A whole power.

        Raises:
            DerivationError: The exponent is no whole number, or too large.
        """
        if exponent.denominator != 1:
            raise DerivationError(
                f"the equation has the power {exponent}, and a model count has no roots. If the whole ratio stands "
                "under it, it is the beta of the link: leave it out. If it is 1/|y|, read w and l as the normalised "
                "probabilities and leave it out."
            )
        if abs(exponent) > _MAX_POWER:
            raise DerivationError(f"the equation has the power {exponent}; at most {_MAX_POWER} can be read.")
        value = self.value(base)
        if value is not None:
            if not value and exponent < 0:
                raise DerivationError("the equation divides by zero.")
            return self.number(value ** int(exponent))
        return base if exponent == 1 else self.add("power", base, int(exponent))

    def atoms(self, index: int) -> tuple[str, ...]:
        """The atoms that occur in an expression."""
        seen, names, stack = {index}, set(), [index]
        while stack:
            node = stack.pop()
            if self.kind(node) == "atom":
                names.add(str(self.nodes[node][1]))
            for part in self.parts(node):
                if part not in seen:
                    seen.add(part)
                    stack.append(part)
        return canonical(names)


def parse_equation(text: str, arena: Arena, losses: Sequence[str] = ()) -> int:
    """Read equation text into `arena` and return its index; nothing is evaluated.

    Numbers, `+ - * / **` (or `^`), parentheses, `log(...)`, `exp(...)`, `log1p(...)`, `odds(p)` = p/(1 - p),
    `logit(p)` its logarithm, the atoms w, l, rw, rl, copies such as w2, y1, ..., also as P(w), R(w), and the names of
    constants.

    Args:
        text: The equation.
        arena: Where it goes.
        losses: Catalogue names, to help with misspelt ones.

    Raises:
        ParseError: The text is not in the grammar; the message points at the character.
    """
    stream = TokenStream(text, _pattern(), "equation")
    index = _sum(stream, arena, losses)
    if stream.peek.kind != "end":
        stream.fail("expected `+ - * / **`, or the end")
    return index


def _sum(stream: TokenStream, arena: Arena, losses: Sequence[str]) -> int:
    with stream.nested():
        parts = [_product(stream, arena, losses)]
        while sign := stream.take("+", "-", "−"):
            part = _product(stream, arena, losses)
            parts.append(part if sign.text == "+" else _minus(arena, part))
        return arena.many("sum", parts)


def _product(stream: TokenStream, arena: Arena, losses: Sequence[str]) -> int:
    parts = [_factor(stream, arena, losses)]
    while sign := stream.take("*", "/", "·", "×", "÷"):
        start = stream.peek
        part = _factor(stream, arena, losses)
        if sign.text in "/÷":
            if arena.value(part) == 0:
                stream.fail("this divides by zero", start)
            part = arena.power(part, Fraction(-1))
        parts.append(part)
    return arena.many("product", parts)


def _factor(stream: TokenStream, arena: Arena, losses: Sequence[str]) -> int:
    if stream.take("-", "−"):
        with stream.nested():
            return _minus(arena, _factor(stream, arena, losses))
    base = _primary(stream, arena, losses)
    if stream.take("**", "^"):
        start = stream.peek
        with stream.nested():
            exponent = arena.value(_factor(stream, arena, losses))
        if exponent is None:
            stream.fail("the exponent must be a number; a common exponent is the beta of the link, leave it out", start)
        return arena.power(base, exponent)
    return base


def _primary(stream: TokenStream, arena: Arena, losses: Sequence[str]) -> int:
    token = stream.peek
    if token.kind == "number":
        return arena.number(Fraction(stream.next().text))
    if stream.take("("):
        inside = _sum(stream, arena, losses)
        stream.expect(")", "to close the parenthesis")
        return inside
    if token.kind != "name":
        stream.fail("expected a number, a name or `(`")
    stream.next()
    if token.text in _FUNCTIONS:
        stream.expect("(", f"after `{token.text}`")
        inside = _sum(stream, arena, losses)
        stream.expect(")", "to close the parenthesis")
        return _called(arena, token.text, inside)
    name = token.text.translate(_DIGITS)
    if token.text in _MODELS and stream.take("("):
        inner = stream.next()
        name = _MODELS[token.text] + inner.text.translate(_DIGITS)
        if inner.kind != "name" or inner.text.startswith("r") or not is_atom(name):
            stream.fail(f"`{token.text}(...)` takes `w` or `l`, or a copy such as `w2`", inner)
        stream.expect(")", "to close the parenthesis")
    if is_atom(name):
        return arena.add("atom", name)
    if name in arena.parameters:
        return arena.add("parameter", name)
    known = (*_FUNCTIONS, *arena.parameters, *map(str.lower, losses))
    hint = did_you_mean(token.text.lower(), known).strip()
    what = "a probability (w, l, rw, rl, y1, ...), a constant (beta, gamma, ...)" + (
        " or a catalogue name" * bool(losses)
    )
    stream.fail(f"`{token.text[:60]}` is not {what}{'. ' + hint if hint else ''}", token)


def _called(arena: Arena, function: str, inside: int) -> int:
    if function in ("odds", "logit"):
        rest = arena.many("sum", [arena.number(1), _minus(arena, inside)])
        inside = arena.many("product", [inside, arena.power(rest, Fraction(-1))])
    if function == "log1p":
        inside = arena.many("sum", [arena.number(1), inside])
    return inside if function == "odds" else arena.add("exp" if function == "exp" else "log", inside)


def _minus(arena: Arena, index: int) -> int:
    return arena.many("product", [arena.number(-1), index])


def read_sympy(expression: sympy.Basic, arena: Arena) -> int:
    """A SymPy expression into `arena`; its index.

    Raises:
        DerivationError: It holds a function, a symbol or a power that no equation of a loss has.
    """
    memo: dict[sympy.Basic, int] = {}

    def go(node: sympy.Basic, depth: int) -> int:
        if depth > 2 * MAX_DEPTH:
            raise DerivationError(f"the expression is nested more than {2 * MAX_DEPTH} levels deep.")
        if node not in memo:
            memo[node] = convert(node, depth)
        return memo[node]

    def convert(node: sympy.Basic, depth: int) -> int:
        if node.is_Symbol:
            return symbol(node)
        if node.is_Rational:
            return arena.number(Fraction(int(node.p), int(node.q)))
        if node.is_Float:
            return arena.number(Fraction(str(node)))
        if node is sympy.E:
            return arena.add("exp", arena.number(1))
        if node.is_Add or node.is_Mul:
            return arena.many("sum" if node.is_Add else "product", [go(part, depth + 1) for part in node.args])
        if isinstance(node, sympy.log | sympy.exp) and len(node.args) == 1:
            return arena.add("log" if isinstance(node, sympy.log) else "exp", go(node.args[0], depth + 1))
        if node.is_Pow and node.exp.is_Rational:
            return arena.power(go(node.base, depth + 1), Fraction(int(node.exp.p), int(node.exp.q)))
        if node.is_Pow:
            raise DerivationError(
                f"the expression has the power {node}. A common exponent is the beta of the link: leave it out."
            )
        raise DerivationError(
            f"the expression holds `{node}`, and a core equation consists of probabilities, numbers, + - * / ** and "
            "log. Give what stands inside the link."
        )

    def symbol(node: sympy.Symbol) -> int:
        if is_atom(node.name):
            return arena.add("atom", node.name)
        if node.name in arena.parameters:
            return arena.add("parameter", node.name)
        raise DerivationError(
            f"the symbol `{node.name}` is neither a probability (w, l, rw, rl, y1, ...) nor a constant (beta, gamma, "
            f"...).{did_you_mean(node.name.lower(), ('w', 'l', 'rw', 'rl', *arena.parameters))} "
            "Name further constants in `parameters`."
        )

    return go(expression, 0)
