"""How losses relate: a matrix of relations, and what the links do to it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Literal, overload

from ..._errors import SpecError
from ..named import Readable, as_rules, as_structure, catalogue
from ..structures import AnyRule, PreferenceStructure, Rule, RuleSet, TwoRatioRule
from ..tables import canonical
from ._lattice import Lattice, label_of
from ._order import entails, rules_entail, same_ratio
from ._why import why_not

# "entails" is a ⊏ b; "same ratio" means one loss under every link, by structures that neither implies the other.
Relation = Literal["equivalent", "entails", "entailed by", "same ratio", "incomparable"]
_SIGNS: dict[Relation, str] = {
    "equivalent": "≡",
    "entails": "⊏",
    "entailed by": "⊐",
    "same ratio": "≃",
    "incomparable": "∥",
}
_CONVERSE: dict[Relation, Relation] = {"entails": "entailed by", "entailed by": "entails"}
_MEANING = {
    "≡": "equivalent: the same P_f and N_f",
    "⊏": "the row entails the column: under one decreasing link its loss is at least as high",
    "⊐": "the column entails the row: under one decreasing link the row's loss is at most as high",
    "≃": "the same ratio, hence the same loss, from structures that differ by a common condition",
    "∥": "neither entails the other",
}


def compare(*losses: Readable, names: tuple[str, ...] | None = None) -> Comparison:
    """How losses relate by preference entailment; of losses with several rules, rule by rule.

    The relations are those of the structures. They order the *losses* only under one and the same decreasing link; the
    comparison says where that fails.

    Args:
        losses: Two or more: structures, rule sets, catalogue names, columns or equations.
        names: What to call them; default: as given.

    Raises:
        SpecError: Fewer than two losses, or names that do not match them.

    Example:
        >>> print(compare("orpo", "cpo", "ccpo"))
              ORPO  CPO  cCPO
        ORPO  ≡     ∥    ⊏
        CPO   ∥     ≡    ⊏
        cCPO  ⊐     ⊐    ≡
        <BLANKLINE>
        ≡  equivalent: the same P_f and N_f
        ⊏  the row entails the column: under one decreasing link its loss is at least as high
        ⊐  the column entails the row: under one decreasing link the row's loss is at most as high
        ∥  neither entails the other
    """
    if len(losses) < 2:
        raise SpecError(f"`compare` needs at least two losses (got {len(losses)}).")
    if names is not None and len(names) != len(losses):
        raise SpecError(f"`names` must have one name per loss, {len(losses)} (got {len(names)}).")
    rules = tuple(_rule_set(loss) for loss in losses)
    shown = names or tuple(_name(loss, rule_set) for loss, rule_set in zip(losses, rules, strict=True))
    return Comparison(tuple(shown), rules)


def _rule_set(loss: Readable) -> RuleSet:
    # A name brings its links, weights and guards along; a structure alone says nothing of a link.
    entry = catalogue.get(loss) if isinstance(loss, str) else None
    if entry is not None:
        return RuleSet(entry.rules.rules, entry.name)
    found = as_rules(loss, "losses")
    return found if isinstance(found, RuleSet) else RuleSet((Rule(found),))


def _name(loss: Readable, rules: RuleSet) -> str:
    if len(rules.structures) == 1:
        return label_of(loss, rules.structure)
    return rules.name or " + ".join(label_of(structure, structure) for structure in rules.structures)


@dataclass(frozen=True)
class Comparison:
    """What `compare` found; printing it shows the matrix, and what must be said of the links.

    Args:
        names: What the losses are called.
        losses: Their rules.
    """

    names: tuple[str, ...]
    losses: tuple[RuleSet, ...]

    @cached_property
    def matrix(self) -> tuple[tuple[Relation, ...], ...]:
        """Row by row, how the row's loss relates to the column's."""
        count = len(self.losses)
        rows: list[list[Relation]] = [["equivalent"] * count for _ in range(count)]
        # Over common atoms once, instead of once a pair.
        atoms = canonical(atom for rules in self.losses for structure in rules.structures for atom in structure.atoms)
        wide = [rules.structure.over(atoms) if _is_one_ratio(rules) else None for rules in self.losses]
        for i, j in combinations(range(count), 2):
            a, b = wide[i], wide[j]
            relation = _of_structures(a, b) if a and b else _relation(self.losses[i], self.losses[j])
            rows[i][j], rows[j][i] = relation, _CONVERSE.get(relation, relation)
        return tuple(map(tuple, rows))

    def relation(self, first: int, second: int) -> Relation:
        """How loss number `first` (from 0) relates to loss number `second`."""
        return self.matrix[first][second]

    def why(self, first: int, second: int) -> str:
        """Why loss number `first` (from 0) does not entail loss number `second`: the row, or what keeps them apart."""
        a, b = self.losses[first], self.losses[second]
        names = self.names[first], self.names[second]
        if _is_one_ratio(a) and _is_one_ratio(b):
            return why_not(a.structure, b.structure, names)
        if self.matrix[first][second] in ("equivalent", "entails"):
            return f"{names[0]} entails {names[1]}, rule by rule."
        if len(a) != len(b):
            return f"{names[0]} has {len(a)} rules and {names[1]} {len(b)}: they are not paired."
        turning = next((name for name, rules in zip(names, (a, b), strict=True) if not rules.orders), None)
        if turning:
            return f"{turning} has a term that need not fall in its ratio: entailment does not order it."
        return "No pairing of their rules has the same links, weights and guards and entails rule by rule."

    @property
    def lattice(self) -> Lattice:
        """The Hasse diagram of the losses.

        Raises:
            DerivationError: One has several structures.
        """
        return Lattice({name: rules.structure for name, rules in zip(self.names, self.losses, strict=True)})

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What the matrix does not say: other links, turning links, several rules."""
        notes = []
        for name, rules in zip(self.names, self.losses, strict=True):
            if any(isinstance(rule, TwoRatioRule) for rule in rules):
                notes.append(f"{name} has two log ratios in one term: it is compared with others of its form alone.")
            elif len(rules) > 1:
                notes.append(f"{name} is {len(rules)} rules, related rule by rule: no single formula describes it.")
            if not rules.orders:
                notes.append(
                    f"{name} has a term that need not fall in its ratio: entailment does not order its values."
                )
        for i, first in enumerate(self.losses):
            for j in range(i + 1, len(self.losses)):
                if self.matrix[i][j] == "equivalent" and _links(first) != _links(self.losses[j]):
                    notes.append(
                        f"{self.names[i]} and {self.names[j]} have the same structure and other links, "
                        f"{_links(first)} and {_links(self.losses[j])}: not the same loss."
                    )
        return tuple(notes)

    def as_dict(self) -> dict[str, object]:
        """The comparison for `--json`: names, structures, relations, notes."""
        return {
            "names": list(self.names),
            "losses": [[describe(s) for rule in rules for s in rule.structures] for rules in self.losses],
            "links": [[str(rule.link) for rule in rules] for rules in self.losses],
            "relations": [list(row) for row in self.matrix],
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        signs = [[_SIGNS[relation] for relation in row] for row in self.matrix]
        head = max(map(len, self.names))
        lines = [" " * head + "  " + "  ".join(self.names)]
        for name, row in zip(self.names, signs, strict=True):
            cells = [sign.ljust(len(column)) for sign, column in zip(row, self.names, strict=True)]
            lines.append(name.ljust(head) + "  " + "  ".join(cells))
        used = {sign for row in signs for sign in row}
        legend = [f"{sign}  {meaning}" for sign, meaning in _MEANING.items() if sign in used]
        notes = ["", *(f"Note: {note}" for note in self.notes)] if self.notes else []
        return "\n".join(line.rstrip() for line in [*lines, "", *legend, *notes])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        from html import escape  # its table of entities would cost milliseconds at import

        head = "".join(f"<th>{escape(name)}</th>" for name in self.names)
        rows = [
            f"<tr><th>{escape(name)}</th>"
            + "".join(f'<td title="{cell}">{_SIGNS[cell]}</td>' for cell in row)
            + "</tr>"
            for name, row in zip(self.names, self.matrix, strict=True)
        ]
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        return f"<table><tr><th></th>{head}</tr>{''.join(rows)}</table>{notes}"


@overload
def describe(structure: PreferenceStructure, other: None = None) -> dict[str, object]: ...
@overload
def describe(structure: Readable, other: Readable) -> str: ...
def describe(structure: Readable, other: Readable | None = None) -> dict[str, object] | str:
    """A structure for `--json`; or, of two, why the first does not entail the second: the row that decides.

    Example:
        >>> describe("cpo", "orpo")
        'CPO does not entail ORPO: where w and l are valid (row TT), CPO has it on both sides, and ORPO not counted.'
    """
    if other is not None:
        return why_not(structure, other)
    structure = as_structure(structure, "structure")
    return {
        "atoms": list(structure.atoms),
        "rows": structure.rows if len(structure.atoms) <= 10 else None,
        "P": structure.P.ascii,
        "P_C": structure.P_C.ascii,
        "P_A": structure.P_A.ascii,
        "shortest_P": structure.shortest_P.ascii,
        "top": str(structure.top),
        "bottom": str(structure.bottom),
        "name": catalogue.name_of(structure),
    }


def _links(rules: RuleSet) -> str:
    return ", ".join(rule.link.name for rule in rules)


def _relation(a: RuleSet, b: RuleSet) -> Relation:
    """The relation of two rule sets, their rules paired so that links, weights and guards agree."""
    if a == b:
        return "equivalent"
    if rules_entail(a, b):
        return "entails"
    return "entailed by" if rules_entail(b, a) else "incomparable"


def _of_structures(a: PreferenceStructure, b: PreferenceStructure) -> Relation:
    up, down = entails(a, b), entails(b, a)
    if up or down:
        return "equivalent" if up and down else "entails" if up else "entailed by"
    if not (a.is_degenerate or b.is_degenerate) and len(a.atoms) <= 6 and same_ratio(a, b):
        return "same ratio"
    return "incomparable"


def _is_one_ratio(rules: RuleSet) -> bool:
    return len(rules) == 1 and isinstance(rules.rules[0], Rule)


def _rule_entails(x: AnyRule, y: AnyRule) -> bool:
    if isinstance(x, Rule) and isinstance(y, Rule):
        return entails(x.structure, y.structure)
    if isinstance(x, TwoRatioRule) and isinstance(y, TwoRatioRule):
        return x.inner == y.inner and entails(x.first, y.first) and entails(y.second, x.second)
    return False
