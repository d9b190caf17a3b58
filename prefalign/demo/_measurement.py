"""What the demo measures, before and after."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measurement:
    """A model on the held-out prompts.

    Args:
        texts: `samples` texts of the first prompt, then of the second, …
        gold: VADER's score of each text.
        chosen: log pi of each prompt's better completion, in nats, summed over tokens.
        rejected: Likewise of the worse one.
    """

    texts: list[str]
    gold: list[float]
    chosen: list[float]
    rejected: list[float]
