"""The divergence of two models' distributions at every scored token, for the losses that read it.

TRL's fused head is one function of hidden states and the head's weights. While the reference runs, its arguments are
kept; while the policy runs, the rows of both are compared over the whole vocabulary. The result takes the place of
`log_sum_sq_probs`, an output of the head that is per token too, so that it is brought into the padded layout as the
log-probabilities are, from a packed batch as well.

Shapes: S rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .. import _trl

_BLOCK = 2**24  # logits that are there at once, of each model


class _Head(NamedTuple):
    """What the head was called with: the rows, its weights, and what it does to its logits."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    targets: Tensor
    temperature: float
    softcap: float | None
    scale: float

    def log_probs(self, rows: slice) -> Tensor:
        """Log-probabilities of the whole vocabulary, (rows, V), in float32 or more."""
        hidden = self.hidden[rows]
        bias = None if self.bias is None else self.bias.to(hidden.dtype)
        logits = torch.nn.functional.linear(hidden, self.weight.to(hidden.dtype), bias)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        logits = logits * self.scale
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return (logits / self.temperature).log_softmax(dim=1)


class Distributions:
    """Compares the distributions of a batch's two forward passes.

    Args:
        wanted: Whether the loss reads the divergence; otherwise nothing is done.
    """

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted
        self._kept: list[_Head] = []

    @contextmanager
    def of_reference(self) -> Iterator[None]:
        """Within, the reference runs."""
        self._kept.clear()
        with self._tapped(self._keep):
            yield

    @contextmanager
    def of_policy(self) -> Iterator[None]:
        """Within, the policy runs, and KL(ref || pi) stands where `log_sum_sq_probs` would."""
        with self._tapped(self._compare):
            yield
        self._kept.clear()

    @contextmanager
    def _tapped(self, tap: Any) -> Iterator[None]:
        if not self.wanted:
            yield
            return
        with _trl.head(_Tap(tap)):
            yield

    def _keep(self, head: _Head) -> None:
        weight, bias = head.weight.detach(), None if head.bias is None else head.bias.detach()
        self._kept.append(head._replace(hidden=head.hidden.detach(), weight=weight, bias=bias))

    def _compare(self, policy: _Head) -> Tensor | None:
        """KL(ref || pi) of every row, (S,), in nats; None where the reference ran on other rows."""
        for reference in self._kept:
            if torch.equal(reference.targets, policy.targets):
                return kl_of_rows(policy, reference)
        return None


def kl_of_rows(policy: _Head, reference: _Head) -> Tensor:
    """KL(ref || pi) over the vocabulary, (S,), in nats; computed again in the backward pass, block by block."""
    step = max(1, _BLOCK // len(policy.weight))

    def block(start: int, *_: Tensor) -> Tensor:
        rows = slice(start, start + step)
        with torch.no_grad():
            theirs = reference.log_probs(rows)
        return (theirs.exp() * (theirs - policy.log_probs(rows))).sum(dim=1)

    starts = range(0, len(policy.hidden), step)
    # The tensors are named so that the checkpoint knows what has a gradient.
    parts = [checkpoint(block, start, policy.hidden, policy.weight, use_reentrant=False) for start in starts]
    return torch.cat(parts) if parts else policy.hidden.new_zeros(0)


class _Tap:
    """Stands for TRL's autograd function: calls it, and hands its arguments on."""

    def __init__(self, tap: Any) -> None:
        self.tap, self.inner = tap, _trl.own_head()

    def apply(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        chunk_size: int,
        softcap: float | None = None,
        logit_scale: float = 1.0,
        outputs: tuple[str, ...] = _trl.HEAD_OUTPUTS,
    ) -> tuple[Tensor | None, ...]:
        """The head's outputs, with what the tap made in the third place."""
        made = self.tap(_Head(hidden, weight, bias, targets, temperature, softcap, logit_scale))
        rest = tuple(name for name in outputs if name != "log_sum_sq_probs")
        log_probs, entropy, _, mean_logits, is_top1 = self.inner.apply(  # type: ignore[no-untyped-call]
            hidden, weight, bias, targets, temperature, chunk_size, softcap, logit_scale, rest
        )
        return log_probs, entropy, made, mean_logits, is_top1
