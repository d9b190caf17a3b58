"""What summed log-probabilities of whole texts do to a structure: the row in which all is false decides."""

from __future__ import annotations

from typing import Literal

from ...logic import PreferenceStructure

Kind = Literal["contrast", "saturated", "dead", "one-sided"]

_REMEDY = "Use mean=True (means over tokens), or add an SFT term, such as 0.1*sft(reduction='token_mean')."
_WHY = "with sums over tokens the probabilities of whole texts are almost 0, and the row where no answer is valid is"
ADVICE: dict[Kind, str] = {
    "saturated": f"{_WHY} on top alone: the loss is saturated, at its end without a gradient. {_REMEDY}",
    "dead": f"{_WHY} on both sides: the loss is dead, its ratio 1 whatever the model does. {_REMEDY}",
    "one-sided": f"{_WHY} on the bottom alone: the loss learns from one answer only. {_REMEDY}",
}


def summed_behaviour(structure: PreferenceStructure) -> Kind:
    """What is left of the loss where every probability is that of a whole text, some e^-500.

    Example:
        >>> [summed_behaviour(PreferenceStructure.from_rows(rows)) for rows in ("bvxo", "vvxv", "ovxb", "bvxx")]
        ['contrast', 'saturated', 'dead', 'one-sided']
    """
    structure = structure.reduced
    count = len(structure.atoms)
    policy = [place for place, atom in enumerate(structure.atoms) if not atom.startswith("r")]
    # Of one answer the reference is as small as the policy, and the contrast between them is the loss: rl/l.
    decisive = policy if len(policy) > 1 else range(count)
    sides = []
    for mask in (structure.top_mask, structure.bottom_mask):
        # The rows in which the policy deems nothing valid; the reference's propositions may be either.
        rows = (row for row in range(1 << count) if mask >> row & 1)
        sides.append(any(all(row >> (count - 1 - place) & 1 for place in decisive) for row in rows))
    kinds: dict[tuple[bool, bool], Kind] = {
        (False, False): "contrast",
        (True, False): "saturated",
        (True, True): "dead",
        (False, True): "one-sided",
    }
    kind = kinds[sides[0], sides[1]]
    # A structure over one answer, such as CE's, has no other that it could fail to learn from.
    return "contrast" if kind == "one-sided" and len(policy) == 1 else kind
