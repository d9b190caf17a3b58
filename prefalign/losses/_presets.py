"""Names for compositions that the literature and TRL treat as losses of their own."""

from __future__ import annotations

from typing import Literal

from ._registry import register_loss
from ._wrappers import Robust, Smoothed
from .pairwise import DPO, FDivergence, Kind, RankHinge


@register_loss("rdpo", trl="robust")
def robust_dpo(beta: float, flip_rate: float | Literal["estimate"], mean: bool = False) -> Robust:
    """rDPO, TRL's `robust`: `Robust(DPO(beta, mean), flip_rate)`."""
    return Robust(DPO(beta, mean), flip_rate)


@register_loss("cdpo")
def conservative_dpo(beta: float, flip_rate: float | Literal["estimate"], mean: bool = False) -> Smoothed:
    """cDPO, DPO with label smoothing: `Smoothed(DPO(beta, mean), flip_rate)`."""
    return Smoothed(DPO(beta, mean), flip_rate)


@register_loss("mean_dpo", trl="sigmoid_norm")
def mean_dpo(beta: float) -> DPO:
    """TRL's `sigmoid_norm`: `DPO(beta, mean=True)`."""
    return DPO(beta, mean=True)


@register_loss("f_dpo")
def f_dpo(beta: float, divergence: Kind, alpha: float = 0.5, mean: bool = False) -> FDivergence:
    """f-DPO: `FDivergence(DPO(beta, mean), divergence, alpha)`."""
    return FDivergence(DPO(beta, mean), divergence, alpha)


@register_loss("re_po")
def re_po(gamma: float) -> RankHinge:
    """RePO, max(0, gamma - log pi(w)/|w| + log pi(l)/|l|): `RankHinge(gamma, mean=True)`.

    Source: Wu et al. 2025, arXiv:2503.07426, Eq. 6.
    """
    return RankHinge(gamma, mean=True)
