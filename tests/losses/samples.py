"""One of each loss, and pairs to evaluate them on."""

from __future__ import annotations

import torch

from prefalign.losses import (
    AOT,
    BCO,
    CPO,
    DPO,
    DPOP,
    EXO,
    IPO,
    NCA,
    ORPO,
    RDPO,
    RPO,
    SFT,
    SPPO,
    AlphaPO,
    AOTUnpaired,
    APODown,
    APOZero,
    BetaDPO,
    CalDPO,
    ChiPO,
    DiscoPOP,
    DrDPO,
    FDivergence,
    FocalPO,
    HolderDPO,
    Loss,
    OddsRatio,
    PairLogps,
    RankHinge,
    Robust,
    SePPO,
    SimPER,
    SimPO,
    SLiC,
    SLiCHF,
    Smoothed,
    SquaredPO,
)

SWAPPABLE = [
    DPO(beta=0.1),
    DPO(beta=0.5, mean=True),
    IPO(beta=0.3),
    IPO(beta=0.01, mean=False),
    SLiC(beta=0.2),
    DPOP(beta=0.3, penalty=5.0),
    EXO(beta=0.1, label_smoothing=0.01),
    DiscoPOP(beta=0.1),
    DiscoPOP(beta=0.3, tau=1.0),
    SimPO(beta=2.0, gamma=0.5),
    CPO(beta=0.1, alpha=0.0),
    OddsRatio(),
    OddsRatio(beta=0.3, mean=False),
    RankHinge(delta=1.0),
    RankHinge(delta=0.0, mean=True),
    NCA(beta=0.1),
    BCO(beta=0.1, shift=0.7),
    SPPO(beta=0.05),
    APOZero(beta=0.1),
    APODown(beta=0.1),
    HolderDPO(beta=0.1),
    Robust(DPO(beta=0.1), flip_rate=0.3),
    Smoothed(DPO(beta=0.1), flip_rate=0.3),
    DPO(beta=0.1) + 0.3 * IPO(beta=0.2),
    RDPO(beta=0.1, alpha=0.02),
    FocalPO(beta=0.1, gamma=0.5),
    CalDPO(beta=0.5),
    SimPER(),
    FDivergence(DPO(beta=0.1), "forward_kl"),
    FDivergence(DPO(beta=0.1, mean=True), "js"),
    FDivergence(EXO(beta=0.1), "alpha", alpha=0.3),
    ChiPO(beta=0.1),
    SquaredPO(beta=0.1),
    AlphaPO(beta=2.5, gamma=0.1, alpha=0.25),
]
NOT_SWAPPABLE = [
    AOT(beta=0.1, label_smoothing=0.1),
    AOTUnpaired(beta=0.1),
    SFT(reduction="sum"),
    SFT(reduction="sequence_mean"),
    SFT(reduction="token_mean"),
    RPO(beta=0.1, eta=0.5, reduction="sum"),
    CPO(beta=0.1),
    ORPO(beta=0.2),
    SLiCHF(delta=1.0, regulariser=0.5),
    DrDPO(beta=0.1, beta_prime=0.5),
    SePPO(beta=0.1),
    SePPO(beta=0.1, flipper="indicator"),
    SePPO(beta=0.1, flipper="none"),
    BetaDPO(beta=0.1, alpha=0.5),
    Robust(DPO(beta=0.1), flip_rate=0.3) + 0.005 * SFT(reduction="sum"),
]
EVERY_LOSS = [*SWAPPABLE, *NOT_SWAPPABLE]


def pairs_of(margins: torch.Tensor) -> PairLogps:
    """Pairs whose difference of log-ratios is `margins`, with log-probabilities that differ from pair to pair."""
    offset = torch.arange(len(margins), dtype=margins.dtype)
    reference = -20.0 - offset
    return PairLogps(
        chosen=reference + margins,
        rejected=reference - 5.0,
        ref_chosen=reference,
        ref_rejected=reference - 5.0,
        chosen_tokens=3.0 + offset,
        rejected_tokens=4.0 + 2.0 * offset,
    )


def random_pairs(seed: int, count: int = 6, dtype: torch.dtype = torch.float64) -> PairLogps:
    """Pairs with all fields, log-probabilities between -40 and 0, in no order."""
    generator = torch.Generator().manual_seed(seed)
    logps = -40.0 * torch.rand(4, count, generator=generator, dtype=dtype)
    tokens = torch.randint(1, 20, (2, count), generator=generator).to(dtype)
    return PairLogps(*logps, *tokens)


def title(value: object) -> str:
    """The name of a test case."""
    return value.title if isinstance(value, Loss) else getattr(value, "__name__", str(value))
