"""Specifications: what a loss should be like, said in logic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import combinations
from typing import Any, Literal

from ...._errors import SpecError
from ...formulas import Formula
from ...named import Readable, as_structure, catalogue
from ...tables import canonical
from ..sets import LABELS, AllOf, AnyOf, Condition, InRegion, Not, Region, conjuncts, expand
from ._clauses import literal_part, monotone_part, quality_parts, region_parts, row_parts, symmetric_part

Distinct = Literal["structure", "ratio"]


class Specification:
    """A set of structures over given atoms (abstract): combine with `&`, `|`, `~`; test with `in`."""

    #: The propositions that the structures are over.
    atoms: tuple[str, ...]
    #: What counts as different: the structure itself, or its ratio (losses that are the same function).
    distinct: Distinct

    @property
    def condition(self) -> Condition:
        """What a structure must satisfy."""
        raise AssertionError(f"{type(self).__name__} defines `condition`")

    @cached_property
    def terms(self) -> dict[Region, int] | None:
        """The condition as a sum of regions, which are counted without listing; None if it has no such form."""
        return expand(self.condition, self.atoms)

    def __contains__(self, given: Readable) -> bool:
        structure = as_structure(given, "structure")
        if any(atom not in self.atoms for atom in structure.reduced.atoms):
            return False
        wide = structure.reduced.over(self.atoms)
        return bool(self.condition.contains(wide.top_mask, wide.bottom_mask))

    def why(self, given: Readable) -> str:
        """Which parts of the specification a structure does not satisfy, with the row where a row decides.

        Example:
            >>> print(Spec(above="ccpo", monotone=True, rows={"FF": "v"}).why("cpo"))
            CPO does not satisfy `above ccpo` (row TT is b, and may be v); `row FF = v` (row FF is o, and may be v).
        """
        structure = as_structure(given, "structure").reduced
        name = catalogue.name_of(structure) or (given if isinstance(given, str) else str(structure.P))
        missing = [atom for atom in structure.atoms if atom not in self.atoms]
        if missing:
            return f"{name} depends on {missing[0]}, which is not among the atoms {', '.join(self.atoms)}."
        wide = structure.over(self.atoms)
        top, bottom = wide.top_mask, wide.bottom_mask
        failed = [part for part in conjuncts(self.condition) if not part.contains(top, bottom)]
        if not failed:
            return f"{name} satisfies it."
        parts = (f"`{part.said()}`{_where(part, self.atoms, top, bottom)}" for part in failed)
        return f"{name} does not satisfy {'; '.join(parts)}."

    def __and__(self, other: Specification) -> Specification:
        return _combine("all", (self, other)) if isinstance(other, Specification) else NotImplemented

    def __or__(self, other: Specification) -> Specification:
        return _combine("any", (self, other)) if isinstance(other, Specification) else NotImplemented

    def __invert__(self) -> Specification:
        return _combine("not", (self,))

    def __eq__(self, other: object) -> bool:
        return str(self).lower() == str(other).lower() if isinstance(other, Specification) else NotImplemented

    def __hash__(self) -> int:
        return hash(str(self).lower())  # cpo is CPO

    def __str__(self) -> str:
        ending = "; distinct ratio" if self.distinct == "ratio" else ""
        return f"atoms {', '.join(self.atoms)}; {self.condition.said()}{ending}"


@dataclass(frozen=True, eq=False, repr=False)
class Spec(Specification):
    """What a loss should be like; all that is said must hold.

    Without arguments: all 4**(2**n) structures, also those with an unsatisfiable part, whose ratio is 0, ∞ or 0/0.

    Args:
        atoms: The propositions; default w, l, with `reference` also rw, rl. More are allowed (copies, y1, y2, ...).
        between: Two losses (a, b): a entails the structure, and the structure entails b.
        above: A loss that entails it, so that its loss is at most that one's (under a decreasing link).
        below: A loss that it entails.
        monotone: True: P_f rises in the chosen propositions (w, rl, y1), falls in the others, and N_f the other way
            (the ratio then does too). A dict such as {"w": +1, "l": -1} says so for some propositions only. "ratio":
            only the ratio itself does, as a function on the cube, without being constant in the model's probabilities.
        symmetric: "swap": exchanging chosen and rejected exchanges top and bottom, so that a flipped label flips the
            sign of ρ. "rejected": exchanging any of y2, y3, ... changes nothing.
        rows: Allowed labels per row, e.g. {"TF": "v", "FF": "vo"}; T and F in the order of the atoms, "*" for either.
        forall: A formula that holds in every row; `top` and `bottom` stand in it for "the row is in P_f", "in N_f".
            One that mentions neither must hold in every row that counts (on top or on the bottom).
        conditional: No row is on both sides.
        reference: Add the reference's propositions; losses that are named without a reference then stand for their
            reference forms (top ∧ R(l), bottom ∧ R(w)).
        max_literals: Most literals in the shortest P, P_C and P_A together (an exclusive or has four).
        survives_sum: A gradient is left at summed log-probabilities (near -500 nats); "contrast" asks for one that
            raises the chosen and lowers the rejected answer.
        no_displacement: The chosen probability cannot fall while the loss falls. That is strict (the ratio may depend
            on no other probability); "joint" asks it only where all of the model's probabilities fall together.
        satisfiable: Top and bottom are both satisfiable (the ratio is neither 0 nor ∞).
        nontrivial: Besides, they differ (the ratio is not 1).
        nonconstant: Neither top nor bottom is a constant.
        bounded_loss: No row is on the bottom alone: no pair's loss exceeds a constant (under a decreasing link).
        bounded_gradient: ∂ρ/∂log p is bounded, for each of the model's probabilities p and whatever the others are, so
            that no pair can dominate a step (under a link of bounded slope); at most four propositions.
        distinct: "structure", or "ratio": one structure, the simplest, for each ratio.

    Raises:
        SpecError: An argument is malformed, or two parts contradict each other; the message names them.
        DerivationError: A name or an equation has no single structure.

    Example:
        >>> spec = Spec(between=("cpo", "unCPO"))
        >>> count(spec), [s.rows for s in generate(spec)]
        (4, ['vvxv', 'vvxo', 'bvxv', 'bvxo'])
        >>> Spec(above="unCPO", rows={"TF": "x"})
        Traceback (most recent call last):
        ...
        prefalign._errors.SpecError: `above unCPO` and `row TF = x` contradict each other: no label is left for row TF.
    """

    atoms: tuple[str, ...] = ()
    between: tuple[Readable, Readable] | None = field(default=None, kw_only=True)
    above: Readable | None = field(default=None, kw_only=True)
    below: Readable | None = field(default=None, kw_only=True)
    monotone: bool | Mapping[str, int] | Literal["ratio"] = field(default=False, kw_only=True)
    symmetric: Literal["swap", "rejected"] | None = field(default=None, kw_only=True)
    rows: Mapping[str, str] | None = field(default=None, kw_only=True)
    forall: str | Formula | None = field(default=None, kw_only=True)
    conditional: bool = field(default=False, kw_only=True)
    reference: bool = field(default=False, kw_only=True)
    max_literals: int | None = field(default=None, kw_only=True)
    survives_sum: bool | Literal["contrast"] = field(default=False, kw_only=True)
    no_displacement: bool | Literal["joint"] = field(default=False, kw_only=True)
    satisfiable: bool = field(default=False, kw_only=True)
    nontrivial: bool = field(default=False, kw_only=True)
    nonconstant: bool = field(default=False, kw_only=True)
    bounded_loss: bool = field(default=False, kw_only=True)
    bounded_gradient: bool = field(default=False, kw_only=True)
    distinct: Distinct = field(default="structure", kw_only=True)

    def __post_init__(self) -> None:
        given = tuple(self.atoms)
        twice = next((atom for atom in given if given.count(atom) > 1), None)
        if twice is not None:
            raise SpecError(f"`atoms` must be different propositions ({twice} is there twice).")
        chosen = (*(given or ("w", "l")), *(("rw", "rl") if self.reference else ()))
        object.__setattr__(self, "atoms", canonical(chosen))
        if self.distinct not in ("structure", "ratio"):
            raise SpecError(f"`distinct` must be 'structure' or 'ratio' (got {self.distinct!r}).")
        named = (
            "conditional",
            "reference",
            "satisfiable",
            "nontrivial",
            "nonconstant",
            "bounded_loss",
            "bounded_gradient",
        )
        for name in named:
            if not isinstance(getattr(self, name), bool):
                raise SpecError(f"`{name}` must be True or False (got {getattr(self, name)!r}).")
        check_consistent(self.condition, self.atoms)

    @cached_property
    def condition(self) -> Condition:
        atoms = self.atoms
        parts: list[Condition] = [
            *region_parts(atoms, self.between, self.above, self.below, reference=self.reference),
            *row_parts(atoms, self.rows, self.forall, conditional=self.conditional),
            *monotone_part(atoms, self.monotone),
            *symmetric_part(atoms, self.symmetric),
            *quality_parts(
                atoms,
                satisfiable=self.satisfiable,
                nontrivial=self.nontrivial,
                nonconstant=self.nonconstant,
                survives_sum=self.survives_sum,
                no_displacement=self.no_displacement,
                bounded_loss=self.bounded_loss,
                bounded_gradient=self.bounded_gradient,
            ),
            *literal_part(atoms, self.max_literals),
        ]
        return AllOf(tuple(parts))

    def __repr__(self) -> str:
        shown = [f"{item.name}={getattr(self, item.name)!r}" for item in fields(self) if self._is_set(item)]
        return f"Spec({', '.join(shown)})"

    def _is_set(self, item: Any) -> bool:
        value = getattr(self, item.name)
        return item.name == "atoms" or (value is not item.default and value != item.default)


@dataclass(frozen=True, eq=False)
class Combined(Specification):
    """Specifications joined by `&`, `|` or `~`."""

    atoms: tuple[str, ...]
    joined: Condition
    distinct: Distinct = "structure"

    def __post_init__(self) -> None:
        check_consistent(self.joined, self.atoms)

    @property
    def condition(self) -> Condition:
        return self.joined

    def __repr__(self) -> str:
        return f"<Specification {self}>"


def _where(part: Condition, atoms: tuple[str, ...], top: int, bottom: int) -> str:
    """The first row that has another label than a region allows."""
    if not isinstance(part, InRegion):
        return ""
    region = part.region
    for row in range(1 << len(atoms)):
        allowed = [label for label in "vxob" if getattr(region, label) >> row & 1]
        label = next(k for k, values in LABELS.items() if values == (bool(top >> row & 1), bool(bottom >> row & 1)))
        if label not in allowed:
            return f" (row {row_name(row, atoms)} is {label}, and may be {', '.join(allowed)})"
    return ""


def _combine(kind: Literal["all", "any", "not"], specs: tuple[Specification, ...]) -> Specification:
    atoms = specs[0].atoms
    for spec in specs:
        if spec.atoms != atoms:
            raise SpecError(f"specifications can be combined over the same atoms only (got {atoms} and {spec.atoms}).")
    distinct: set[Distinct] = {spec.distinct for spec in specs}
    if kind != "all" and "ratio" in distinct and (kind == "not" or len(distinct) > 1):
        raise SpecError("`distinct='ratio'` is said of a whole set: it cannot stand in `~` or one side of `|`.")
    conditions = tuple(spec.condition for spec in specs)
    joined: Condition = Not(conditions[0]) if kind == "not" else (AllOf if kind == "all" else AnyOf)(conditions)
    return Combined(atoms, joined, "ratio" if "ratio" in distinct else "structure")


def check_consistent(condition: Condition, atoms: tuple[str, ...]) -> None:
    """Refuse a conjunction that no structure satisfies, naming two parts that clash (or the fewest that do).

    Parts are counted without listing where they can be, and looked up among few structures; what takes longer is found
    empty only when it is counted.
    """
    parts = list(conjuncts(condition))
    if not _is_empty(parts, atoms):
        parts = [part for part in parts if expand(part, atoms) is not None]
        if not parts or not _is_empty(parts, atoms):
            return
    for index, first in enumerate(parts):
        for second in parts[index:]:  # a part may also clash with itself: between two losses in the wrong order
            if _is_empty([first, second], atoms):
                raise SpecError(_clash(first, second, atoms))
    needed = list(parts)
    for part in parts:
        rest = [other for other in needed if other is not part]
        if _is_empty(rest, atoms):
            needed = rest
    names = ", ".join(f"`{part.said()}`" for part in needed)
    sure = all(_count([first, second], atoms) is not None for first, second in combinations(needed, 2))
    raise SpecError(f"no structure satisfies {names} together{', though any two of them can be had' if sure else ''}.")


def _clash(first: Condition, second: Condition, atoms: tuple[str, ...]) -> str:
    from ..sets import skeleton

    row = (skeleton(first, atoms) & skeleton(second, atoms)).clashing_row
    why = "" if row is None else f": no label is left for row {row_name(row, atoms)}"
    if first is second:
        return f"`{first.said()}` contradicts itself{why or ': no structure is like that'}."
    return f"`{first.said()}` and `{second.said()}` contradict each other{why}."


def row_name(row: int, atoms: tuple[str, ...]) -> str:
    """The row as T and F in the order of the atoms.

    Example:
        >>> row_name(1, ("w", "l"))
        'TF'
    """
    return f"{row:0{len(atoms)}b}".replace("0", "T").replace("1", "F") if atoms else ""


def _is_empty(parts: Iterable[Condition], atoms: tuple[str, ...]) -> bool:
    return _count(parts, atoms) == 0


def _count(parts: Iterable[Condition], atoms: tuple[str, ...]) -> int | None:
    from ..sets import quick_count

    return quick_count(AllOf(tuple(parts)), atoms)
