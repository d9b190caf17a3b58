"""What a page knows of each loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..logic import Lattice, PreferenceStructure, compare, described_field, entails, explain, known_losses, show

Node = dict[str, Any]


def node_of(name: str, structure: PreferenceStructure) -> Node:
    """A structure for the page: names, formulas, table, ratio, facts, and its rows as two lists of truth values.

    Args:
        name: What to call it.
        structure: Over at most four propositions.
    """
    page = explain(structure, title=name).pages[0]
    count = len(structure.atoms)
    labels = [structure.rows[row] for row in range(1 << count)]
    return {
        "name": name,
        "known": known_losses(structure).name or "",
        "atoms": list(structure.atoms),
        "rows": [
            {"values": [not row >> (count - 1 - place) & 1 for place in range(count)], "label": labels[row]}
            for row in range(1 << count)
        ],
        "formulas": [list(pair) for pair in page.formulas],
        "ratio": show(structure.ratio) if structure.bottom_mask else "infinite",
        "facts": list(page.facts),
        "described": described_field(structure),
    }


def lattice_nodes(lattice: Lattice) -> dict[str, Any]:
    """The nodes, edges and rows of a lattice."""
    return {
        "nodes": [node_of(name, structure) for name, structure in lattice.nodes.items()],
        "edges": [list(edge) for edge in lattice.edges],
        "ranks": [list(row) for row in lattice.rows],
    }


def placed(name: str, structure: PreferenceStructure, nodes: Mapping[str, PreferenceStructure]) -> dict[str, Any]:
    """A loss that was typed in, and where it stands among the nodes."""
    others = [(other, node) for other, node in nodes.items() if set(structure.atoms) <= set(node.atoms)]
    relations = {other: compare(structure, node).relation(0, 1) for other, node in others}
    near = [other for other, relation in relations.items() if relation == "entails"]
    lowest = [a for a in near if not any(b != a and entails(nodes[b], nodes[a]) for b in near)]
    return {"node": node_of(name, structure), "relations": relations, "below": lowest}
