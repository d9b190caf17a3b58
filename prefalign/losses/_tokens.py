"""What a loss sees of single tokens, where it asks for them.

Shapes: P pairs, T positions. Every tensor has the shape (2P, T), chosen rows first.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor

from .._errors import LossError

# What a loss may read of single tokens: their log-probabilities, log(sum of squares) of the policy's distribution at
# each, and the divergence of the two models' distributions at each.
TokenReading = Literal["logps", "log_sum_sq_probs", "kl"]


@dataclass(frozen=True, eq=False)
class TokenLogps:
    """Log-probabilities of the single tokens of a batch of pairs, in nats.

    Args:
        policy: log pi of each token; 0 where the mask is 0.
        mask: 1 at tokens that count, 0 elsewhere.
        reference: log ref of each token.
        log_sum_sq_probs: log(sum over the vocabulary of pi**2) at each token, for `WPO`.
        kl: KL(ref || pi) over the vocabulary at each token, for `TDPO`.

    Raises:
        LossError: Shapes differ, or the number of rows is odd.
    """

    policy: Tensor
    mask: Tensor
    reference: Tensor | None = None
    log_sum_sq_probs: Tensor | None = None
    kl: Tensor | None = None

    def __post_init__(self) -> None:
        policy: object = self.policy
        if not isinstance(policy, Tensor):
            return  # a symbolic stand-in, which has no shape to check
        shape = policy.shape
        if len(shape) != 2 or shape[0] % 2:
            raise LossError(f"`policy` must have the shape (2 pairs, positions) (got {tuple(shape)}).")
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and value.shape != shape:
                raise LossError(
                    f"`{field.name}` must have the shape of `policy`, {tuple(shape)} (got {tuple(value.shape)})."
                )

    def swapped(self) -> TokenLogps:
        """The same pairs with their labels flipped."""

        def turned(value: Any) -> Any:
            return None if value is None else torch.cat(value.chunk(2)[::-1])

        return TokenLogps(*(turned(getattr(self, field.name)) for field in fields(self)))

    def lengths(self) -> Tensor:
        """How many tokens count in each row, (2P,)."""
        return self.mask.sum(dim=1)

    def read(self, what: TokenReading) -> Tensor:
        """What a loss reads of single tokens beside the policy's log-probabilities.

        Raises:
            LossError: It is not there.
        """
        found = {"logps": self.policy, "log_sum_sq_probs": self.log_sum_sq_probs, "kl": self.kl}[what]
        if found is None:
            raise LossError(f"this loss needs `{what}` of every token; `PrefTrainer` gives it.")
        return found
