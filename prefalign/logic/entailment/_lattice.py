"""The entailment order of a set of structures: Hasse edges, ranks, pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

from ..._errors import SpecError
from ..named import Readable, as_structure, catalogue
from ..structures import PreferenceStructure
from ..tables import canonical
from ._layout import rows_of


class Lattice:
    """Structures ordered by preference entailment; an edge runs from a structure to one just above it.

    Under a decreasing link losses fall along every edge: the bottom is the hardest to satisfy. Under a turning link
    (IPO's square) an edge says nothing about the losses.

    Args:
        losses: Structures, catalogue names, columns or equations; a mapping gives them names of your own. Those with
            the same meaning share a node.

    Raises:
        SpecError: There are no losses to order.
        DerivationError: One is a loss of several structures.

    Example:
        >>> lattice = Lattice(["cpo", "orpo", "ccpo"])
        >>> lattice.edges
        (('CPO', 'cCPO'), ('ORPO', 'cCPO'))
        >>> lattice.is_lattice
        False
        >>> print(lattice.mermaid())
        graph BT
          n0["CPO<br/>M(l) → M(w)<br/>if M(w) ∨ M(l)<br/>also M(w) ∧ M(l)"]
          n1["ORPO<br/>M(l) → M(w)<br/>if M(w) ⊕ M(l)"]
          n2["cCPO<br/>M(l) → M(w)<br/>if M(w) ∨ M(l)"]
          n0 --> n2
          n1 --> n2
    """

    def __init__(self, losses: Iterable[Readable] | Mapping[str, Readable]) -> None:
        named = losses.items() if isinstance(losses, Mapping) else ((None, loss) for loss in losses)
        labels: dict[PreferenceStructure, list[str]] = {}
        for name, loss in named:
            structure = as_structure(loss, "losses")
            shown = name or label_of(loss, structure)
            known = labels.setdefault(structure, [])
            if shown not in known:
                known.append(shown)
        if not labels:
            raise SpecError("`losses` must hold at least one structure.")
        atoms = canonical(atom for structure in labels for atom in structure.atoms)
        # The lowest first: fewer gained row labels.
        ordered = sorted(labels, key=lambda structure: _height(structure.over(atoms)))
        joined = {" = ".join(labels[structure]): structure.over(atoms) for structure in ordered}
        if len(joined) < len(ordered):
            raise SpecError("`losses` must have different names for different structures.")
        self.atoms = atoms
        self.nodes: Mapping[str, PreferenceStructure] = MappingProxyType(joined)

    def __reduce__(self) -> tuple[type[Lattice], tuple[dict[str, PreferenceStructure]]]:
        return Lattice, (dict(self.nodes),)

    @cached_property
    def _above(self) -> dict[str, frozenset[str]]:
        items = [(name, s.top_mask, s.bottom_mask) for name, s in self.nodes.items()]
        return {
            low: frozenset(
                high for high, top2, bottom2 in items if high != low and not (top1 & ~top2 or bottom2 & ~bottom1)
            )
            for low, top1, bottom1 in items
        }

    @cached_property
    def edges(self) -> tuple[tuple[str, str], ...]:
        """The Hasse edges as pairs of names (lower, upper): a ⊏ b with nothing in between."""
        found = []
        for low, above in self._above.items():
            farther = frozenset().union(*(self._above[name] for name in above))
            found += [(low, high) for high in self.nodes if high in above and high not in farther]
        return tuple(found)

    @cached_property
    def ranks(self) -> Mapping[str, int]:
        """Per name, the length of the longest chain below it: 0 for the minimal ones."""
        ranks = dict.fromkeys(self.nodes, 0)
        for low, high in self.edges:  # lower nodes come first
            ranks[high] = max(ranks[high], ranks[low] + 1)
        return MappingProxyType(ranks)

    @property
    def rows(self) -> tuple[tuple[str, ...], ...]:
        """The names rank by rank, the lowest first, in an order in which few edges cross."""
        rows, _ = rows_of(self.ranks, self.edges)
        return tuple(tuple(slot for slot in row if isinstance(slot, str)) for row in rows)

    @property
    def is_lattice(self) -> bool:
        """Whether it holds the meet and the join of any two of its structures."""
        structures = list(self.nodes.values())
        masks = {(s.top_mask, s.bottom_mask) for s in structures}
        return all(
            (a.top_mask & b.top_mask, a.bottom_mask | b.bottom_mask) in masks
            and (a.top_mask | b.top_mask, a.bottom_mask & b.bottom_mask) in masks
            for i, a in enumerate(structures)
            for b in structures[:i]
        )

    def mermaid(self) -> str:
        """The Hasse diagram in Mermaid's language, bottom to top, each node with its name and formulas."""
        places = {name: f"n{i}" for i, name in enumerate(self.nodes)}
        lines = ["graph BT"]
        for name, structure in self.nodes.items():
            said = [name, str(structure.P)]
            said += [] if str(structure.P_C) == "⊤" else [f"if {structure.P_C}"]
            said += [] if str(structure.P_A) == "⊥" else [f"also {structure.P_A}"]
            lines.append(f'  {places[name]}["{"<br/>".join(map(_quoted, said))}"]')
        return "\n".join([*lines, *(f"  {places[low]} --> {places[high]}" for low, high in self.edges)])

    def draw(
        self,
        path: str | Path,
        *,
        title: str = "",
        values: Mapping[str, float] | None = None,
        shown: str = "{:+.2f}",
    ) -> Path:
        """Draw the Hasse diagram in ranks, each node with its name, its formulas and its column.

        Args:
            path: Where to, ending in .svg, .png or .pdf; the folder must exist.
            title: Above the picture.
            values: A number for each node, by its name, that colours it: the highest blue, the lowest orange. Nodes
                without one stay white.
            shown: How such a number is printed in its node.

        Returns:
            The path.

        Raises:
            SpecError: The ending or the folder is wrong, a value is for no node, or matplotlib is not installed.
        """
        from ._draw import Hasse, draw_lattice

        picture = Hasse(self.nodes, self.edges, self.ranks, self.atoms)
        return draw_lattice(picture, Path(path), title, values or {}, shown)

    def __len__(self) -> int:
        return len(self.nodes)

    def __repr__(self) -> str:
        return f"<Lattice of {len(self.nodes)} structures, {len(self.edges)} edges>"

    def __str__(self) -> str:
        highest = max(self.ranks.values())
        lines = []
        for rank in range(highest, -1, -1):
            names = [name for name in self.nodes if self.ranks[name] == rank]
            for name in names:
                above = [high for low, high in self.edges if low == name]
                lines.append(f"{rank}  {name}" + (f" ⊏ {', '.join(above)}" if above else ""))
        return "\n".join(lines)


def label_of(loss: object, structure: PreferenceStructure) -> str:
    """What to call a loss: the name or equation it was given by, or else its catalogue name, or its column."""
    if isinstance(loss, str):
        entry = catalogue.get(loss)
        return entry.name if entry is not None else loss.strip()
    given = getattr(loss, "name", "")
    if isinstance(given, str) and given:
        return given
    return catalogue.name_of(structure) or (structure.rows if len(structure.atoms) <= 4 else str(structure.P))


def _height(structure: PreferenceStructure) -> int:
    rows = 1 << len(structure.atoms)
    return structure.top_mask.bit_count() + rows - structure.bottom_mask.bit_count()


def _quoted(text: str) -> str:
    from html import escape  # its table of entities would cost milliseconds at import

    return escape(text).replace("`", "&#96;")
