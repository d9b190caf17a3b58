"""Losses of single labels: an answer is desirable, or it is not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from ..._errors import LossError
from .._groups import GroupLogps
from .._loss import check_number
from .._registry import register_loss
from ._base import JudgedLoss, Reads

BATCH: Literal["batch"] = "batch"
_RATIO = "(log pi(y) - log ref(y))"


@dataclass(frozen=True)
class _Labelled(JudgedLoss):
    """A term for each desirable and one for each undesirable answer; of a group the mean."""

    @property
    def reads(self) -> Reads:
        """Labels."""
        return "label"

    def of_groups(self, groups: GroupLogps) -> Tensor:
        """The loss of every group, shape (groups,): the mean over its answers."""
        if groups.labels is None:
            raise LossError(f"`{type(self).__name__}` reads labels: give `labels`.")
        ratios, there = groups.ratios(), groups.present
        values = torch.where(groups.labels, *self.sides(ratios, groups))
        return torch.where(there, values, 0.0).sum(-1) / there.sum(-1)

    def sides(self, ratios: Tensor, groups: GroupLogps) -> tuple[Tensor, Tensor]:
        """The terms of desirable and of undesirable answers, (groups, K) each."""
        raise AssertionError(f"{type(self).__name__} defines `sides`")


@register_loss("kto")
@dataclass(frozen=True)
class KTO(_Labelled):
    """Kahneman-Tversky optimisation: the utility of an answer against a reference point z.

    desirable: l_D * (1 - sigmoid(beta*(r - z))); undesirable: l_U * (1 - sigmoid(beta*(z - r))), r = log pi - log ref

    z estimates the KL divergence of policy and reference, at least 0, without a gradient.

    Args:
        beta: Pull towards the reference, dimensionless, > 0.
        desirable: l_D, the weight of desirable answers, >= 0.
        undesirable: l_U, of undesirable ones, >= 0.
        baseline: Where z comes from: "batch", the mean log ratio of mismatched answers (`GroupLogps.mismatched`), as in
            the paper; or a number, such as 0.0, with which this is APO-zero's form for single answers.

    Raises:
        LossError: An argument is out of range.

    Example:
        >>> one = torch.zeros(2, 1)
        >>> labels = torch.tensor([[True], [False]])
        >>> KTO(beta=0.1, desirable=2.0, baseline=0.0)(GroupLogps(one, one, labels=labels))
        tensor([1.0000, 0.5000])

    Source: Ethayarajh et al. 2024, arXiv:2402.01306, Eq. 8.
    """

    beta: float
    desirable: float = 1.0
    undesirable: float = 1.0
    baseline: float | Literal["batch"] = BATCH

    def __post_init__(self) -> None:
        check_number(self, "beta", 0.0)
        check_number(self, "desirable", 0.0, closed=True)
        check_number(self, "undesirable", 0.0, closed=True)
        if self.baseline != BATCH:
            check_number(self, "baseline", 0.0, closed=True)

    @property
    def couples_pairs(self) -> bool:
        """Where z is the batch's."""
        return self.baseline == BATCH

    @property
    def formula(self) -> str:
        """The formula with its numbers."""
        z = "the batch's KL" if self.baseline == BATCH else f"{self.baseline:g}"
        return (
            f"desirable: {self.desirable:g}*(1 - sigmoid({self.beta:g}*(r - z))); undesirable: "
            f"{self.undesirable:g}*(1 - sigmoid({self.beta:g}*(z - r))), z = {z}, r = {_RATIO}"
        )

    def point(self, groups: GroupLogps) -> Tensor | float:
        """z, in nats, detached.

        Raises:
            LossError: It is the batch's, and no mismatched answers were given.
        """
        if self.baseline != BATCH:
            return float(self.baseline)
        if groups.mismatched is None or groups.ref_mismatched is None:
            raise LossError(
                "`baseline='batch'` reads the log-probabilities of mismatched answers: give `mismatched` and "
                "`ref_mismatched`, or a number as the baseline, such as 0.0."
            )
        return (groups.mismatched - groups.ref_mismatched).mean().clamp(min=0).detach()

    def sides(self, ratios: Tensor, groups: GroupLogps) -> tuple[Tensor, Tensor]:
        """The two terms."""
        z = self.point(groups)
        return (
            self.desirable * (1 - torch.sigmoid(self.beta * (ratios - z))),
            self.undesirable * (1 - torch.sigmoid(self.beta * (z - ratios))),
        )


@register_loss("unpaired_bco")
@dataclass(frozen=True)
class UnpairedBCO(_Labelled):
    """Binary classifier optimisation of single labels: a logistic regression on the reward, with a shift.

    desirable: -log sigmoid(beta*r - d); undesirable: -log sigmoid(d - beta*r), r = log pi - log ref

    Args:
        beta: Pull towards the reference, dimensionless, > 0.
        shift: d: "batch", the mean of the two labels' mean rewards in the batch, without a gradient (of one label alone
            its mean); or a number, in units of the reward.

    Raises:
        LossError: An argument is out of range.

    Source: Jung et al. 2024, arXiv:2404.04656, Eq. 15; there d runs over batches.
    """

    beta: float
    shift: float | Literal["batch"] = BATCH

    def __post_init__(self) -> None:
        check_number(self, "beta", 0.0)
        if self.shift != BATCH:
            check_number(self, "shift", -math.inf)

    @property
    def couples_pairs(self) -> bool:
        """Where the shift is the batch's."""
        return self.shift == BATCH

    @property
    def formula(self) -> str:
        """The formula with its numbers."""
        d = "the batch's shift" if self.shift == BATCH else f"{self.shift:g}"
        return (
            f"desirable: -log sigmoid({self.beta:g}*r - d); undesirable: -log sigmoid(d - {self.beta:g}*r), d = {d}, "
            f"r = {_RATIO}"
        )

    def sides(self, ratios: Tensor, groups: GroupLogps) -> tuple[Tensor, Tensor]:
        """The two terms."""
        rewards = self.beta * ratios
        shift: Tensor | float
        if self.shift == BATCH:
            assert groups.labels is not None
            means = [rewards[groups.present & side].mean() for side in (groups.labels, ~groups.labels)]
            known = [mean for mean in means if not mean.isnan()]
            shift = torch.stack(known).mean().detach()
        else:
            shift = float(self.shift)
        return -functional.logsigmoid(rewards - shift), -functional.logsigmoid(shift - rewards)


@register_loss("unpaired_apo")
@dataclass(frozen=True)
class UnpairedAPO(_Labelled):
    """APO-zero of single labels: raise desirable answers, lower undesirable ones, both with a bounded pull.

    desirable: 1 - sigmoid(beta*r); undesirable: sigmoid(beta*r), r = log pi - log ref

    Args:
        beta: Pull towards the reference, dimensionless, > 0.

    Raises:
        LossError: `beta` is out of range.

    Source: D'Oosterlinck et al. 2024, arXiv:2408.06266.
    """

    beta: float

    def __post_init__(self) -> None:
        check_number(self, "beta", 0.0)

    @property
    def formula(self) -> str:
        """The formula with its numbers."""
        return f"desirable: 1 - sigmoid({self.beta:g}*r); undesirable: sigmoid({self.beta:g}*r), r = {_RATIO}"

    def sides(self, ratios: Tensor, groups: GroupLogps) -> tuple[Tensor, Tensor]:
        """The two terms."""
        good = torch.sigmoid(self.beta * ratios)
        return 1 - good, good
