"""Truth tables as text and as HTML, of formulas and of structures."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from ..._errors import SpecError
from ..tables._atoms import canonical
from ._formula import Atom, Formula

if TYPE_CHECKING:
    from ..structures._structure import PreferenceStructure

_MAX_SHOWN = 8
_SIDES = {"v": "✓", "x": "✗", "b": "both", "o": "–"}


def formula_table(formula: Formula, atoms: Sequence[str] | None = None) -> str:
    """The truth table of a formula as text."""
    return _text(*_formula_cells(formula, atoms))


def formula_html(formula: Formula, atoms: Sequence[str] | None = None) -> str:
    """The truth table of a formula as an HTML table."""
    return _html(*_formula_cells(formula, atoms))


def structure_table(structure: PreferenceStructure) -> str:
    """The column of a structure as text: ✓ top, ✗ bottom, both, or – neither."""
    return _text(*_structure_cells(structure))


def structure_page(structure: PreferenceStructure) -> str:
    """P, P_C and P_A of a structure, and its truth table where it fits, as HTML."""
    parts = [f"<p>{name} = {escape(str(getattr(structure, name)))}</p>" for name in ("P", "P_C", "P_A")]
    table = [_html(*_structure_cells(structure))] if len(structure.atoms) <= _MAX_SHOWN else []
    return "\n".join([*parts, *table])


def _formula_cells(formula: Formula, atoms: Sequence[str] | None) -> tuple[list[str], list[list[str]]]:
    order = formula.atoms if atoms is None else canonical(atoms)
    mask = formula.mask(order)
    return _cells(order, str(formula), ["T" if mask >> row & 1 else "F" for row in range(_rows(order))])


def _structure_cells(structure: PreferenceStructure) -> tuple[list[str], list[list[str]]]:
    _rows(structure.atoms)
    return _cells(structure.atoms, "side", [_SIDES[letter] for letter in structure.rows])


def _rows(atoms: Sequence[str]) -> int:
    if len(atoms) > _MAX_SHOWN:
        raise SpecError(
            f"a table can be printed over at most {_MAX_SHOWN} atoms (got {len(atoms)}: 2^{len(atoms)} rows)."
        )
    return 1 << len(atoms)


def _cells(atoms: Sequence[str], title: str, last: list[str]) -> tuple[list[str], list[list[str]]]:
    count = len(atoms)
    body = []
    for row, cell in enumerate(last):
        values = ["F" if row >> (count - 1 - place) & 1 else "T" for place in range(count)]
        body.append([*values, cell])
    return [*(str(Atom(atom)) for atom in atoms), title], body


def _text(head: list[str], body: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in [head, *body]) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *body]]
    lines.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)


def _html(head: list[str], body: list[list[str]]) -> str:
    lines = [
        "<table>",
        "<thead><tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr></thead>",
        "<tbody>",
    ]
    lines += ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in body]
    return "\n".join([*lines, "</tbody>", "</table>"])
