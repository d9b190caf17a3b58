"""What a loss of judged groups sees: the log-probabilities of K answers to each prompt, and what was said of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from .._errors import LossError
from ._pairs import PairLogps

Which = Literal["all", "adjacent", "best_worst", "best_rest"]
WHICH: tuple[Which, ...] = ("all", "adjacent", "best_worst", "best_rest")
_HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, eq=False)
class GroupLogps:
    """Log-probabilities of the answers to a batch of prompts, in nats, summed over their tokens; and a judgement.

    Every tensor has the shape (groups, K). Groups may have fewer answers than K: `mask` is False where one has none,
    and what stands there is never read. Half precision becomes float32, as in `PairLogps`.

    Args:
        logps: log pi(y), of the policy.
        ref_logps: log ref(y), of the reference.
        tokens: Tokens of each answer, for means over tokens.
        mask: Which answers there are; default: all.
        ranks: The place of each answer, 1 is the best; equal numbers are ties.
        scores: How good each answer is; higher is better.
        labels: Whether each answer is desirable.
        mismatched: Of each group one log pi(y') of another prompt's answer, shape (groups,), for KTO's estimate of the
            KL divergence.
        ref_mismatched: The reference's, likewise.

    Raises:
        LossError: A shape or a dtype is wrong, a group has no answer, or one of two partners is missing.

    Example:
        >>> group = GroupLogps(torch.tensor([[-3.0, -5.0, -4.0]]), ranks=torch.tensor([[1, 3, 2]]))
        >>> pairs, of = group.pairs("adjacent")
        >>> pairs.chosen, pairs.rejected
        (tensor([-3., -4.]), tensor([-4., -5.]))
    """

    logps: Tensor
    ref_logps: Tensor | None = None
    tokens: Tensor | None = None
    mask: Tensor | None = None
    ranks: Tensor | None = None
    scores: Tensor | None = None
    labels: Tensor | None = None
    mismatched: Tensor | None = None
    ref_mismatched: Tensor | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.logps, Tensor) or self.logps.ndim != 2 or 0 in self.logps.shape:
            shape = tuple(getattr(self.logps, "shape", ()))
            raise LossError(f"`logps` must have the shape (groups, K), with at least one of each (got {shape}).")
        for name in ("ref_logps", "tokens", "mask", "ranks", "scores", "labels"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, Tensor) or value.shape != self.logps.shape):
                raise LossError(
                    f"`{name}` must have the shape of `logps`, {tuple(self.logps.shape)} (got "
                    f"{tuple(getattr(value, 'shape', ()))})."
                )
        for name in ("mask", "labels"):
            value = getattr(self, name)
            if value is not None and value.dtype != torch.bool:
                raise LossError(f"`{name}` must be a tensor of truth values (got {value.dtype}).")
        if (self.mismatched is None) != (self.ref_mismatched is None):
            raise LossError("`mismatched` and `ref_mismatched` must be given together.")
        for name in ("mismatched", "ref_mismatched"):
            value = getattr(self, name)
            if value is not None and value.shape != self.logps.shape[:1]:
                raise LossError(f"`{name}` must have the shape (groups,) (got {tuple(value.shape)}).")
        for name in ("logps", "ref_logps", "mismatched", "ref_mismatched"):
            value = getattr(self, name)
            if value is not None and not value.dtype.is_floating_point:
                raise LossError(f"`{name}` must hold floating-point numbers (got {value.dtype}).")
            if value is not None and value.dtype in _HALF:
                object.__setattr__(self, name, value.float())
        if not self.present.any(-1).all():
            raise LossError("`mask` must leave every group at least one answer.")
        for name in ("ranks", "scores"):
            value = getattr(self, name)
            if value is not None and not torch.isfinite(value[self.present].double()).all():
                raise LossError(f"`{name}` must hold finite numbers, of every answer that is there.")

    def __len__(self) -> int:
        return len(self.logps)

    @property
    def present(self) -> Tensor:
        """Which answers there are, (groups, K)."""
        return torch.ones_like(self.logps, dtype=torch.bool) if self.mask is None else self.mask

    def ratios(self, mean: bool = False) -> Tensor:
        """log pi(y) - log ref(y), (groups, K), 0 where there is no answer; without a reference its logarithm is 0.

        Args:
            mean: Means over tokens instead of sums.

        Raises:
            LossError: Means are asked for, and there are no token counts.
        """
        ratios = self.logps if self.ref_logps is None else self.logps - self.ref_logps
        if mean:
            if self.tokens is None:
                raise LossError("means over tokens need `tokens`, the answers' numbers of tokens.")
            ratios = ratios / self.tokens.clamp(min=1)
        return torch.where(self.present, ratios, 0.0)

    def places(self) -> Tensor:
        """The place of each answer, float, (groups, K): its rank, or by falling score, or desirable ones first.

        Raises:
            LossError: Nothing says which is better.
        """
        if self.ranks is not None:
            return self.ranks.double()
        if self.scores is not None:
            return -self.scores.double()
        if self.labels is not None:
            return (~self.labels).double()
        raise LossError("the answers are not judged: give `ranks`, `scores` or `labels`.")

    def swapped(self) -> GroupLogps:
        """The same answers with every label turned.

        Raises:
            LossError: There are no labels; of a ranking there is no one way to turn it.
        """
        if self.labels is None:
            raise LossError("only labels can be turned; wrap the loss of a pair inside, `pairs(robust(...))`.")
        return replace(self, labels=~self.labels)

    def pairs(self, which: Which = "all") -> tuple[PairLogps, Tensor]:
        """The pairs of answers of which one is judged better, and the group of each.

        Args:
            which: "all" pairs; "adjacent" places; "best_worst"; or the "best_rest", each other one against the best.
                Of answers that share a place each takes part, ties with one another give none.

        Returns:
            The pairs, and a tensor of group numbers, (pairs,).

        Raises:
            LossError: `which` is unknown, nothing says which is better, or no answer is better than another.
        """
        better, worse, group = self.ordered(which)
        return self._picked(group, better, worse), group

    def ordered(self, which: Which = "all") -> tuple[Tensor, Tensor, Tensor]:
        """The places in K of the better and the worse answer of each pair, and its group; see `pairs`."""
        if which not in WHICH:
            raise LossError(f"`which` must be one of {', '.join(map(repr, WHICH))} (got {which!r}).")
        places = torch.where(self.present, self.places(), torch.inf)
        found = [
            (i, j, row)
            for row, values in enumerate(places.tolist())
            for i, j in _pairs_of([v if v < float("inf") else None for v in values], which)
        ]
        if not found:
            raise LossError("no answer of the batch is judged better than another: there is no pair.")
        better, worse, group = torch.tensor(found, device=self.logps.device).T
        return better, worse, group

    def _picked(self, group: Tensor, better: Tensor, worse: Tensor) -> PairLogps:
        ref, tokens = self.ref_logps, self.tokens
        return PairLogps(
            self.logps[group, better],
            self.logps[group, worse],
            None if ref is None else ref[group, better],
            None if ref is None else ref[group, worse],
            None if tokens is None else tokens[group, better],
            None if tokens is None else tokens[group, worse],
        )


def group_of(pairs: PairLogps) -> GroupLogps:
    """Pairs as groups of two, the chosen answer on the first place."""
    ref = None
    if pairs.ref_chosen is not None and pairs.ref_rejected is not None:
        ref = torch.stack([pairs.ref_chosen, pairs.ref_rejected], -1)
    tokens = None
    if pairs.chosen_tokens is not None and pairs.rejected_tokens is not None:
        tokens = torch.stack([pairs.chosen_tokens, pairs.rejected_tokens], -1)
    logps = torch.stack([pairs.chosen, pairs.rejected], -1)
    return GroupLogps(logps, ref, tokens, ranks=torch.tensor([1, 2], device=logps.device).expand(len(logps), 2))


PairLogps.as_group = group_of  # type: ignore[attr-defined]  # said here, as groups are made of pairs


def _pairs_of(places: list[float | None], which: Which) -> Iterator[tuple[int, int]]:
    there = [(value, i) for i, value in enumerate(places) if value is not None]
    steps = sorted({value for value, _ in there})
    for first, i in there:
        for second, j in there:
            near = steps.index(second) - steps.index(first)
            wanted = {
                "all": near > 0,
                "adjacent": near == 1,
                "best_worst": first == steps[0] and second == steps[-1] and near > 0,
                "best_rest": first == steps[0] and near > 0,
            }
            if wanted[which]:
                yield i, j
