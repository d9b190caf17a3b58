"""Preference structures: which rows of the truth table speak for the loss's preference, and which against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING

from ..._errors import SpecError
from ..formulas import FALSE, MAX_SHOWN, TRUE, Atom, Formula, check_atoms, html_table, parse_formula, text_table
from ..tables import atom_mask, canonical, drop, full_mask, lift, pair_atoms, rename, support

if TYPE_CHECKING:
    import sympy

_SIGNS = {"v": (1, 0), "x": (0, 1), "b": (1, 1), "o": (0, 0), "✓": (1, 0), "✗": (0, 1)}
_SIDES = {"v": "✓", "x": "✗", "b": "both", "o": "–"}
_DEFAULT_ATOMS = {2: ("w",), 4: ("w", "l"), 16: ("w", "l", "rw", "rl")}
_SWAP = {"w": "l", "l": "w", "rw": "rl", "rl": "rw"}


@dataclass(frozen=True, eq=False, repr=False)
class PreferenceStructure:
    """A labelling of the truth-table rows with top ✓, bottom ✗, both or neither: the symbolic reading of a loss.

    ρ = log( WMC(P_f) / WMC(N_f) ),  P_f = (P ∨ P_A) ∧ P_C,  N_f = (¬P ∨ P_A) ∧ P_C

    Usually made by `derive`, `from_rows` or `from_formulas`. A structure is a value: two are equal when they mean the
    same, also where one names atoms that it does not depend on.

    Args:
        atoms: The propositions, in the canonical order w, l, rw, rl, copies, y1, y2, ... (at most 20).
        top_mask: The rows of P_f. Bit i (the lowest is i = 0) is row i, in the order TT, TF, FT, FF: the first atom
            varies slowest, and row 0 has every atom true.
        bottom_mask: The rows of N_f, likewise.

    Raises:
        SpecError: Atoms out of order, unknown or too many, or a mask with bits beyond the last row.

    Example:
        >>> s = PreferenceStructure.from_rows("ovxo")
        >>> s.P, s.P_C, s.P_A
        (M(l) → M(w), M(w) ⊕ M(l), ⊥)
        >>> s.ratio
        w*(1 - l)/(l*(1 - w))

    Source: Richardson, Srikumar, Sabharwal 2025, arXiv:2412.17696.
    """

    atoms: tuple[str, ...]
    top_mask: int
    bottom_mask: int
    written: tuple[Formula, Formula, Formula] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        atoms = tuple(self.atoms)
        if atoms != canonical(atoms):
            raise SpecError(f"`atoms` must be distinct and ordered {canonical(atoms)} (got {atoms}).")
        object.__setattr__(self, "atoms", atoms)
        for name in ("top_mask", "bottom_mask"):
            mask = getattr(self, name)
            if not isinstance(mask, int) or not 0 <= mask <= full_mask(len(atoms)):
                raise SpecError(f"`{name}` must be an int of at most {1 << len(atoms)} bits, one per row.")

    @classmethod
    def from_rows(cls, rows: str, atoms: Sequence[str] | None = None) -> PreferenceStructure:
        """Read a column: one letter per row, v (top ✓), x (bottom ✗), b (both) or o (neither).

        Args:
            rows: 2ⁿ letters in the order TT, TF, FT, FF of `atoms`.
            atoms: n atoms; default w, l for 4 rows, and w, l, rw, rl for 16. In another order than the canonical one,
                the rows are sorted.

        Raises:
            SpecError: A letter is unknown, or their number is not 2ⁿ.
        """
        if atoms is None:
            atoms = _DEFAULT_ATOMS.get(len(rows))
            if atoms is None:
                raise SpecError(f"`atoms` must be given for {len(rows)} rows; the default is for 2, 4 or 16.")
        if len(rows) != 1 << len(atoms):
            raise SpecError(f"`rows` must have {1 << len(atoms)} letters for {len(atoms)} atoms (got {len(rows)}).")
        bad = sorted(set(rows) - set(_SIGNS))
        if bad:
            raise SpecError(f"`rows` must consist of v, x, b and o (got {bad[0]!r} at row {rows.index(bad[0])}).")
        masks = [int("".join("1" if _SIGNS[letter][side] else "0" for letter in reversed(rows)), 2) for side in (0, 1)]
        given, order = tuple(atoms), canonical(atoms)
        if len(order) != len(given):
            raise SpecError(f"`atoms` must be distinct (got {given}).")
        if given != order:
            # The rows stand under the user's order; renaming place by place sorts them.
            stand_in = dict(zip(order, given, strict=True))
            masks = [rename(mask, order, stand_in)[1] for mask in masks]
        return cls(order, masks[0], masks[1])

    @classmethod
    def from_formulas(
        cls,
        P: str | Formula,
        given: str | Formula = TRUE,
        also: str | Formula = FALSE,
        *,
        atoms: Sequence[str] | None = None,
    ) -> PreferenceStructure:
        """The structure (P, P_C, P_A), which keeps the three formulas as written.

        Args:
            P: What the loss prefers.
            given: P_C, the condition under which rows count at all.
            also: P_A, what counts on both sides.
            atoms: Default: those that occur, and w and l; rw and rl too where one of them occurs.

        Raises:
            ParseError: A formula is not in the grammar.
            SpecError: A formula has an atom that `atoms` lacks.

        Example:
            >>> PreferenceStructure.from_formulas("M(l) -> M(w)", given="M(w) | M(l)", also="M(w) & M(l)").rows
            'bvxo'
        """
        written = (parse_formula(P), parse_formula(given), parse_formula(also))
        names = [name for part in written for name in part.atoms]
        order = pair_atoms(names) if atoms is None else canonical(atoms)
        core, condition, both = (part.mask(order) for part in written)
        top = (core | both) & condition
        bottom = ((full_mask(len(order)) ^ core) | both) & condition
        return cls(order, top, bottom, written=written)

    @property
    def rows(self) -> str:
        """The column, e.g. "ovxo" in the order TT, TF, FT, FF: v top, x bottom, b both, o neither."""
        count = 1 << len(self.atoms)
        top, bottom = (f"{mask:0{count}b}"[::-1] for mask in (self.top_mask, self.bottom_mask))
        letters = {("1", "0"): "v", ("0", "1"): "x", ("1", "1"): "b", ("0", "0"): "o"}
        return "".join(map(letters.__getitem__, zip(top, bottom, strict=True)))

    @cached_property
    def P(self) -> Formula:
        """What the loss prefers: as written, or else the authors' form B → T, simplified."""
        if self.written is not None:
            return self.written[0]
        from ..formulas import implication

        return implication(self.bottom_mask, self.top_mask, self.atoms)

    @cached_property
    def P_C(self) -> Formula:
        """The condition under which a row counts at all: as written, or T ∨ B simplified."""
        if self.written is not None:
            return self.written[1]
        return self._readable(self.top_mask | self.bottom_mask)

    @cached_property
    def P_A(self) -> Formula:
        """What counts on both sides: as written, or T ∧ B simplified."""
        if self.written is not None:
            return self.written[2]
        return self._readable(self.top_mask & self.bottom_mask)

    @cached_property
    def shortest_P(self) -> Formula:
        """The shortest formula that can stand for P: rows on both sides or on neither are free.

        Example:
            >>> PreferenceStructure.from_rows("ovxo").shortest_P
            M(w)
        """
        free = full_mask(len(self.atoms)) ^ self.top_mask ^ self.bottom_mask
        return self._readable(self.top_mask & ~self.bottom_mask, free)

    @cached_property
    def P_f(self) -> Formula:
        """The formula form (P ∨ P_A) ∧ P_C: the rows on top."""
        return self._readable(self.top_mask)

    @cached_property
    def N_f(self) -> Formula:
        """The negation form (¬P ∨ P_A) ∧ P_C: the rows on the bottom."""
        return self._readable(self.bottom_mask)

    def _readable(self, mask: int, free: int = 0) -> Formula:
        from ..formulas import shortest_formula

        return shortest_formula(mask, self.atoms, free)

    @cached_property
    def top(self) -> sympy.Expr:
        """WMC(P_f) as a disjoint polynomial in w, l, rw, rl, ..."""
        from ..polynomials import polynomial

        return polynomial(self.top_mask, self.atoms)

    @cached_property
    def bottom(self) -> sympy.Expr:
        """WMC(N_f) as a disjoint polynomial in w, l, rw, rl, ..."""
        from ..polynomials import polynomial

        return polynomial(self.bottom_mask, self.atoms)

    @cached_property
    def ratio(self) -> sympy.Expr:
        """top / bottom; ρ is its logarithm, in nats. A common factor is kept: it is part of the structure.

        Raises:
            SpecError: No row is on the bottom, so that the ratio is infinite.
        """
        from ..polynomials import quotient

        if not self.bottom_mask:
            raise SpecError("`ratio` needs a row on the bottom: N_f of this structure is unsatisfiable.")
        return quotient(self.top, self.bottom)

    @property
    def is_degenerate(self) -> bool:
        """Whether P_f or N_f is unsatisfiable, so that ρ is infinite or undefined."""
        return not (self.top_mask and self.bottom_mask)

    @property
    def needs_reference(self) -> bool:
        """Whether the structure depends on R(w) or R(l)."""
        return any(atom.startswith("r") for atom in self.reduced.atoms)

    @cached_property
    def reduced(self) -> PreferenceStructure:
        """The same structure over only those atoms that it depends on."""
        used = {*support(self.top_mask, self.atoms), *support(self.bottom_mask, self.atoms)}
        onto = tuple(atom for atom in self.atoms if atom in used)
        if onto == self.atoms:
            return self
        top, bottom = (drop(mask, self.atoms, onto) for mask in (self.top_mask, self.bottom_mask))
        return PreferenceStructure(onto, top, bottom, written=self.written)

    def over(self, atoms: Sequence[str]) -> PreferenceStructure:
        """The same structure over more atoms.

        Raises:
            SpecError: `atoms` lacks one that the structure has.
        """
        onto = canonical(atoms)
        if onto == self.atoms:
            return self
        missing = [atom for atom in self.atoms if atom not in onto]
        if missing:
            raise SpecError(f"`atoms` must hold the structure's own (missing: {', '.join(missing)}).")
        top, bottom = (lift(mask, self.atoms, onto) for mask in (self.top_mask, self.bottom_mask))
        return PreferenceStructure(onto, top, bottom, written=self.written)

    def negated(self) -> PreferenceStructure:
        """Top and bottom exchanged: ρ becomes -ρ."""
        return PreferenceStructure(self.atoms, self.bottom_mask, self.top_mask)

    def swapped(self) -> PreferenceStructure:
        """The structure on the swapped pair: w and l exchanged, and rw and rl (and their copies).

        Example:
            >>> PreferenceStructure.from_rows("bvxo").swapped().rows  # CPO's is its own negation
            'bxvo'
        """
        partners = {
            atom: _SWAP[atom.rstrip("0123456789")] + atom.lstrip("wlr") for atom in self.atoms if atom[0] != "y"
        }
        atoms = canonical((*self.atoms, *partners.values()))
        wide = self.over(atoms)
        names = {atom: partners.get(atom, atom) for atom in self.atoms} | {new: old for old, new in partners.items()}
        top, bottom = (rename(mask, atoms, names)[1] for mask in (wide.top_mask, wide.bottom_mask))
        return PreferenceStructure(atoms, top, bottom)

    def with_reference(self) -> PreferenceStructure:
        """The reference form ρ + log rl - log rw: top ∧ R(l), bottom ∧ R(w).

        Raises:
            SpecError: The structure has R(w) or R(l) already.

        Example:
            >>> PreferenceStructure.from_rows("bvxo").with_reference().ratio  # CPO with a reference is DPO
            rl*w/(l*rw)
        """
        if "rw" in self.atoms or "rl" in self.atoms:
            raise SpecError("`with_reference` needs a structure without R(w) and R(l); this one has them already.")
        wide = self.over((*self.atoms, "rw", "rl"))
        count = len(wide.atoms)
        chosen, rejected = (atom_mask(wide.atoms.index(name), count) for name in ("rw", "rl"))
        return PreferenceStructure(wide.atoms, wide.top_mask & rejected, wide.bottom_mask & chosen)

    def without_reference(self) -> PreferenceStructure:
        """The structure whose reference form this is.

        Raises:
            SpecError: This is no reference form.
        """
        if "rw" in self.atoms and "rl" in self.atoms:
            onto = tuple(atom for atom in self.atoms if atom not in ("rw", "rl"))
            top, bottom = (drop(mask, self.atoms, onto) for mask in (self.top_mask, self.bottom_mask))
            plain = PreferenceStructure(onto, top, bottom)
            if plain.with_reference() == self:
                return plain
        raise SpecError("`without_reference` needs a reference form, top ∧ R(l) over bottom ∧ R(w); this is none.")

    def table(self) -> str:
        """The truth table as text: a row is on top ✓, on the bottom ✗, on both sides, or on neither –.

        Example:
            >>> print(PreferenceStructure.from_rows("bvxo").table())
            M(w)  M(l)  side
            ────  ────  ────
            T     T     both
            T     F     ✓
            F     T     ✗
            F     F     –
        """
        return text_table(*self._cells())

    def _repr_html_(self) -> str:
        parts = [f"<p>{name} = {escape(str(getattr(self, name)))}</p>" for name in ("P", "P_C", "P_A")]
        return "\n".join([*parts, *([html_table(*self._cells())] if len(self.atoms) <= MAX_SHOWN else [])])

    def _cells(self) -> tuple[list[str], list[str]]:
        check_atoms(self.atoms)
        return [*(str(Atom(atom)) for atom in self.atoms), "side"], [_SIDES[letter] for letter in self.rows]

    def _repr_latex_(self) -> str:
        return rf"$P = {self.P.latex},\quad P_C = {self.P_C.latex},\quad P_A = {self.P_A.latex}$"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PreferenceStructure):
            return NotImplemented
        a, b = (self, other) if self.atoms == other.atoms else (self.reduced, other.reduced)
        return (a.atoms, a.top_mask, a.bottom_mask) == (b.atoms, b.top_mask, b.bottom_mask)

    @cached_property
    def _hash(self) -> int:
        small = self.reduced
        return hash((small.atoms, small.top_mask, small.bottom_mask))

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        if len(self.atoms) > 6:
            return f"<PreferenceStructure over {len(self.atoms)} atoms {self.atoms[0]} … {self.atoms[-1]}>"
        return f"<PreferenceStructure {self.rows}: P = {self.P}, P_C = {self.P_C}, P_A = {self.P_A}>"


def aligned(a: PreferenceStructure, b: PreferenceStructure) -> tuple[PreferenceStructure, PreferenceStructure]:
    """Both over the same atoms."""
    if a.atoms == b.atoms:
        return a, b
    atoms = canonical((*a.atoms, *b.atoms))
    return a.over(atoms), b.over(atoms)
