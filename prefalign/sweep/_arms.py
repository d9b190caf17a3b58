"""The arms of a sweep: what is trained against what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import TYPE_CHECKING, Literal

from .._errors import ConfigError, PrefalignError

if TYPE_CHECKING:
    from ..logic import PreferenceStructure, Specification


@dataclass(frozen=True)
class Arm:
    """One loss of a sweep.

    Args:
        name: What tables call it.
        loss: Its expression, as `prefalign train --loss` takes it.
        kind: "baseline" if it was named, "candidate" if the specification made it.
        sft: Weight of the SFT term; 0 is none.
        family: Name of the same loss without an SFT term.
        rows: Column of its structure over `atoms`; empty for a loss that is not one structure.
        atoms: Propositions of the structure.
    """

    name: str
    loss: str
    kind: Literal["baseline", "candidate"]
    sft: float
    family: str
    rows: str
    atoms: tuple[str, ...]

    @property
    def structure(self) -> PreferenceStructure | None:
        """The structure, if it is one."""
        from ..logic import PreferenceStructure

        return PreferenceStructure.from_rows(self.rows, self.atoms) if self.rows else None


@dataclass(frozen=True)
class Recipe:
    """How structures become losses, the same way for every arm; the arguments of `prefalign.to_loss`."""

    link: str = "logistic"
    beta: float | None = None
    reference: bool = True
    mean: bool = True


def make_arms(
    spec: Specification | None,
    baselines: Sequence[str],
    *,
    top: int,
    by: Sequence[str],
    near: str | None,
    sft: Sequence[float],
    recipe: Recipe,
) -> tuple[Arm, ...]:
    """The baselines and the best candidates of a specification, each with every SFT weight.

    Args:
        spec: What candidates must satisfy; None for baselines alone.
        baselines: Catalogue names, columns such as "ovxo", or loss expressions (which keep their own link).
        top: How many candidates, baselines not counted.
        by: What candidates are ranked by.
        near: The loss that distances are measured from.
        sft: Weights of the SFT term (`sequence_mean`); 0 is none.
        recipe: How structures become losses.

    Raises:
        ConfigError: There is nothing to train, or two arms are the same.
        PrefalignError: A baseline cannot be read.
    """
    bare = [_baseline(text, recipe) for text in baselines]
    taken = {arm.structure for arm in bare if arm.structure is not None}
    if spec is not None:
        found = islice(_ranked(spec, by, near, taken, top + len(taken)), top)
        bare += [_of_structure(structure, name, "candidate", recipe) for structure, name in found]
    if not bare:
        raise ConfigError("`prefalign sweep` needs losses: name --baselines, or give a --spec that has some.")
    names = [arm.name for arm in bare]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"`--baselines` must be different losses ({twice} is there twice).")
    return tuple(_with_sft(arm, weight) for arm in bare for weight in sft)


def _ranked(
    spec: Specification, by: Sequence[str], near: str | None, taken: set[PreferenceStructure], most: int
) -> Iterator[tuple[PreferenceStructure, str]]:
    """Candidates that are no baselines and that can be trained, with their names."""
    from ..logic import rank

    # By literals alone no more than `most` are generated; degenerate ones would use up places.
    for candidate in rank(spec, by=by, near=near, top=None if tuple(by) != ("literals",) else 4 * most):
        structure = candidate.structure
        if structure in taken or structure.is_degenerate or structure.top_mask == structure.bottom_mask:
            continue
        known = candidate.known.structure
        yield structure, known[0] if known else _column(structure)


def _column(structure: PreferenceStructure) -> str:
    return structure.rows if len(structure.atoms) <= 4 else str(structure.P)


def _baseline(text: str, recipe: Recipe) -> Arm:
    from ..logic import PreferenceStructure, catalogue

    if text in catalogue:
        return _of_structure(catalogue[text].structure, catalogue[text].name, "baseline", recipe)
    if len(text) == 4 and set(text) <= set("vxbo"):
        return _of_structure(PreferenceStructure.from_rows(text, ("w", "l")), text, "baseline", recipe)
    from ..compiler import derive
    from ..losses import parse_loss

    loss = parse_loss(text)
    try:
        found = derive(loss)
        structure = found if isinstance(found, PreferenceStructure) else found.structure
    except PrefalignError:  # a loss of several rules, or none: it trains, and has no place in the lattice
        structure = None
    if structure is not None and structure.reduced.needs_reference:
        structure = _without_reference(structure)
    rows, atoms = ("", ()) if structure is None else (structure.rows, structure.atoms)
    return Arm(loss.title, loss.expression, "baseline", 0.0, loss.title, rows, atoms)


def _without_reference(structure: PreferenceStructure) -> PreferenceStructure | None:
    """The structure over w and l of which this is the reference form; entailment orders both alike."""
    from ..logic import PreferenceStructure

    for letters in product("vxbo", repeat=4):
        plain = PreferenceStructure.from_rows("".join(letters), ("w", "l"))
        if plain.with_reference() == structure:
            return plain
    return None


def _of_structure(
    structure: PreferenceStructure, name: str, kind: Literal["baseline", "candidate"], recipe: Recipe
) -> Arm:
    from ..compiler import GroupLoss, to_loss

    has_its_own = structure.reduced.needs_reference
    loss = to_loss(structure, recipe.link, recipe.beta, recipe.reference and not has_its_own, recipe.mean)
    if isinstance(loss, GroupLoss):
        raise ConfigError(f"`prefalign sweep` trains on pairs; {name} is over y1, y2, ….")
    if has_its_own:
        structure = _without_reference(structure) or structure
    return Arm(name, loss.expression, kind, 0.0, name, structure.rows, structure.atoms)


def _with_sft(arm: Arm, weight: float) -> Arm:
    if not weight:
        return arm
    loss = f"{arm.loss} + {weight!r}*sft(reduction='sequence_mean')"
    return Arm(f"{arm.name} + {weight:g} sft", loss, arm.kind, weight, arm.family, arm.rows, arm.atoms)
