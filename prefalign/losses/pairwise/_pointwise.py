"""Losses that judge the chosen and the rejected completion each on its own log-ratio."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .._loss import Composite, Loss, check_number
from .._pairs import PairLogps
from .._registry import register_loss
from ._margin import DPO

_CHOSEN = "(log pi(w) - log ref(w))"
_REJECTED = "(log pi(l) - log ref(l))"


@dataclass(frozen=True)
class _Separate(Loss):
    beta: float

    def __post_init__(self) -> None:
        check_number(self, "beta", 0.0, hint="For a loss without a reference use `SimPO`.")


@register_loss("nca", trl="nca_pair")
@dataclass(frozen=True)
class NCA(_Separate):
    """Noise-contrastive alignment: raises the chosen reward, and holds both near zero.

    -log sigmoid(r_w) - log sigmoid(-r_w)/2 - log sigmoid(-r_l)/2, with r = beta * (log pi - log ref)

    Args:
        beta: Pull towards the reference, dimensionless, > 0.

    Raises:
        LossError: `beta` is not positive.

    Example:
        >>> zeros = torch.zeros(1)
        >>> NCA(beta=0.1)(PairLogps(zeros, zeros, zeros, zeros))  # 2 log 2
        tensor([1.3863])

    Source: Chen et al. 2024, arXiv:2402.05369, for two responses with hard labels.
    """

    @property
    def formula(self) -> str:
        """The formula with its numbers."""
        won, lost = f"{self.beta:g}*{_CHOSEN}", f"{self.beta:g}*{_REJECTED}"
        return f"-log sigmoid({won}) - 0.5*log sigmoid(-{won}) - 0.5*log sigmoid(-{lost})"

    def __call__(self, pair_logps: PairLogps) -> Tensor:
        """The loss of every pair, shape (pairs,)."""
        chosen, rejected = pair_logps.ratios()
        won, lost = self.beta * chosen, self.beta * rejected
        return -functional.logsigmoid(won) - 0.5 * functional.logsigmoid(-won) - 0.5 * functional.logsigmoid(-lost)


@register_loss("bco", trl="bco_pair")
@dataclass(frozen=True)
class BCO(_Separate):
    """Binary classifier: chosen rewards above `shift`, rejected rewards below it.

    -log sigmoid(r_w - shift) - log sigmoid(-(r_l - shift)), with r = beta * (log pi - log ref)

    Args:
        beta: Pull towards the reference, dimensionless, > 0.
        shift: The reward at the classifier's boundary, a constant. 0 is TRL's and Liger's `bco_pair`.

    Raises:
        LossError: `beta` is not positive, or `shift` is not finite.

    Example:
        >>> zeros = torch.zeros(1)
        >>> BCO(beta=0.1)(PairLogps(zeros, zeros, zeros, zeros))  # 2 log 2
        tensor([1.3863])

    Source: Jung et al. 2024, arXiv:2404.04656. Departure: the paper and LLaMA-Factory shift by the running mean
    of the rewards, which is state and not a function of the batch; here the shift is a number.
    """

    shift: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "shift", -float("inf"))

    @property
    def formula(self) -> str:
        """The formula with its numbers."""
        won, lost = f"{self.beta:g}*{_CHOSEN}", f"{self.beta:g}*{_REJECTED}"
        return f"-log sigmoid({won} - {self.shift:g}) - log sigmoid(-({lost} - {self.shift:g}))"

    def __call__(self, pair_logps: PairLogps) -> Tensor:
        """The loss of every pair, shape (pairs,)."""
        chosen, rejected = pair_logps.ratios()
        won, lost = self.beta * chosen - self.shift, self.beta * rejected - self.shift
        return -functional.logsigmoid(won) - functional.logsigmoid(-lost)


@register_loss("sppo", trl="sppo_hard")
@dataclass(frozen=True)
class SPPO(_Separate):
    """Self-play preference optimisation with hard labels: log-ratios of +1/(2*beta) and -1/(2*beta).

    (log pi(w) - log ref(w) - 1/(2*beta))**2 + (log pi(l) - log ref(l) + 1/(2*beta))**2

    Args:
        beta: Dimensionless, > 0; the targets are +-1/(2*beta) nats.

    Raises:
        LossError: `beta` is not positive.

    Example:
        >>> zeros = torch.zeros(1)
        >>> SPPO(beta=0.5)(PairLogps(zeros, zeros, zeros, zeros))  # 1 + 1
        tensor([2.])

    Source: Wu et al. 2024, arXiv:2405.00675, Eq. 4.7 with win probabilities 1 and 0.
    """

    @property
    def formula(self) -> str:
        """The formula with its numbers."""
        return f"({_CHOSEN} - {0.5 / self.beta:g})**2 + ({_REJECTED} + {0.5 / self.beta:g})**2"

    def __call__(self, pair_logps: PairLogps) -> Tensor:
        """The loss of every pair, shape (pairs,)."""
        chosen, rejected = pair_logps.ratios()
        return (chosen - 0.5 / self.beta) ** 2 + (rejected + 0.5 / self.beta) ** 2


@register_loss("cal_dpo")
@dataclass(frozen=True)
class CalDPO(Composite):
    """DPO whose log-ratios are held near +1/(2*beta) and -1/(2*beta), so that they have the scale of a reward.

    DPO(1) + weight * SPPO(beta)

    Args:
        beta: Dimensionless, > 0; the targets are +-1/(2*beta) nats. The logistic term has none.
        weight: Of the squared distances, > 0.

    Raises:
        LossError: An argument is out of range.

    Example:
        >>> zeros = torch.zeros(1)
        >>> CalDPO(beta=0.5)(PairLogps(zeros, zeros, zeros, zeros))  # log 2 + 1 + 1
        tensor([2.6931])

    Source: Xiao et al. 2024, arXiv:2412.14516, Eq. 10. The authors' code takes weight = 0.5.
    """

    beta: float
    weight: float = 1.0

    def __post_init__(self) -> None:
        check_number(self, "beta", 0.0)
        check_number(self, "weight", 0.0, hint="For the logistic term alone use `DPO(beta=1)`.")

    @property
    def terms(self) -> tuple[tuple[float, Loss], ...]:
        """The logistic term, and the squared distances."""
        return ((1.0, DPO(1.0)), (self.weight, SPPO(self.beta)))


@register_loss("apo_zero", trl="apo_zero")
@dataclass(frozen=True)
class APOZero(_Separate):
    """Anchored: the chosen completion up, the rejected one down. For data better than the model.

    (1 - sigmoid(r_w)) + sigmoid(r_l), with r = beta * (log pi - log ref)

    Args:
        beta: Pull towards the reference, dimensionless, > 0.

    Raises:
        LossError: `beta` is not positive.

    Example:
        >>> zeros = torch.zeros(1)
        >>> APOZero(beta=0.1)(PairLogps(zeros, zeros, zeros, zeros))
        tensor([1.])

    Source: D'Oosterlinck et al. 2024, arXiv:2408.06266, Eq. 7.
    """

    @property
    def formula(self) -> str:
        """The formula with its numbers."""
        return f"1 - sigmoid({self.beta:g}*{_CHOSEN}) + sigmoid({self.beta:g}*{_REJECTED})"

    def __call__(self, pair_logps: PairLogps) -> Tensor:
        """The loss of every pair, shape (pairs,)."""
        chosen, rejected = pair_logps.ratios()
        return (1 - torch.sigmoid(self.beta * chosen)) + torch.sigmoid(self.beta * rejected)


@register_loss("apo_down", trl="apo_down")
@dataclass(frozen=True)
class APODown(_Separate):
    """Anchored: both completions down, the rejected one further. For data worse than the model.

    sigmoid(r_w) + (1 - sigmoid(r_w - r_l)), with r = beta * (log pi - log ref)

    Args:
        beta: Pull towards the reference, dimensionless, > 0.

    Raises:
        LossError: `beta` is not positive.

    Example:
        >>> zeros = torch.zeros(1)
        >>> APODown(beta=0.1)(PairLogps(zeros, zeros, zeros, zeros))
        tensor([1.])

    Source: D'Oosterlinck et al. 2024, arXiv:2408.06266, Eq. 8.
    """

    @property
    def formula(self) -> str:
        """The formula with its numbers."""
        return f"sigmoid({self.beta:g}*{_CHOSEN}) + 1 - sigmoid({self.beta:g}*({_CHOSEN} - {_REJECTED}))"

    def __call__(self, pair_logps: PairLogps) -> Tensor:
        """The loss of every pair, shape (pairs,)."""
        chosen, rejected = pair_logps.ratios()
        return torch.sigmoid(self.beta * chosen) + (1 - torch.sigmoid(self.beta * (chosen - rejected)))
