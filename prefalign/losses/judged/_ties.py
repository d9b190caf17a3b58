"""DPO for pairs that may be ties: the models of Rao and Kupper, and of Davidson."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .._groups import GroupLogps
from .._loss import check_number
from .._registry import register_loss
from ._base import JudgedLoss, Reads


@dataclass(frozen=True)
class _Ties(JudgedLoss):
    """The mean over the pairs of a group, each of which is clear or a tie.

    Args:
        beta: Pull towards the reference, dimensionless, > 0.
        tie: How willing the judges are to call a tie, > 0.
        mean: Means over tokens instead of sums.

    Raises:
        LossError: An argument is out of range.
    """

    beta: float
    tie: float
    mean: bool = False

    def __post_init__(self) -> None:
        check_number(self, "beta", 0.0)
        check_number(self, "tie", 0.0)

    @property
    def reads(self) -> Reads:
        """A ranking, with equal places for ties."""
        return "ranking"

    def clear(self, d: Tensor) -> Tensor:
        """-log of the probability that the better answer wins, d = beta*(r_w - r_l)."""
        raise AssertionError(f"{type(self).__name__} defines `clear`")

    def tied(self, d: Tensor) -> Tensor:
        """-log of the probability of a tie."""
        raise AssertionError(f"{type(self).__name__} defines `tied`")

    def of_groups(self, groups: GroupLogps) -> Tensor:
        """The loss of every group, shape (groups,): the mean over its pairs; 0 for one of a single answer."""
        ratios, places, there = groups.ratios(self.mean), groups.places(), groups.present
        values = []
        for r, p in ((r[t], p[t]) for r, p, t in zip(ratios, places, there, strict=True)):
            if len(r) == 1:
                values.append(r.sum() * 0.0)
                continue
            first, second = torch.triu_indices(len(r), len(r), 1, device=r.device)
            turned = torch.where(p[first] > p[second], -1.0, 1.0).to(r.dtype)
            d = self.beta * (turned * (r[first] - r[second]))
            values.append(torch.where(p[first] == p[second], self.tied(d), self.clear(d)).mean())
        return torch.stack(values)


@register_loss("rao_kupper")
@dataclass(frozen=True)
class RaoKupper(_Ties):
    """DPO with ties by Rao and Kupper: a winner must be ahead by a threshold.

    clear: -log sigmoid(d - a); tie: -log(nu**2 - 1) - log sigmoid(d - a) - log sigmoid(-d - a),
    d = beta*(r_w - r_l), a = log nu = tie

    The probabilities of the two wins and of the tie add to one; as `tie` goes to 0 clear pairs are DPO's.

    Args:
        beta: Pull towards the reference, dimensionless, > 0.
        tie: The threshold a, in units of the reward, > 0.
        mean: Means over tokens instead of sums.

    Raises:
        LossError: An argument is out of range.

    Source: Rao, Kupper 1967; for DPO Chen et al. 2024, arXiv:2409.17431.
    """

    @property
    def formula(self) -> str:
        """The formula with its numbers."""
        return f"clear: -log sigmoid({self.beta:g}*(r_w - r_l) - {self.tie:g}); ties as in Rao and Kupper"

    def clear(self, d: Tensor) -> Tensor:
        """-log sigmoid(d - a)."""
        return -functional.logsigmoid(d - self.tie)

    def tied(self, d: Tensor) -> Tensor:
        """-log of what the two wins leave."""
        both = functional.logsigmoid(d - self.tie) + functional.logsigmoid(-d - self.tie)
        return -math.log(math.expm1(2 * self.tie)) - both


@register_loss("davidson")
@dataclass(frozen=True)
class Davidson(_Ties):
    """DPO with ties by Davidson: a tie's strength is the geometric mean of the two answers'.

    clear: log(1 + e^-d + 2 nu e^(-d/2)); tie: the same - log(2 nu) + d/2, d = beta*(r_w - r_l), nu = tie

    The probabilities of the two wins and of the tie add to one; as `tie` goes to 0 clear pairs are DPO's.

    Args:
        beta: Pull towards the reference, dimensionless, > 0.
        tie: nu, > 0: at equal rewards a tie is 2 nu times as likely as a win.
        mean: Means over tokens instead of sums.

    Raises:
        LossError: An argument is out of range.

    Source: Davidson 1970; for DPO Chen et al. 2024, arXiv:2409.17431.
    """

    @property
    def formula(self) -> str:
        """The formula with its numbers."""
        return f"clear: log(1 + e^-d + 2*{self.tie:g}*e^(-d/2)), d = {self.beta:g}*(r_w - r_l); ties as in Davidson"

    def clear(self, d: Tensor) -> Tensor:
        """log(1 + e^-d + 2 nu e^(-d/2))."""
        parts = torch.stack([torch.zeros_like(d), -d, math.log(2 * self.tie) - d / 2])
        return parts.logsumexp(0)

    def tied(self, d: Tensor) -> Tensor:
        """The same, less the logarithm of the tie's own strength."""
        return self.clear(d) - math.log(2 * self.tie) + d / 2
