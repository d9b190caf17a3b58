"""Specifications as text: `between cpo and unCPO; monotone; max literals 6`. Parsed, never evaluated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ...._errors import ParseError, did_you_mean
from ...._scan import TokenStream, compile_pattern
from ...named import catalogue, is_column
from ...tables import is_atom
from ._spec import Spec, Specification

_PATTERN = compile_pattern(
    name=r"[A-Za-z_][A-Za-z0-9_]*(?:-[A-Za-z][A-Za-z0-9]*)*",
    number=r"[0-9]+",
    quoted=r"'[^'\n]*'|\"[^\"\n]*\"",
    sign=r"<->|<=>|->|=>|>>|&&|\|\||[;,()=+\-*&|~^!/∧∨¬→↔⇒⇔⊕⊻⊤⊥]",
)


@dataclass(frozen=True)
class _Node:
    """A clause with the arguments of `Spec` that it sets, or a combination of nodes."""

    kind: Literal["clause", "all", "any", "not"]
    parts: tuple[_Node, ...] = ()
    arguments: tuple[tuple[str, Any], ...] = ()


class _Reader:
    """One text: its tokens, and what it says of the whole (atoms, reference, distinct)."""

    def __init__(self, text: str) -> None:
        self.stream = TokenStream(text, _PATTERN, "specification")
        self.whole: dict[str, Any] = {}

    def any_of(self) -> _Node:
        with self.stream.nested():
            parts = [self.all_of()]
            while self._word("or"):
                parts.append(self.all_of())
            return parts[0] if len(parts) == 1 else _Node("any", tuple(parts))

    def all_of(self) -> _Node:
        parts = [self.unit()]
        while self.stream.take(";") or self._word("and"):
            if self.stream.peek.kind == "end" or self.stream.peek.text == ")":
                break  # a semicolon may also end the text
            parts.append(self.unit())
        return parts[0] if len(parts) == 1 else _Node("all", tuple(parts))

    def unit(self) -> _Node:
        if self._word("not"):
            with self.stream.nested():
                return _Node("not", (self.unit(),))
        if self.stream.take("("):
            inner = self.any_of()
            self.stream.expect(")", "to close the parenthesis")
            return inner
        token = self.stream.next()
        word = token.text.lower()
        if word not in _CLAUSES:
            hint = did_you_mean(word, _CLAUSES)
            self.stream.fail(f"expected a clause (one of {', '.join(_CLAUSES)}){hint and '.' + hint[:-1]}", token)
        arguments = _CLAUSES[word](self)
        for name in ("atoms", "reference", "distinct"):
            if name in arguments:
                if name in self.whole:
                    self.stream.fail(f"`{word}` is said of the whole and stands twice", token)
                self.whole[name] = arguments.pop(name)
        return _Node("clause", arguments=tuple(arguments.items()))

    # ---------------------------------------------------------------------------------------------- what clauses need

    def _word(self, *words: str) -> bool:
        if self.stream.peek.kind == "name" and self.stream.peek.text.lower() in words:
            self.stream.next()
            return True
        return False

    def must(self, word: str) -> None:
        if not self._word(word):
            self.stream.fail(f"expected `{word}`")

    def choice(self, *words: str) -> str | None:
        text = self.stream.peek.text.lower()
        return text if self._word(*words) else None

    def loss(self) -> str:
        token = self.stream.next()
        if token.kind == "quoted":
            return token.text[1:-1]
        if token.kind == "name" and (token.text in catalogue or is_column(token.text)):
            return token.text
        known = {name.lower() for name in catalogue}
        hint = did_you_mean(token.text.lower(), known)
        self.stream.fail(
            f"expected a loss's name, a column such as ovxo, or an equation in quotes{hint and '.' + hint[:-1]}", token
        )

    def atoms(self) -> tuple[str, ...]:
        found = []
        while True:
            token = self.stream.next()
            if not is_atom(token.text):
                self.stream.fail("expected an atom: w, l, rw, rl, y1, y2, ...", token)
            found.append(token.text)
            self.stream.take(",")
            if not is_atom(self.stream.peek.text):
                return tuple(found)

    def directions(self) -> bool | str | dict[str, int]:
        if self._word("ratio"):
            return "ratio"
        found: dict[str, int] = {}
        while is_atom(self.stream.peek.text):
            atom = self.stream.next().text
            sign = self.stream.take("+", "-")
            if sign is None:
                self.stream.fail("expected `+` (rising) or `-` (falling) after the atom")
            found[atom] = 1 if sign.text == "+" else -1
            self.stream.take(",")
        return found or True

    def rows(self) -> dict[str, str]:
        found: dict[str, str] = {}
        while True:
            row, start = "", self.stream.peek
            while self.stream.peek.text != "=":
                token = self.stream.next()
                if set(token.text) - set("TF*") or token.kind == "end":
                    self.stream.fail("expected a row of T, F and *, then `=`", token)
                row += token.text
            self.stream.next()
            labels = self.stream.next()
            if labels.kind != "name" or set(labels.text) - set("vxbo"):
                self.stream.fail("expected the allowed labels: one or more of v, x, b, o", labels)
            if row in found:
                self.stream.fail(f"row {row} stands twice", start)
            found[row] = labels.text
            if not self.stream.take(","):
                return found

    def formula(self) -> str:
        """The text up to `;`, the end, or a parenthesis that closes what was opened before."""
        start, depth, end = self.stream.peek.start, 0, self.stream.peek.start
        while self.stream.peek.kind != "end" and self.stream.peek.text != ";":
            if self.stream.peek.text == ")" and not depth:
                break
            token = self.stream.next()
            depth += (token.text == "(") - (token.text == ")")
            end = token.start + len(token.text)
        if end == start:
            self.stream.fail("expected a formula after `forall`")
        return self._checked(self.stream.text[start:end], start)

    def _checked(self, formula: str, start: int) -> str:
        from ._clauses import with_sides

        try:
            with_sides(formula)
        except ParseError as error:
            message = str(error).partition("\n")[0]
            raise ParseError(message, self.stream.text, start + error.position) from None
        return formula

    def number(self) -> int:
        token = self.stream.next()
        if token.kind != "number" or len(token.text) > 6:
            self.stream.fail("expected a whole number", token)
        return int(token.text)


def _between(reader: _Reader) -> dict[str, Any]:
    low = reader.loss()
    reader.must("and")
    return {"between": (low, reader.loss())}


def _max_literals(reader: _Reader) -> dict[str, Any]:
    reader.must("literals")
    return {"max_literals": reader.number()}


def _survives(reader: _Reader) -> dict[str, Any]:
    reader.must("sum")
    return {"survives_sum": reader.choice("contrast") or True}


def _displacement(reader: _Reader) -> dict[str, Any]:
    reader.must("displacement")
    return {"no_displacement": reader.choice("joint") or True}


def _symmetric(reader: _Reader) -> dict[str, Any]:
    return {"symmetric": reader.choice("swap", "rejected") or reader.stream.fail("expected `swap` or `rejected`")}


def _distinct(reader: _Reader) -> dict[str, Any]:
    kind = reader.choice("ratio", "structure", "ratios", "structures")
    return {"distinct": kind.rstrip("s") if kind else reader.stream.fail("expected `ratio` or `structure`")}


_CLAUSES: dict[str, Callable[[_Reader], dict[str, Any]]] = {
    "atoms": lambda reader: {"atoms": reader.atoms()},
    "anything": lambda _: {},
    "between": _between,
    "above": lambda reader: {"above": reader.loss()},
    "below": lambda reader: {"below": reader.loss()},
    "monotone": lambda reader: {"monotone": reader.directions()},
    "symmetric": _symmetric,
    "row": lambda reader: {"rows": reader.rows()},
    "rows": lambda reader: {"rows": reader.rows()},
    "forall": lambda reader: {"forall": reader.formula()},
    "conditional": lambda _: {"conditional": True},
    "reference": lambda _: {"reference": True},
    "max": _max_literals,
    "max_literals": lambda reader: {"max_literals": reader.number()},
    "survives": _survives,
    "survives_sum": lambda reader: {"survives_sum": reader.choice("contrast") or True},
    "no": _displacement,
    "no_displacement": lambda reader: {"no_displacement": reader.choice("joint") or True},
    "satisfiable": lambda _: {"satisfiable": True},
    "nontrivial": lambda _: {"nontrivial": True},
    "nonconstant": lambda _: {"nonconstant": True},
    "distinct": _distinct,
}


def parse_spec(text: str) -> Specification:
    """Read a specification: clauses joined by `;` or `and`, by `or`, with `not` and parentheses.

    The clauses are the arguments of `Spec`: `atoms w, l, rw, rl`, `between A and B`, `above A`, `below A`, `monotone`,
    `monotone w+ l-`, `monotone ratio`, `symmetric swap`, `rows TF = v, F* = xo`, `forall top >> M(w)`,
    `conditional`, `reference`, `max literals 6`, `survives sum`, `survives sum contrast`, `no displacement`,
    `no displacement joint`, `satisfiable`, `nontrivial`, `nonconstant`, `distinct ratio`. A loss is a name of the
    catalogue, a column such as `ovxo`, or an equation in quotes.

    Raises:
        ParseError: The text is not in the grammar; the message points at the character.
        SpecError: Its parts contradict each other.

    Example:
        >>> spec = parse_spec("between cpo and unCPO; monotone; max literals 4")
        >>> count(spec)
        3
        >>> parse_spec("between cpo and unCPU")
        Traceback (most recent call last):
        ...
        prefalign._errors.ParseError: Malformed specification: expected a loss's name, a column such as ovxo, or an \
equation in quotes. Did you mean `uncpo`.
            between cpo and unCPU
                            ^
    """
    reader = _Reader(text)
    node = reader.any_of()
    if reader.stream.peek.kind != "end":
        reader.stream.fail("expected `;`, `and`, `or`, or the end")
    return _build(node, reader.whole)


def _build(node: _Node, whole: dict[str, Any]) -> Specification:
    """The object that a node stands for; `whole` holds what is said of all parts."""
    plain = {name: value for name, value in whole.items() if name != "distinct"}
    if node.kind == "not":
        built = ~_build(node.parts[0], plain)
    elif node.kind == "any":
        built = _build(node.parts[0], plain)
        for part in node.parts[1:]:
            built = built | _build(part, plain)
    else:
        built = _conjunction(node, plain)
    return built & Spec(**whole) if "distinct" in whole else built


def _conjunction(node: _Node, plain: dict[str, Any]) -> Specification:
    """Clauses of a conjunction become one Spec as long as none is said twice."""
    specs: list[Specification] = []
    arguments: dict[str, Any] = {}
    for part in (node,) if node.kind == "clause" else node.parts:
        if part.kind != "clause":
            specs.append(_build(part, plain))
            continue
        for name, value in part.arguments:
            if name in arguments:
                specs.append(Spec(**plain, **arguments))
                arguments = {}
            arguments[name] = value
    if arguments or not specs:
        specs.append(Spec(**plain, **arguments))
    built = specs[0]
    for spec in specs[1:]:
        built = built & spec
    return built
