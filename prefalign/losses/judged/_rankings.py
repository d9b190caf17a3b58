"""Losses of rankings: Plackett-Luce, the best of K, LiPO's lambda weights, and any loss of pairs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..._errors import LossError
from .._groups import WHICH, GroupLogps, Which
from .._loss import Loss, check_number
from .._registry import register_loss
from ._base import JudgedLoss, Reads

_RATIO = "(log pi(y) - log ref(y))"


@register_loss("plackett_luce")
@dataclass(frozen=True)
class PlackettLuce(JudgedLoss):
    """The likelihood of a ranking in which each place is won against all that come later: DPO for K answers.

    -sum over places j < K of [beta*r_(j) - logsumexp over m >= j of beta*r_(m)], with r = log pi(y) - log ref(y)

    Answers that share a place are broken by Efron's approximation, which is exact where their rewards are equal.

    Args:
        beta: Pull towards the reference, dimensionless, > 0.
        top: Stop after so many places, at least 1; None: all. With 1 it is `best_of`.
        mean: Means over tokens instead of sums.

    Raises:
        LossError: An argument is out of range.

    Example:
        >>> group = GroupLogps(torch.tensor([[-1.0, -2.0, -3.0]]), torch.zeros(1, 3), ranks=torch.tensor([[1, 2, 3]]))
        >>> PlackettLuce(beta=1.0)(group)  # log(1 + e^-1 + e^-2) + log(1 + e^-1)
        tensor([0.7209])

    Source: Rafailov et al. 2023, arXiv:2305.18290, App. A.3; ties: Efron 1977.
    """

    beta: float
    top: int | None = None
    mean: bool = False

    def __post_init__(self) -> None:
        check_number(self, "beta", 0.0)
        if self.top is not None and (isinstance(self.top, bool) or not isinstance(self.top, int) or self.top < 1):
            raise LossError(f"`top` must be a whole number of places, at least 1, or None (got {self.top!r}).")

    @property
    def reads(self) -> Reads:
        """A ranking; of its best alone if it stops after the first place."""
        return "best" if self.top == 1 else "ranking"

    @property
    def formula(self) -> str:
        """The formula with its numbers."""
        places = "j" if self.top is None else f"j <= {self.top}"
        return f"-sum_{places} [{self.beta:g}*r_(j) - logsumexp_(m>=j) {self.beta:g}*r_(m)], r = {_RATIO}"

    def of_groups(self, groups: GroupLogps) -> Tensor:
        """The loss of every group, shape (groups,)."""
        ratios, places, there = groups.ratios(self.mean), groups.places(), groups.present
        return torch.stack([self._one(r[t], p[t]) for r, p, t in zip(ratios, places, there, strict=True)])

    def _one(self, ratios: Tensor, places: Tensor) -> Tensor:
        """One group's value."""
        value, stages = ratios.sum() * 0.0, 0
        most = len(ratios) - 1 if self.top is None else min(self.top, len(ratios) - 1)
        for place in sorted(set(places.tolist())):
            risk, tied = ratios[places >= place], ratios[places == place]
            for k in range(min(len(tied), most - stages)):
                stages += 1
                if k == 0 and len(tied) == 1:
                    value = value - functional.logsigmoid(against(self.beta, tied[0], ratios[places > place]))
                    continue
                everything = (self.beta * risk).logsumexp(0)
                if k:  # Efron: of the tied answers the share k/d is gone
                    share = (self.beta * tied).logsumexp(0) - everything
                    everything = everything + torch.log1p(-(k / len(tied)) * share.exp())
                value = value + everything - self.beta * tied.mean()
        return value


def against(beta: float, best: Tensor, others: Tensor) -> Tensor:
    """beta*r_best - logsumexp of beta*r of the others; of one other DPO's own difference, to the last bit."""
    if len(others) == 1:
        return beta * (best - others[0])
    return beta * best - (beta * others).logsumexp(0)


@register_loss("best_of")
@dataclass(frozen=True)
class BestOf(JudgedLoss):
    """The best answer against all others at once: a softmax over the group.

    -[beta*r_best - logsumexp over the group of beta*r], with r = log pi(y) - log ref(y)

    Args:
        beta: Pull towards the reference, dimensionless, > 0.
        mean: Means over tokens instead of sums.

    Raises:
        LossError: `beta` is out of range.

    Example:
        >>> group = GroupLogps(torch.tensor([[-1.0, -1.0, -1.0]]), torch.zeros(1, 3), ranks=torch.tensor([[1, 2, 2]]))
        >>> BestOf(beta=0.1)(group)  # log 3
        tensor([1.0986])

    Source: Chen et al. 2024, S-DPO, arXiv:2406.09215.
    """

    beta: float
    mean: bool = False

    def __post_init__(self) -> None:
        check_number(self, "beta", 0.0)

    @property
    def reads(self) -> Reads:
        """The best answer."""
        return "best"

    @property
    def formula(self) -> str:
        """The formula with its numbers."""
        return f"-[{self.beta:g}*r_best - logsumexp_k {self.beta:g}*r_k], r = {_RATIO}"

    def of_groups(self, groups: GroupLogps) -> Tensor:
        """The loss of every group, shape (groups,); of several best answers the mean."""
        ratios, places, there = groups.ratios(self.mean), groups.places(), groups.present
        return torch.stack([self._one(r[t], p[t]) for r, p, t in zip(ratios, places, there, strict=True)])

    def _one(self, ratios: Tensor, places: Tensor) -> Tensor:
        best = places == places.min()
        if best.sum() == 1 and len(ratios) > 1:
            return -functional.logsigmoid(against(self.beta, ratios[best][0], ratios[~best]))
        return (self.beta * ratios).logsumexp(0) - self.beta * ratios[best].mean()


@register_loss("lipo")
@dataclass(frozen=True)
class LiPO(JudgedLoss):
    """Every pair of a scored group, weighted by what exchanging the two would change in the ranking's DCG.

    sum over s_i > s_j of D_ij * log(1 + exp(-beta*(r_i - r_j))),
    D_ij = |2^s_i - 2^s_j| * |1/log(1 + t_i) - 1/log(1 + t_j)|, t the place by the current r, detached

    Args:
        beta: Pull towards the reference, dimensionless, > 0.
        mean: Means over tokens instead of sums.

    Raises:
        LossError: `beta` is out of range.

    Source: Liu et al. 2024, LiPO-lambda, arXiv:2402.01878.
    """

    beta: float
    mean: bool = False

    def __post_init__(self) -> None:
        check_number(self, "beta", 0.0)

    @property
    def reads(self) -> Reads:
        """Scores."""
        return "scores"

    @property
    def formula(self) -> str:
        """The formula with its numbers."""
        return f"sum_(s_i > s_j) D_ij*log(1 + exp(-{self.beta:g}*(r_i - r_j))), r = {_RATIO}"

    def of_groups(self, groups: GroupLogps) -> Tensor:
        """The loss of every group, shape (groups,)."""
        if groups.scores is None:
            raise LossError("`lipo` reads scores: give `scores`.")
        rewards, there = groups.ratios(self.mean), groups.present
        scores = torch.where(there, groups.scores.to(rewards.dtype), 0.0)
        held = rewards.detach().masked_fill(~there, -torch.inf)
        places = held.argsort(dim=-1, descending=True, stable=True).argsort(-1).to(rewards.dtype) + 1
        discount = 1 / torch.log1p(places)
        gain = 2.0**scores
        weight = (gain[:, :, None] - gain[:, None, :]).abs() * (discount[:, :, None] - discount[:, None, :]).abs()
        asked = (scores[:, :, None] > scores[:, None, :]) & there[:, :, None] & there[:, None, :]
        gaps = self.beta * (rewards[:, :, None] - rewards[:, None, :])
        return torch.where(asked, weight * functional.softplus(-gaps), 0.0).sum((-2, -1))


@register_loss("pairs")
@dataclass(frozen=True)
class Pairs(JudgedLoss):
    """Any loss of pairs on the ordered pairs of a group: their mean.

    mean over pairs (i better than j) of weight_ij * loss(i, j)

    With "all" pairs of K answers each of them counts K - 1 times: the gradient is that of K(K - 1)/2 rows.

    Args:
        loss: Any loss of pairs.
        which: "all", "adjacent", "best_worst" or "best_rest".
        weight: "one", or the "gap" of the scores.

    Raises:
        LossError: An argument is wrong.

    Example:
        >>> group = GroupLogps(torch.tensor([[-1.0, -2.0, -3.0]]), ranks=torch.tensor([[1, 2, 3]]))
        >>> Pairs(CPO(beta=1.0), which="best_rest")(group)  # mean of -log sigmoid(1) and -log sigmoid(2), and CPO's NLL
        tensor([1.2201])
    """

    loss: Loss
    which: Which = "all"
    weight: str = "one"

    def __post_init__(self) -> None:
        if not isinstance(self.loss, Loss) or isinstance(self.loss, JudgedLoss):
            raise LossError(f"`loss` must be a loss of pairs, as in `pairs(dpo(beta=0.1))` (got {self.loss!r}).")
        if self.which not in WHICH:
            raise LossError(f"`which` must be one of {', '.join(map(repr, WHICH))} (got {self.which!r}).")
        if self.weight not in ("one", "gap"):
            raise LossError(f"`weight` must be 'one' or 'gap' (got {self.weight!r}).")

    @property
    def reads(self) -> Reads:
        """A ranking, or scores where they weigh."""
        if self.weight == "gap":
            return "scores"
        return "best" if self.which == "best_rest" else "ranking"

    @property
    def needs_reference(self) -> bool:
        """As the loss inside."""
        return self.loss.needs_reference

    @property
    def needs_lengths(self) -> bool:
        """As the loss inside."""
        return self.loss.needs_lengths

    @property
    def formula(self) -> str:
        """The formula inside, and over which pairs it is averaged."""
        factor = "(s_w - s_l)*" if self.weight == "gap" else ""
        return f"mean over {self.which} pairs of {factor}[{self.loss.formula}]"

    def of_groups(self, groups: GroupLogps) -> Tensor:
        """The loss of every group, shape (groups,); 0 for one without a pair."""
        if self.weight == "gap":
            if groups.scores is None:
                raise LossError("`weight='gap'` reads scores: give `scores`.")
            groups = replace_ranks(groups)  # the order is that of the gaps
        better, worse, group = groups.ordered(self.which)
        pairs, _ = groups.pairs(self.which)
        values = self.loss(pairs)
        if self.weight == "gap" and groups.scores is not None:
            values = values * (groups.scores[group, better] - groups.scores[group, worse]).to(values.dtype)
        total = torch.zeros(len(groups), dtype=values.dtype, device=values.device).index_add(0, group, values)
        return total / group.bincount(minlength=len(groups)).clamp(min=1)


@register_loss("odpo")
@dataclass(frozen=True)
class ODPO(JudgedLoss):
    """DPO with an offset that follows the scores: the better the winner, the larger the margin it must have.

    mean over pairs of -log sigmoid(beta*(r_w - r_l) - alpha*offset(s_w - s_l))

    Args:
        beta: Pull towards the reference, dimensionless, > 0.
        alpha: The offset's weight, >= 0.
        offset: "log" of the gap, the paper's; or the gap itself, "linear".
        which: Over which pairs of a group, as in `pairs`.

    Raises:
        LossError: An argument is wrong.

    Source: Amini, Vieira, Cotterell 2024, arXiv:2402.10571, Eq. 8.
    """

    beta: float
    alpha: float = 1.0
    offset: str = "log"
    which: Which = "all"

    def __post_init__(self) -> None:
        check_number(self, "beta", 0.0)
        check_number(self, "alpha", 0.0, closed=True)
        if self.offset not in ("log", "linear"):
            raise LossError(f"`offset` must be 'log' or 'linear' (got {self.offset!r}).")
        if self.which not in WHICH:
            raise LossError(f"`which` must be one of {', '.join(map(repr, WHICH))} (got {self.which!r}).")

    @property
    def reads(self) -> Reads:
        """Scores."""
        return "scores"

    @property
    def formula(self) -> str:
        """The formula with its numbers."""
        gap = "log(s_w - s_l)" if self.offset == "log" else "(s_w - s_l)"
        return f"-log sigmoid({self.beta:g}*(r_w - r_l) - {self.alpha:g}*{gap}), r = {_RATIO}"

    def of_groups(self, groups: GroupLogps) -> Tensor:
        """The loss of every group, shape (groups,): the mean over its pairs."""
        if groups.scores is None:
            raise LossError("`odpo` reads scores: give `scores`.")
        better, worse, group = replace_ranks(groups).ordered(self.which)
        rewards = groups.ratios()
        gap = (groups.scores[group, better] - groups.scores[group, worse]).to(rewards.dtype)
        margin = gap.log() if self.offset == "log" else gap
        gaps = self.beta * (rewards[group, better] - rewards[group, worse])
        values = -functional.logsigmoid(gaps - self.alpha * margin)
        total = torch.zeros(len(groups), dtype=values.dtype, device=values.device).index_add(0, group, values)
        return total / group.bincount(minlength=len(groups)).clamp(min=1)


def replace_ranks(groups: GroupLogps) -> GroupLogps:
    """The groups ordered by their scores alone."""
    return GroupLogps(groups.logps, groups.ref_logps, groups.tokens, groups.mask, scores=groups.scores)
