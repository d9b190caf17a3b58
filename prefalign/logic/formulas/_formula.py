"""Propositional formulas, kept as they were written.

SymPy's constructors evaluate (`Implies(A, A)` is `true` at once), so a formula here is a small tree of our own: it
prints as its author wrote it, and its meaning is its truth table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import TYPE_CHECKING

from ..._errors import SpecError
from ..tables import atom_key, atom_mask, canonical, full_mask
from ._table import check_atoms, text_table

if TYPE_CHECKING:
    import sympy


class Formula:
    """A propositional formula over the atoms w, l, rw, rl, ..., y1, y2, ... (abstract).

    Combine formulas with `~ & | ^ >>`; `==` compares them as written, `is_equivalent` by meaning. `str` prints unicode.

    Example:
        >>> f = parse_formula("M(l) -> M(w)")
        >>> f
        M(l) → M(w)
        >>> f.ascii, f.atoms
        ('M(l) -> M(w)', ('w', 'l'))
        >>> f.is_equivalent(parse_formula("~l | w"))
        True
    """

    @cached_property
    def atoms(self) -> tuple[str, ...]:
        """The atoms that occur, in the canonical order."""
        return canonical(self._names())

    def mask(self, atoms: Sequence[str] | None = None) -> int:
        """The truth table over `atoms` (default: those that occur): bit i is row i, row 0 is all true.

        Raises:
            SpecError: An atom of the formula is not among `atoms`.
        """
        order = self.atoms if atoms is None else canonical(atoms)
        missing = [atom for atom in self.atoms if atom not in order]
        if missing:
            raise SpecError(f"`atoms` must hold every atom of {self} (missing: {', '.join(missing)}).")
        return self._mask(
            {name: atom_mask(place, len(order)) for place, name in enumerate(order)}, full_mask(len(order))
        )

    def is_equivalent(self, other: Formula) -> bool:
        """Whether both formulas have the same truth table."""
        atoms = canonical((*self.atoms, *other.atoms))
        return self.mask(atoms) == other.mask(atoms)

    @property
    def unicode(self) -> str:
        """The formula with ¬ ∧ ∨ → ↔ ⊕, as `str` prints it."""
        return self._text("unicode")

    @property
    def ascii(self) -> str:
        """The formula with ~ & | -> <-> ^, readable by `parse_formula`."""
        return self._text("ascii")

    @property
    def latex(self) -> str:
        """The formula in LaTeX, without dollar signs."""
        return self._text("latex")

    def table(self, atoms: Sequence[str] | None = None) -> str:
        """The truth table as text, one line per row."""
        order = self.atoms if atoms is None else canonical(atoms)
        check_atoms(order)
        mask = self.mask(order)
        last = ["T" if mask >> row & 1 else "F" for row in range(1 << len(order))]
        return text_table([*(str(Atom(atom)) for atom in order), str(self)], last)

    def to_sympy(self) -> sympy.Basic:
        """The formula as a SymPy Boolean (which SymPy may simplify on the way)."""
        import sympy

        if isinstance(self, Atom):
            return sympy.Symbol(self.name)
        if isinstance(self, Constant):
            return sympy.true if self.value else sympy.false
        kinds = {And: "And", Or: "Or", Xor: "Xor", Not: "Not", Implies: "Implies", Iff: "Equivalent"}
        return getattr(sympy, kinds[type(self)])(*(part.to_sympy() for part in self.below))

    def _repr_latex_(self) -> str:
        return f"${self.latex}$"

    def __str__(self) -> str:
        return self.unicode

    def __repr__(self) -> str:
        return self.unicode

    def __and__(self, other: Formula) -> Formula:
        return And((self, other)) if isinstance(other, Formula) else NotImplemented

    def __or__(self, other: Formula) -> Formula:
        return Or((self, other)) if isinstance(other, Formula) else NotImplemented

    def __xor__(self, other: Formula) -> Formula:
        return Xor((self, other)) if isinstance(other, Formula) else NotImplemented

    def __rshift__(self, other: Formula) -> Formula:
        return Implies(self, other) if isinstance(other, Formula) else NotImplemented

    def __invert__(self) -> Formula:
        return Not(self)

    # What each kind of node says of itself.
    @property
    def below(self) -> tuple[Formula, ...]:
        """The formulas directly below this one."""
        raise AssertionError(f"{type(self).__name__} defines `below`")

    def _names(self) -> set[str]:
        return set().union(*(part._names() for part in self.below))

    def _mask(self, tables: dict[str, int], full: int) -> int:
        raise AssertionError(f"{type(self).__name__} defines `_mask`")

    def _text(self, style: str) -> str:
        raise AssertionError(f"{type(self).__name__} defines `_text`")


def _inside(part: Formula, style: str) -> str:
    """The text of a part, in parentheses if it has a connective: a reader need not know which binds tighter."""
    text = part._text(style)
    if not isinstance(part, _Chain | _Pair):
        return text
    return rf"\left({text}\right)" if style == "latex" else f"({text})"


_SIGNS = {
    "unicode": {"not": "¬", "and": " ∧ ", "or": " ∨ ", "xor": " ⊕ ", "implies": " → ", "iff": " ↔ "},
    "ascii": {"not": "~", "and": " & ", "or": " | ", "xor": " ^ ", "implies": " -> ", "iff": " <-> "},
    "latex": {
        "not": r"\neg ",
        "and": r" \land ",
        "or": r" \lor ",
        "xor": r" \oplus ",
        "implies": r" \rightarrow ",
        "iff": r" \leftrightarrow ",
    },
}
_CONSTANTS = {"unicode": ("⊥", "⊤"), "ascii": ("false", "true"), "latex": (r"\bot", r"\top")}
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


@dataclass(frozen=True, repr=False)
class Atom(Formula):
    """A proposition: M(w) is `Atom("w")`, R(l) is `Atom("rl")`; "the model deems y a valid generation"."""

    name: str

    def __post_init__(self) -> None:
        atom_key(self.name)

    @property
    def below(self) -> tuple[Formula, ...]:
        return ()

    def _names(self) -> set[str]:
        return {self.name}

    def _mask(self, tables: dict[str, int], full: int) -> int:
        return tables[self.name]

    def _text(self, style: str) -> str:
        model = "R" if self.name.startswith("r") else "M"
        answer = self.name.removeprefix("r")
        letter, number = answer[0], answer[1:]
        if style == "latex":
            answer = f"{letter}_{{{number}}}" if number else rf"y_{letter}"
            return answer if letter == "y" else rf"\mathrm{{{model}}}({answer})"
        if style == "unicode":
            answer = letter + number.translate(_SUBSCRIPTS)
        return answer if letter == "y" else f"{model}({answer})"


@dataclass(frozen=True, repr=False)
class Constant(Formula):
    """⊤ or ⊥."""

    value: bool

    @property
    def below(self) -> tuple[Formula, ...]:
        return ()

    def _names(self) -> set[str]:
        return set()

    def _mask(self, tables: dict[str, int], full: int) -> int:
        return full if self.value else 0

    def _text(self, style: str) -> str:
        return _CONSTANTS[style][self.value]


@dataclass(frozen=True, repr=False)
class Not(Formula):
    """¬ part."""

    part: Formula

    @property
    def below(self) -> tuple[Formula, ...]:
        return (self.part,)

    def _mask(self, tables: dict[str, int], full: int) -> int:
        return full ^ self.part._mask(tables, full)

    def _text(self, style: str) -> str:
        return _SIGNS[style]["not"] + _inside(self.part, style)


@dataclass(frozen=True, repr=False)
class _Chain(Formula):
    """Two or more parts joined by one connective (abstract); its kinds inherit its fields, `==` and hash."""

    parts: tuple[Formula, ...]

    @property
    def below(self) -> tuple[Formula, ...]:
        return self.parts

    def __post_init__(self) -> None:
        if len(self.parts) < 2:
            raise SpecError(f"`parts` of {type(self).__name__} must be at least two (got {len(self.parts)}).")

    def _text(self, style: str) -> str:
        sign = _SIGNS[style][type(self).__name__.lower()]
        return sign.join(_inside(part, style) for part in self.parts)


class And(_Chain):
    """part ∧ part ∧ ..."""

    def _mask(self, tables: dict[str, int], full: int) -> int:
        return reduce(lambda rows, part: rows & part._mask(tables, full), self.parts, full)


class Xor(_Chain):
    """part ⊕ part ⊕ ...: an odd number of parts is true."""

    def _mask(self, tables: dict[str, int], full: int) -> int:
        return reduce(lambda rows, part: rows ^ part._mask(tables, full), self.parts, 0)


class Or(_Chain):
    """part ∨ part ∨ ..."""

    def _mask(self, tables: dict[str, int], full: int) -> int:
        return reduce(lambda rows, part: rows | part._mask(tables, full), self.parts, 0)


@dataclass(frozen=True, repr=False)
class _Pair(Formula):
    """Two parts joined by a connective that does not chain (abstract); its kinds inherit its fields, `==` and hash."""

    left: Formula
    right: Formula

    @property
    def below(self) -> tuple[Formula, ...]:
        return (self.left, self.right)

    def _text(self, style: str) -> str:
        sign = _SIGNS[style][type(self).__name__.lower()]
        return sign.join(_inside(part, style) for part in self.below)


class Implies(_Pair):
    """left → right."""

    def _mask(self, tables: dict[str, int], full: int) -> int:
        return (full ^ self.left._mask(tables, full)) | self.right._mask(tables, full)


class Iff(_Pair):
    """left ↔ right."""

    def _mask(self, tables: dict[str, int], full: int) -> int:
        return full ^ self.left._mask(tables, full) ^ self.right._mask(tables, full)


TRUE = Constant(True)
FALSE = Constant(False)
