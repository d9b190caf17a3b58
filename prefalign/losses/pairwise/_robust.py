"""Losses that couple the pairs of a batch, or weigh a pair by how well the policy agrees with its label."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .._loss import Loss, check_number
from .._pairs import PairLogps
from .._registry import register_loss
from ._margin import NO_ZERO_BETA, difference


@register_loss("dr_dpo")
@dataclass(frozen=True)
class DrDPO(Loss):
    """Distributionally robust DPO: pairs that the policy contradicts weigh less, batch by batch.

    -beta_prime * log(mean over the batch of exp(log sigmoid(beta * D)/beta_prime)), D the difference of log-ratios

    One number for the micro-batch, given to each of its pairs; it depends on how batches are split.

    Args:
        beta: Pull towards the reference, dimensionless, > 0.
        beta_prime: Temperature over the pairs, > 0. Large: DPO. Small: only the best-fitting pairs count.

    Raises:
        LossError: `beta` or `beta_prime` is not positive.

    Example:
        >>> zeros = torch.zeros(2)
        >>> DrDPO(beta=0.1)(PairLogps(zeros, zeros, zeros, zeros))
        tensor([0.6931, 0.6931])

    Source: Wu et al. 2024, arXiv:2407.07880.
    """

    beta: float
    beta_prime: float = 1.0

    couples_pairs = True

    def __post_init__(self) -> None:
        check_number(self, "beta", 0.0, hint=NO_ZERO_BETA)
        check_number(self, "beta_prime", 0.0)

    @property
    def swap_obstacle(self) -> str | None:
        """It couples the pairs."""
        return "`dr_dpo` couples all pairs of a batch, so that a single pair has no swapped value"

    @property
    def formula(self) -> str:
        """The formula with its numbers."""
        scaled = f"log sigmoid({self.beta:g}*({difference(False)}))/{self.beta_prime:g}"
        return f"-{self.beta_prime:g}*log(mean over the batch of exp({scaled}))"

    def __call__(self, pair_logps: PairLogps) -> Tensor:
        """The loss of the batch, repeated for every pair, shape (pairs,)."""
        chosen, rejected = pair_logps.ratios()
        fits = functional.logsigmoid(self.beta * (chosen - rejected)) / self.beta_prime
        loss = -self.beta_prime * (torch.logsumexp(fits, dim=0) - math.log(len(pair_logps)))
        return loss.expand(len(pair_logps))


@register_loss("holder_dpo")
@dataclass(frozen=True)
class HolderDPO(Loss):
    """Hölder-DPO: a pair that the policy contradicts strongly has no pull at all.

    -(1 + gamma)*p**gamma + gamma*p**(1 + gamma), with p = sigmoid(beta * D) and D the difference of log-ratios

    Its slope in beta * D is -gamma*(1 + gamma) * p**gamma * (1 - p)**2: it vanishes at both ends.

    Args:
        beta: Pull towards the reference, dimensionless, > 0.
        gamma: How fast contradicted pairs lose their pull, > 0.

    Raises:
        LossError: `beta` or `gamma` is not positive.

    Example:
        >>> zeros = torch.zeros(1)
        >>> HolderDPO(beta=0.1, gamma=2.0)(PairLogps(zeros, zeros, zeros, zeros))  # -3/4 + 2/8
        tensor([-0.5000])

    Source: Fujisawa, Adachi, Osborne 2025, arXiv:2505.17859: the member phi(h) = gamma - (1 + gamma)*h of the Hölder
    scores (the density power score), with the integral of the model taken over the observed label.
    """

    beta: float
    gamma: float = 2.0

    def __post_init__(self) -> None:
        check_number(self, "beta", 0.0, hint=NO_ZERO_BETA)
        check_number(self, "gamma", 0.0)

    @property
    def formula(self) -> str:
        """The formula with its numbers."""
        gamma = self.gamma
        p = f"p = sigmoid({self.beta:g}*({difference(False)}))"
        return f"-{1 + gamma:g}*p**{gamma:g} + {gamma:g}*p**{1 + gamma:g} with {p}"

    def __call__(self, pair_logps: PairLogps) -> Tensor:
        """The loss of every pair, shape (pairs,)."""
        chosen, rejected = pair_logps.ratios()
        log_p = functional.logsigmoid(self.beta * (chosen - rejected))
        fit = torch.exp(self.gamma * log_p)
        return self.gamma * torch.exp((1 + self.gamma) * log_p) - (1 + self.gamma) * fit
