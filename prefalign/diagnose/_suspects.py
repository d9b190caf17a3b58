"""How noisy a set of pairs is, from all the evidence there is, and the list of suspicious pairs to be reviewed."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .._errors import DataError
from ..data import Agreement
from ._features import pair_features
from ._flip_rate import FlipRate, flip_rate
from ._write import write_atomically


@dataclass(frozen=True)
class Repeats(Agreement):
    """Pairs that were labelled more than once.

    Attributes:
        agreeing, compared: Of so many comparisons of two labels of one pair, so many agree.
        contradicting: For each row that another contradicts, the first such row.
    """

    contradicting: Mapping[int, int]

    @property
    def can_tell(self) -> bool:
        """Whether there are enough comparisons, and their interval ends below one half."""
        return self.reason_against is None


@dataclass(frozen=True)
class Noise:
    """What is known of the noise in a set of pairs.

    Attributes:
        margins: The estimate from held-out margins.
        repeats: The estimate from repeated labels; None where no pair stands both ways round.
    """

    margins: FlipRate
    repeats: Repeats | None

    @property
    def taken(self) -> tuple[float, float, float, str] | None:
        """Rate, low, high and where they come from: repeated labels if they can tell; None if nothing can."""
        repeats = self.repeats
        if repeats is not None and repeats.can_tell:
            return repeats.rate, repeats.low, repeats.high, f"{repeats.compared} repeated labels"
        found = self.margins
        if not found.can_tell:
            return None
        return found.rate, found.low, found.high, f"held-out margins of {found.pairs} pairs"

    def __str__(self) -> str:
        lines = [str(self.margins)]
        if self.repeats is not None:
            r = self.repeats
            lines.append(
                f"flip rate {r.rate:.3f}, 95 % interval [{r.low:.3f}, {r.high:.3f}] "
                f"(repeated labels: {r.agreeing} of {r.compared} agree; they must have been given independently)"
            )
            if not r.can_tell:
                lines.append(f"The repeated labels cannot tell: {r.reason_against}. More labels given twice would.")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """The estimates, in values that `json.dumps` takes."""
        r = self.repeats
        names = ("agreeing", "compared", "rate", "low", "high", "can_tell")
        repeats = None if r is None else {name: getattr(r, name) for name in names}
        taken = None if self.taken is None else dict(zip(("rate", "low", "high", "source"), self.taken, strict=True))
        return {"margins": self.margins.to_json(), "repeats": repeats, "taken": taken}


def measure_noise(
    pairs: Any,
    model: Any,
    tokenizer: Any = None,
    *,
    layer: int | None = None,
    max_length: int = 1024,
    cache: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: bool = True,
    model_init_kwargs: Mapping[str, Any] | None = None,
) -> Noise:
    """Estimate the flip rate of pairs from a model's features and from labels that were given twice.

    Args:
        pairs: A `datasets.Dataset` of pairs in one of TRL's layouts, at least 50.
        model, tokenizer, layer, max_length, cache, progress, model_init_kwargs: As in `pair_features`.
        seed: Seed of the folds.

    Raises:
        CheckpointError: The model cannot be loaded.
        DataError: There are too few pairs, or one cannot be read.
    """
    if len(pairs) < 50:
        raise DataError(f"The noise of fewer than 50 pairs cannot be estimated (got {len(pairs)}).")
    features = pair_features(
        pairs,
        model,
        tokenizer,
        layer=layer,
        max_length=max_length,
        cache=cache,
        progress=progress,
        model_init_kwargs=model_init_kwargs,
    )
    return Noise(flip_rate(features[:, 0] - features[:, 1], seed=seed), count_repeats(pairs))


def count_repeats(pairs: Any) -> Repeats | None:
    """Compare the labels of pairs that stand in several rows; None where no two of them contradict each other.

    Two labels of a pair are one comparison, four are two: every label is compared once, so that comparisons are
    independent. Copies without any contradiction are taken for copies, not for labels that were given twice.
    """
    groups: dict[tuple[str, ...], list[tuple[int, bool]]] = defaultdict(list)
    for row, pair in enumerate(pairs):
        prompt, chosen, rejected = (repr(pair.get(key)) for key in ("prompt", "chosen", "rejected"))
        turned = chosen > rejected
        groups[(prompt, *((rejected, chosen) if turned else (chosen, rejected)))].append((row, turned))
    agreeing = compared = 0
    contradicting: dict[int, int] = {}
    for labels in groups.values():
        for (_, one), (_, other) in zip(labels[::2], labels[1::2], strict=False):
            compared += 1
            agreeing += one == other
        for row, turned in labels:
            against = next((other for other, way in labels if way != turned), None)
            if against is not None:
                contradicting[row] = against
    if not contradicting or not compared:
        return None
    return Repeats(agreeing, compared, contradicting)


def list_suspects(pairs: Any, noise: Noise, count: int, rows: Sequence[int] | None = None) -> list[dict[str, Any]]:
    """The `count` most suspicious pairs with their evidence, the most suspicious first.

    Where the rate cannot be told, no suspicion is given: it would rest on the rate.

    Args:
        pairs: What `noise` was measured on.
        noise: The measurement.
        count: How many.
        rows: Where each pair stands in the user's data; None: in order.
    """
    found, repeats = noise.margins, noise.repeats
    listed = []
    for place in found.most_suspicious(count):
        margin, pair = float(found.margins[place]), pairs[place]
        wins = float(1.0 / (1.0 + np.exp(np.clip(margin, -500, 500))))
        certain = "over 99%" if wins > 0.99 else f"{wins:.0%}"
        prefers = "a reward fitted to the other pairs prefers `rejected`"
        evidence = [f"{prefers} with probability {certain}" if found.can_tell else prefers]
        if repeats is not None and place in repeats.contradicting:
            other = repeats.contradicting[place]
            evidence.append(f"row {rows[other] if rows is not None else other} has the opposite label")
        listed.append(
            {
                "row": int(rows[place]) if rows is not None else place,
                "suspicion": round(float(found.suspicion[place]), 4) if found.can_tell else None,
                "margin": round(margin, 4),
                "evidence": "; ".join(evidence),
                "decision": "",
                **{key: pair[key] for key in ("prompt", "chosen", "rejected") if key in pair},
            }
        )
    return listed


def write_suspects(path: str | os.PathLike[str], suspects: Sequence[Mapping[str, Any]]) -> None:
    """Write suspects as JSON Lines, atomically."""
    text = "".join(json.dumps(suspect, ensure_ascii=False) + "\n" for suspect in suspects)
    write_atomically(Path(path), text.encode("utf-8", "replace"))
