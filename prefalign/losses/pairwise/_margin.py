"""Losses on the difference of the two log-ratios."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .._loss import Loss, check_flag, check_number
from .._pairs import PairLogps
from .._registry import register_loss

NO_ZERO_BETA = "At 0 the loss would be a constant. For a loss without a reference use `SimPO`."


def difference(mean: bool) -> str:
    """How the difference of log-ratios prints."""
    if mean:
        return "(log pi(w) - log ref(w))/|w| - (log pi(l) - log ref(l))/|l|"
    return "(log pi(w) - log ref(w)) - (log pi(l) - log ref(l))"


@register_loss("dpo", trl="sigmoid")
@dataclass(frozen=True)
class DPO(Loss):
    """Logistic loss on the difference of log-ratios.

    -log sigmoid(beta * ((log pi(w) - log ref(w)) - (log pi(l) - log ref(l))))

    Args:
        beta: Pull towards the reference, dimensionless, > 0.
        mean: Divide each log-ratio by its number of tokens (TRL's `sigmoid_norm`) instead of summing over tokens.

    Raises:
        LossError: `beta` is not positive.

    Example:
        >>> zeros = torch.zeros(2)
        >>> DPO(beta=0.1)(PairLogps(zeros, zeros, zeros, zeros))
        tensor([0.6931, 0.6931])

    Source: Rafailov et al. 2023, arXiv:2305.18290, Eq. 7. `mean=True` is not in the paper.
    """

    beta: float
    mean: bool = False

    def __post_init__(self) -> None:
        check_number(self, "beta", 0.0, hint=NO_ZERO_BETA)
        check_flag(self, "mean")

    @property
    def formula(self) -> str:
        """The formula with its numbers."""
        return f"-log sigmoid({self.beta:g}*({difference(self.mean)}))"

    def __call__(self, pair_logps: PairLogps) -> Tensor:
        """The loss of every pair, shape (pairs,)."""
        chosen, rejected = pair_logps.ratios(self.mean)
        return -functional.logsigmoid(self.beta * (chosen - rejected))


@register_loss("ipo", trl="ipo")
@dataclass(frozen=True)
class IPO(Loss):
    """Squared distance of the difference of log-ratios from a finite target.

    ((log pi(w) - log ref(w))/|w| - (log pi(l) - log ref(l))/|l| - 1/(2*beta))**2

    Args:
        beta: The paper's tau, dimensionless, > 0; the target margin is 1/(2*beta) nats.
        mean: Means over tokens, as TRL, HALOs and LLaMA-Factory; False: sums over tokens, as the original DPO code and
            OpenRLHF. The paper writes sums; its authors told TRL's that their experiments took means.

    Raises:
        LossError: `beta` is not positive.

    Example:
        >>> zeros, ones = torch.zeros(1), torch.ones(1)
        >>> IPO(beta=0.5)(PairLogps(ones, zeros, zeros, zeros, ones, ones))
        tensor([0.])

    Source: Azar et al. 2023, arXiv:2310.12036, Eq. 17.
    """

    beta: float
    mean: bool = True

    def __post_init__(self) -> None:
        check_number(self, "beta", 0.0, hint="The target margin is 1/(2*beta).")
        check_flag(self, "mean")

    @property
    def formula(self) -> str:
        """The formula with its numbers."""
        return f"({difference(self.mean)} - {1 / (2 * self.beta):g})**2"

    def __call__(self, pair_logps: PairLogps) -> Tensor:
        """The loss of every pair, shape (pairs,)."""
        chosen, rejected = pair_logps.ratios(self.mean)
        return (chosen - rejected - 1 / (2 * self.beta)) ** 2


@register_loss("slic", trl="hinge")
@dataclass(frozen=True)
class SLiC(Loss):
    """Hinge loss on the difference of log-ratios: TRL's `hinge`.

    max(0, 1 - beta * ((log pi(w) - log ref(w)) - (log pi(l) - log ref(l))))

    Args:
        beta: The margin is 1/beta nats, > 0.

    Raises:
        LossError: `beta` is not positive.

    Example:
        >>> zeros = torch.zeros(1)
        >>> SLiC(beta=0.1)(PairLogps(zeros, zeros, zeros, zeros))
        tensor([1.])

    Source: the normalised hinge of Liu et al. 2023, arXiv:2309.06657. Departure: Zhao et al. 2023, arXiv:2305.10425,
    take max(0, delta - log pi(w) + log pi(l)), without a reference and with a regulariser; add `sft` for the latter.
    """

    beta: float

    def __post_init__(self) -> None:
        check_number(self, "beta", 0.0, hint="The margin is 1/beta.")

    @property
    def formula(self) -> str:
        """The formula with its numbers."""
        return f"max(0, 1 - {self.beta:g}*({difference(False)}))"

    def __call__(self, pair_logps: PairLogps) -> Tensor:
        """The loss of every pair, shape (pairs,)."""
        chosen, rejected = pair_logps.ratios()
        return torch.relu(1 - self.beta * (chosen - rejected))


@register_loss("dpop")
@dataclass(frozen=True)
class DPOP(Loss):
    """DPO with a penalty where the chosen completion becomes less likely than under the reference.

    -log sigmoid(beta * (D - penalty * max(0, log ref(w) - log pi(w)))), with D the difference of log-ratios

    Args:
        beta: Pull towards the reference, dimensionless, > 0.
        penalty: The paper's lambda, >= 0; at 0 this is DPO.

    Raises:
        LossError: `beta` is not positive, or `penalty` is negative.

    Example:
        >>> chosen, zero = torch.tensor([-1.0]), torch.zeros(1)
        >>> DPOP(beta=0.1, penalty=5.0)(PairLogps(chosen, zero, zero, zero))  # -log sigmoid(0.1 * (-1 - 5))
        tensor([1.0375])

    Source: Pal et al. 2024, arXiv:2402.13228, Eq. 3.
    """

    beta: float
    penalty: float = 50.0

    def __post_init__(self) -> None:
        check_number(self, "beta", 0.0, hint=NO_ZERO_BETA)
        check_number(self, "penalty", 0.0, closed=True)

    @property
    def formula(self) -> str:
        """The formula with its numbers."""
        drop = "max(0, log ref(w) - log pi(w))"
        return f"-log sigmoid({self.beta:g}*({difference(False)} - {self.penalty:g}*{drop}))"

    def __call__(self, pair_logps: PairLogps) -> Tensor:
        """The loss of every pair, shape (pairs,)."""
        chosen, rejected = pair_logps.ratios()
        return -functional.logsigmoid(self.beta * (chosen - rejected - self.penalty * torch.relu(-chosen)))


@register_loss("exo", trl="exo_pair")
@dataclass(frozen=True)
class EXO(Loss):
    """Reverse KL divergence from the policy's preference to the smoothed label.

    q*(log q - log(1 - e)) + (1 - q)*(log(1 - q) - log e), with q = sigmoid(beta * D) and D the difference of log-ratios

    Args:
        beta: Pull towards the reference, dimensionless, > 0.
        label_smoothing: e, the label's smoothing, in (0, 0.5); the loss is infinite at 0.

    Raises:
        LossError: `beta` is not positive, or `label_smoothing` is out of range.

    Example:
        >>> zeros = torch.zeros(1)
        >>> EXO(beta=0.1, label_smoothing=0.2)(PairLogps(zeros, zeros, zeros, zeros))  # log(0.5) - log(0.2 * 0.8)/2
        tensor([0.2231])

    Source: Ji et al. 2024, arXiv:2402.00856, Eq. 16.
    """

    beta: float
    label_smoothing: float = 1e-3

    def __post_init__(self) -> None:
        check_number(self, "beta", 0.0, hint=NO_ZERO_BETA)
        check_number(self, "label_smoothing", 0.0, 0.5, hint="The paper recommends 1e-3; at 0 the loss is infinite.")

    @property
    def formula(self) -> str:
        """The formula with its numbers."""
        smoothing = f"{self.label_smoothing:g}"
        return (
            f"q*(log q - log(1 - {smoothing})) + (1 - q)*(log(1 - q) - log({smoothing})) "
            f"with q = sigmoid({self.beta:g}*({difference(False)}))"
        )

    def __call__(self, pair_logps: PairLogps) -> Tensor:
        """The loss of every pair, shape (pairs,)."""
        chosen, rejected = pair_logps.ratios()
        logits = self.beta * (chosen - rejected)
        kept = torch.sigmoid(logits) * (functional.logsigmoid(logits) - math.log1p(-self.label_smoothing))
        return kept + torch.sigmoid(-logits) * (functional.logsigmoid(-logits) - math.log(self.label_smoothing))


@register_loss("discopop", trl="discopop")
@dataclass(frozen=True)
class DiscoPOP(Loss):
    """Blend of the logistic and the exponential loss, the loss that a language model discovered.

    sigmoid(-x/tau) * -log sigmoid(x) + sigmoid(x/tau) * exp(-x), with x = beta * D and D the difference of log-ratios

    Args:
        beta: Pull towards the reference, dimensionless, > 0.
        tau: Temperature of the blend, in (0, 1]; above 1 the exponential would outgrow its weight and overflow.

    Raises:
        LossError: `beta` or `tau` is out of range.

    Example:
        >>> zeros = torch.zeros(1)
        >>> DiscoPOP(beta=0.1)(PairLogps(zeros, zeros, zeros, zeros))  # (log 2 + 1)/2
        tensor([0.8466])

    Source: Lu et al. 2024, arXiv:2406.08414, Eq. 5. Departure: weight and exponential are multiplied as
    exp(log sigmoid(x/tau) - x), the same number without the infinity times zero of the factors, which TRL's code meets
    below x = -88 in float32.
    """

    beta: float
    tau: float = 0.05

    def __post_init__(self) -> None:
        check_number(self, "beta", 0.0, hint=NO_ZERO_BETA)
        check_number(self, "tau", 0.0, math.nextafter(1.0, 2.0), hint="The paper recommends 0.05.")

    @property
    def formula(self) -> str:
        """The formula with its numbers."""
        return (
            f"sigmoid(-x/{self.tau:g})*(-log sigmoid(x)) + sigmoid(x/{self.tau:g})*exp(-x) "
            f"with x = {self.beta:g}*({difference(False)})"
        )

    def __call__(self, pair_logps: PairLogps) -> Tensor:
        """The loss of every pair, shape (pairs,)."""
        chosen, rejected = pair_logps.ratios()
        logits = self.beta * (chosen - rejected)
        scaled = logits / self.tau
        logistic = -functional.logsigmoid(logits) * torch.sigmoid(-scaled)
        return logistic + torch.exp(functional.logsigmoid(scaled) - logits)
