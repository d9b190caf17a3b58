"""Whether a structure is a loss that the literature has already: by its structure, or by its ratio."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ..equations import equal_ratios, fingerprint
from ..structures import PreferenceStructure
from ._catalogue import Entry, catalogue

# Over more propositions no loss of the catalogue is likely, and looking takes time.
_MAX_RATIO_ATOMS = 6


@dataclass(frozen=True)
class Known:
    """Losses of the catalogue that are the same, up to the link.

    Args:
        structure: Names with this very structure, the link in parentheses where it is not the logistic one.
        ratio: Names with another structure whose ratio is the same function.
    """

    structure: tuple[str, ...] = ()
    ratio: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The first name, or nothing."""
        return next(iter((*self.structure, *self.ratio)), "")

    def __bool__(self) -> bool:
        return bool(self.structure or self.ratio)


def known_losses(structure: PreferenceStructure) -> Known:
    """The losses of the catalogue that a structure is.

    Example:
        >>> known_losses(PreferenceStructure.from_rows("bvxo")).structure
        ('CPO', 'SLiC (hinge)', 'RRHF (perceptron)', 'RePO (hinge)')
        >>> known_losses(PreferenceStructure.from_rows("bvoo")).ratio      # w over w·l: 1/l
        ()
    """
    same = _by_structure().get(structure, ())
    if structure.is_degenerate or len(structure.reduced.atoms) > _MAX_RATIO_ATOMS:
        return Known(same)
    alike = [name for other, name in _by_ratio().get(fingerprint(structure), ()) if equal_ratios(structure, other)]
    return Known(same, tuple(name for name in alike if name not in same))


@lru_cache(maxsize=1)
def _by_structure() -> dict[PreferenceStructure, tuple[str, ...]]:
    found: dict[PreferenceStructure, tuple[str, ...]] = {}
    for structure, name in _single_rules():
        found[structure] = (*found.get(structure, ()), name)
    return found


@lru_cache(maxsize=1)
def _by_ratio() -> dict[int, list[tuple[PreferenceStructure, str]]]:
    found: dict[int, list[tuple[PreferenceStructure, str]]] = {}
    for structure, name in _single_rules():
        found.setdefault(fingerprint(structure), []).append((structure, name))
    return found


def _single_rules() -> list[tuple[PreferenceStructure, str]]:
    entries = [entry for entry in map(catalogue.__getitem__, catalogue) if len(entry.rules) == 1]
    found = [(entry.structure, _with_link(entry)) for entry in entries]
    taken = {structure for structure, _ in found}
    for entry in catalogue.table:
        if entry.reference_form not in taken:
            found.append((entry.reference_form, f"{entry.name}-ref"))
    return found


def _with_link(entry: Entry) -> str:
    link, _, margin = entry.rules.rules[0].link.name.partition(" with margin ")
    said = [*([] if link == "logistic" else [link]), *(["with a margin"] if margin else [])]
    return f"{entry.name} ({' '.join(said)})" if said else entry.name
