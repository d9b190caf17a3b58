"""Specifications as text: `between cpo and unCPO; monotone; max literals 6`, read into the mapping of YAML."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...._errors import ParseError, did_you_mean
from ...._scan import TokenStream, compile_pattern
from ...named import catalogue, is_column
from ...tables import is_atom

_PATTERN = compile_pattern(
    name=r"[A-Za-z_][A-Za-z0-9_]*(?:-[A-Za-z][A-Za-z0-9]*)*",
    number=r"[0-9]+",
    quoted=r"'[^'\n]*'|\"[^\"\n]*\"",
    sign=r"<->|<=>|->|=>|>>|&&|\|\||[;,()=+\-*&|~^!/∧∨¬→↔⇒⇔⊕⊻⊤⊥]",
)


class _Reader:
    """One text: its tokens, and what it says of the whole (atoms, reference, distinct)."""

    def __init__(self, text: str) -> None:
        self.stream = TokenStream(text, _PATTERN, "specification")
        self.whole: dict[str, Any] = {}

    def any_of(self) -> dict[str, Any]:
        with self.stream.nested():
            parts = [self.all_of()]
            while self._word("or"):
                parts.append(self.all_of())
            return parts[0] if len(parts) == 1 else {"any": parts}

    def all_of(self) -> dict[str, Any]:
        parts = [self.unit()]
        while self.stream.take(";") or self._word("and"):
            if self.stream.peek.kind == "end" or self.stream.peek.text == ")":
                break  # a semicolon may also end the text
            parts.append(self.unit())
        joined: dict[str, Any] = {}
        before = []
        for part in parts:
            if joined.keys() & part.keys():  # a mapping says nothing twice
                before.append(joined)
                joined = {}
            joined = {**joined, **part}
        return {**joined, "all": [*before, *joined.get("all", ())]} if before else joined

    def unit(self) -> dict[str, Any]:
        if self._word("not"):
            with self.stream.nested():
                return {"not": self.unit()}
        if self.stream.take("("):
            inner = self.any_of()
            self.stream.expect(")", "to close the parenthesis")
            return inner
        token = self.stream.next()
        word = token.text.lower()
        if word not in _CLAUSES:
            hint = did_you_mean(word, _CLAUSES)
            self.stream.fail(f"expected a clause (one of {', '.join(_CLAUSES)}){hint and '.' + hint}", token)
        arguments = _CLAUSES[word](self)
        for name in ("atoms", "reference", "distinct"):
            if name in arguments:
                if name in self.whole:
                    self.stream.fail(f"`{word}` is said of the whole and stands twice", token)
                self.whole[name] = arguments.pop(name)
        return arguments

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
            f"expected a loss's name, a column such as ovxo, or an equation in quotes{hint and '.' + hint}", token
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


def _bounded(reader: _Reader) -> dict[str, Any]:
    kind = reader.choice("loss", "gradient") or reader.stream.fail("expected `loss` or `gradient`")
    return {f"bounded_{kind}": True}


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
    "bounded": _bounded,
    "bounded_loss": lambda _: {"bounded_loss": True},
    "bounded_gradient": lambda _: {"bounded_gradient": True},
    "distinct": _distinct,
}


def read_clauses(text: str) -> dict[str, Any]:
    """The mapping that a text stands for, as YAML would give it; see `parse_spec` for the language.

    Raises:
        ParseError: The text is not in the grammar; the message points at the character.

    Example:
        >>> read_clauses("between cpo and unCPO; not (conditional or max literals 4)")
        {'between': ('cpo', 'unCPO'), 'not': {'any': [{'conditional': True}, {'max_literals': 4}]}}
    """
    reader = _Reader(text)
    clauses = reader.any_of()
    if reader.stream.peek.kind != "end":
        reader.stream.fail("expected `;`, `and`, `or`, or the end")
    return {**reader.whole, **clauses}
