"""The grammar of formulas; from loose to tight: iff, implies, or, xor, and, not."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

from ..._errors import did_you_mean
from ..._scan import Token, TokenStream, compile_pattern
from ..tables import is_atom
from ._formula import FALSE, TRUE, And, Atom, Formula, Iff, Implies, Not, Or, Xor

_DIGITS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")


@cache  # not at import: compiling takes milliseconds
def _pattern() -> re.Pattern[str]:
    return compile_pattern(
        name=r"[A-Za-z_][A-Za-z_0-9₀-₉]*",
        digit=r"[01](?![0-9])",
        sign=r"<->|<=>|->|=>|>>|&&|\|\||[&|~!^∧∨¬→↔⇒⇔⊕⊻⊤⊥()]",
    )


# Every spelling of a connective, and what it means.
_MEANING = {
    **dict.fromkeys(("&", "&&", "∧", "and"), "and"),
    **dict.fromkeys(("|", "||", "∨", "or"), "or"),
    **dict.fromkeys(("^", "⊕", "⊻", "xor"), "xor"),
    **dict.fromkeys(("->", "=>", ">>", "→", "⇒", "implies"), "implies"),
    **dict.fromkeys(("<->", "<=>", "↔", "⇔", "iff"), "iff"),
    **dict.fromkeys(("~", "!", "¬", "not"), "not"),
    **dict.fromkeys(("⊤", "1", "true"), "true"),
    **dict.fromkeys(("⊥", "0", "false"), "false"),
}
_LOOSEST_FIRST = ("iff", "implies", "or", "xor", "and")
_CHAINS: dict[str, Callable[[tuple[Formula, ...]], Formula]] = {"or": Or, "xor": Xor, "and": And}
_KNOWN = ("w", "l", "rw", "rl", "M", "R", "y1", "y2", "and", "or", "not", "implies", "xor", "iff", "true", "false")


def parse_formula(text: str | Formula) -> Formula:
    """Read a propositional formula; nothing is evaluated, and the formula is kept as written.

    Atoms are `w`, `l`, `rw`, `rl` (or `M(w)`, `M(l)`, `R(w)`, `R(l)`), copies such as `w2`, and `y1`, `y2`, ....
    Connectives, from tight to loose: not `~ ¬`, and `& ∧`, xor `^ ⊕`, or `| ∨`, implies `-> >> →`, iff `<-> ↔`, each
    also as a word. A chain of implications is read from the right. Unlike in Python, `>>` is loose: `w & l >> w` is
    `(w & l) >> w`.

    Args:
        text: The formula, at most 100 000 characters and 100 levels deep. A `Formula` is returned as it is.

    Raises:
        ParseError: The text is not in the grammar; the message points at the character.

    Example:
        >>> parse_formula("M(l) implies M(w) or not R(w)")
        M(l) → (M(w) ∨ ¬R(w))
        >>> parse_formula("M(l) -> -> M(w)")
        Traceback (most recent call last):
        ...
        prefalign._errors.ParseError: Malformed formula: expected an atom, `~` or `(`.
            M(l) -> -> M(w)
                    ^
    """
    if isinstance(text, Formula):
        return text
    stream = TokenStream(text, _pattern(), "formula")
    formula = _binary(stream, 0)
    if stream.peek.kind != "end":
        stream.fail("expected a connective, or the end")
    return formula


def _binary(stream: TokenStream, level: int) -> Formula:
    """A formula whose connectives are those of `level` or tighter."""
    with stream.nested():
        left = _unary(stream)
        # Precedence climbing: one frame per nesting instead of one per connective, so that 100 levels fit the stack.
        while (kind := _meaning(stream.peek)) in _LOOSEST_FIRST[level:]:
            place = _LOOSEST_FIRST.index(kind)
            if kind == "implies":
                stream.next()
                left = Implies(left, _binary(stream, place))
            elif kind == "iff":
                sign = stream.next()
                left = Iff(left, _binary(stream, place + 1))
                if _meaning(stream.peek) == "iff":
                    stream.fail(f"`{sign.text}` does not chain; say with parentheses which two are compared")
            else:
                parts = [left]
                while _meaning(stream.peek) == kind:
                    stream.next()
                    parts.append(_binary(stream, place + 1))
                left = _CHAINS[kind](tuple(parts))
        return left


def _unary(stream: TokenStream) -> Formula:
    token = stream.peek
    kind = _meaning(token)
    if kind == "not":
        with stream.nested():
            stream.next()
            return Not(_unary(stream))
    if kind in ("true", "false"):
        stream.next()
        return TRUE if kind == "true" else FALSE
    if stream.take("("):
        inside = _binary(stream, 0)
        stream.expect(")", "to close the parenthesis")
        return inside
    if token.kind == "name" and kind is None:
        return _atom(stream)
    stream.fail("expected an atom, `~` or `(`")


def _atom(stream: TokenStream) -> Formula:
    token = stream.next()
    if token.text in ("M", "R"):
        stream.expect("(", f"after `{token.text}`, as in `{token.text}(w)`")
        inner = stream.next()
        name = inner.text.translate(_DIGITS)
        if inner.kind != "name" or name.startswith("r") or not is_atom(name) or (token.text == "R" and name[0] == "y"):
            stream.fail(f"`{token.text}(...)` takes `w` or `l`, or a copy such as `w2`", inner)
        stream.expect(")", "to close the parenthesis")
        return Atom("r" + name if token.text == "R" else name)
    name = token.text.translate(_DIGITS)
    if not is_atom(name):
        hint = did_you_mean(token.text, _KNOWN).strip().removesuffix("?")
        known = f"(atoms: w, l, rw, rl, y1, y2, ...){'. ' + hint if hint else ''}"
        stream.fail(f"`{token.text[:60]}` is no atom {known}", token)
    return Atom(name)


def _meaning(token: Token) -> str | None:
    return _MEANING.get(token.text.lower()) if token.kind != "end" else None
