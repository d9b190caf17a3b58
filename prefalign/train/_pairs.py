"""What a loss sees of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..losses import PairLogps, TokenLogps
from . import _trl


def pairs_of(
    inputs: Mapping[str, Any],
    tokens: Tensor,
    with_reference: bool,
    single: TokenLogps | None = None,
    weights: Tensor | None = None,
) -> PairLogps:
    """The log-probabilities of a batch of pairs.

    Args:
        inputs: The batch, with the reference's log-probabilities.
        tokens: The policy's of every token, (2 pairs, length - 1), chosen rows first, 0 where nothing is scored.
        with_reference: Whether the loss compares with a reference.
        single: What the loss reads of single tokens.
        weights: What the tokens were multiplied by, (2 pairs, length); None: all count the same.

    Returns:
        Sums in nats; lengths are numbers of scored tokens, as TRL counts them, or sums of their weights.
    """
    chosen, rejected = tokens.sum(dim=1).chunk(2)
    mask = inputs["completion_mask"]
    chosen_tokens, rejected_tokens = (mask if weights is None else weights).sum(dim=1).to(chosen.dtype).chunk(2)
    ref_chosen, ref_rejected = (inputs[key] if with_reference else None for key in _trl.REFERENCE_KEYS)
    token_logps = tokens[: len(chosen)][mask[: len(chosen), 1:].bool()] if weights is None else None
    return PairLogps(
        *(chosen, rejected, ref_chosen, ref_rejected, chosen_tokens, rejected_tokens, token_logps), single=single
    )
