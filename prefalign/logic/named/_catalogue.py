"""The catalogue: named losses, found by name or alias, with the structures that their equations derive to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from ..._errors import DerivationError, UnknownLossError, did_you_mean
from ..structures import PreferenceStructure, Rule, RuleSet
from ._losses import REFUSED, Named, Term, named_losses


@dataclass(frozen=True)
class Entry:
    """A named loss.

    Args:
        source: What its paper states.

    Example:
        >>> entry = catalogue["orpo"]
        >>> entry.name, entry.column, entry.equation
        ('ORPO', 'ovxo', 'w*(1-l)/(l*(1-w))')
        >>> entry.structure.P_C
        M(w) ⊕ M(l)
        >>> entry.reference_form.ratio
        rl*w*(1 - l)/(l*rw*(1 - w))
    """

    source: Named

    @property
    def name(self) -> str:
        """As its paper writes it."""
        return self.source.name

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other names under which it is found."""
        return self.source.aliases

    @property
    def paper(self) -> str:
        """Where it comes from."""
        return self.source.paper

    @property
    def note(self) -> str:
        """What must be said beside the formula; empty where nothing must."""
        return self.source.note

    @property
    def origin(self) -> Literal["authors", "derived"]:
        """ "authors" where the logic paper prints the equation or P, "derived" where it follows."""
        return self.source.origin

    @property
    def column(self) -> str:
        """The rows TT, TF, FT, FF as the authors' lattice figure has them; empty beyond the sixteen."""
        return self.source.column

    @property
    def equation(self) -> str:
        """The ratio inside the link, as text; those of several rules joined by semicolons."""
        return "; ".join(term.equation for term in self.source.terms)

    @cached_property
    def rules(self) -> RuleSet:
        """The loss as rules: structures derived from the equations, with links, weights and guards."""
        return RuleSet(tuple(map(_rule, self.source.terms)), self.name)

    @property
    def structure(self) -> PreferenceStructure:
        """Its structure.

        Raises:
            DerivationError: The loss has several.
        """
        return self.rules.structure

    @cached_property
    def reference_form(self) -> PreferenceStructure:
        """The structure of ρ + log rl - log rw; the loss's own structure where that has a reference already."""
        return self.structure if self.structure.needs_reference else self.structure.with_reference()

    def __str__(self) -> str:
        lines = [f"{self.name} ({self.paper})"]
        lines += [f"{'+' if place else ' '} {rule}" for place, rule in enumerate(self.rules)]
        return "\n".join([*lines, *([f"  Note: {self.note}."] if self.note else [])])

    def __repr__(self) -> str:
        return f"<Entry {self.name}: {self.equation}>"


def _rule(term: Term) -> Rule:
    from ..equations import derive_equation  # derivation looks names up here

    return Rule(derive_equation(term.equation), term.link, term.weight, term.guard)


class Catalogue(Mapping[str, Entry]):
    """Named losses by name or alias, in any case, with or without hyphens; "cpo-ref" is the reference form of CPO.

    Iteration goes over the proper names: the sixteen of the table first.

    Example:
        >>> catalogue["Label Smoothing"].name, catalogue["orpo-ref"].name
        ('cDPO', 'ORPO-ref')
        >>> len(catalogue.table)
        16
    """

    @cached_property
    def _entries(self) -> dict[str, Entry]:
        return {named.name: Entry(named) for named in named_losses()}

    @cached_property
    def _names(self) -> dict[str, str]:
        names: dict[str, str] = {}
        for named in named_losses():
            for word in (named.name, *named.aliases):
                assert _key(word) not in names, word
                names[_key(word)] = named.name
        # Without hyphens second: R-DPO and rDPO are two losses.
        for key, name in list(names.items()):
            names.setdefault(key.replace("-", ""), name)
        return names

    @property
    def table(self) -> tuple[Entry, ...]:
        """The sixteen losses of the lattice figure."""
        return tuple(entry for entry in self._entries.values() if entry.column)

    def find(self, name: str) -> Entry | None:
        """The entry, or None if there is none.

        Raises:
            DerivationError: The loss is known to have no reading as structures; the message says why.
        """
        for key in (_key(name), _key(name).replace("-", "")):
            if key in self._names:
                return self._entries[self._names[key]]
            if key in REFUSED:
                raise DerivationError(f"`{name}` has no entry of its own: {REFUSED[key]}.")
            base = self._names.get(key.removesuffix("ref").removesuffix("-"))
            if base and key.endswith("ref"):
                return self._with_reference(self._entries[base])
        return None

    def _with_reference(self, entry: Entry) -> Entry | None:
        if len(entry.rules) > 1 or entry.structure.needs_reference:
            return None
        (term,) = entry.source.terms
        source = replace(
            entry.source,
            name=f"{entry.name}-ref",
            terms=(replace(term, equation=f"{term.equation}*rl/rw"),),
            aliases=(),
            column="",
            origin="derived",
        )
        return Entry(source)

    def __getitem__(self, name: str) -> Entry:
        """The entry of that name.

        Raises:
            UnknownLossError: No loss has that name; the message suggests the nearest. Also a KeyError.
        """
        entry = self.find(name)
        if entry is None:
            known = {word.lower(): word for named in named_losses() for word in (named.name, *named.aliases)}
            hint = did_you_mean(name.lower(), known)
            raise UnknownLossError(f"no loss is called {name!r}.{hint} `list(catalogue)` names all of them.")
        return entry

    def get(self, name: str, default: Any = None) -> Any:
        """The entry, or `default`."""
        return self.find(name) or default

    def __contains__(self, name: object) -> bool:
        try:
            return isinstance(name, str) and self.find(name) is not None
        except DerivationError:
            return False

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def name_of(self, structure: PreferenceStructure) -> str | None:
        """The first name whose structure this is (CPO rather than SLiC), also of a reference form; None if none is."""
        return self._by_structure.get(structure)

    @cached_property
    def _by_structure(self) -> dict[PreferenceStructure, str]:
        names: dict[PreferenceStructure, str] = {}
        for entry in self._entries.values():
            if len(entry.rules) == 1:
                names.setdefault(entry.structure, entry.name)
        for entry in self.table:
            names.setdefault(entry.reference_form, f"{entry.name}-ref")
        return names

    def __repr__(self) -> str:
        width = max(map(len, self._entries))
        lines = [
            f"{entry.name:{width}}  {entry.column or '····'}  {entry.equation}" for entry in self._entries.values()
        ]
        return "\n".join([f"{'name':{width}}  rows  equation", *lines])


def _key(name: str) -> str:
    return "-".join(name.lower().replace("_", " ").replace("-", " ").split())


catalogue = Catalogue()
