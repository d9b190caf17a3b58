"""TRL's own loss code, run unmodified on given per-token log-probabilities.

`DPOTrainer._compute_loss` is called with a stand-in for `self` and a stand-in model that returns these
log-probabilities instead of a forward pass, so that what comes back is TRL's number, bit for bit, and its gradient.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor
from trl.trainer.dpo_trainer import DPOTrainer

from prefalign.losses import PairLogps


@dataclass
class TokenLogps:
    """Per-token log-probabilities of a batch: chosen rows first, rejected rows after them, zero outside completions.

    Shapes: `policy` and `reference` (2 * pairs, tokens - 1), `mask` (2 * pairs, tokens).
    """

    policy: Tensor
    reference: Tensor
    mask: Tensor

    def pairs(self) -> PairLogps:
        """What our losses see: TRL's sums over tokens, and its token counts."""
        chosen, rejected = self.policy.sum(dim=1).chunk(2)
        ref_chosen, ref_rejected = self.reference.sum(dim=1).chunk(2)
        chosen_tokens, rejected_tokens = self.mask.sum(dim=1).chunk(2)
        token_logps, _ = self.policy.chunk(2)
        token_mask, _ = self.mask[:, 1:].chunk(2)
        return PairLogps(
            chosen,
            rejected,
            ref_chosen,
            ref_rejected,
            chosen_tokens,
            rejected_tokens,
            chosen_token_logps=token_logps[token_mask.bool()],
        )


def random_tokens(seed: int, pairs: int = 5, tokens: int = 12, scale: float = 1.0) -> TokenLogps:
    """Random log-probabilities of completions of uneven lengths after one prompt token."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, tokens, (2 * pairs, 1), generator=generator)
    positions = torch.arange(tokens)
    mask = ((positions >= 1) & (positions <= lengths)).long()
    draw = [-scale * torch.rand(2 * pairs, tokens - 1, generator=generator) * mask[:, 1:] for _ in range(2)]
    return TokenLogps(draw[0].requires_grad_(), draw[1], mask)


def trl_loss(
    tokens: TokenLogps,
    loss_types: list[str],
    loss_weights: list[float] | None = None,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
    discopop_tau: float = 0.05,
    f_divergence_type: str = "reverse_kl",
    f_alpha_divergence_coef: float = 0.5,
) -> Tensor:
    """The scalar that `DPOTrainer._compute_loss` returns for these log-probabilities; differentiable."""
    rows = tokens.mask.size(0)
    ref_chosen, ref_rejected = tokens.reference.sum(dim=1).chunk(2)
    inputs = {
        "input_ids": torch.zeros_like(tokens.mask),
        "attention_mask": torch.ones_like(tokens.mask),
        "completion_mask": tokens.mask,
        "ref_chosen_logps": ref_chosen,
        "ref_rejected_logps": ref_rejected,
    }
    blank = torch.zeros(rows, tokens.mask.size(1) - 1)
    output = SimpleNamespace(log_probs=tokens.policy, entropy=blank, mean_logits=blank, is_top1=blank.bool())
    accelerator = SimpleNamespace(
        device=torch.device("cpu"), gather=lambda value: value, gather_for_metrics=lambda value: value
    )
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=False),
        accelerator=accelerator,
        args=SimpleNamespace(discopop_tau=discopop_tau),
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type=f_divergence_type,
        f_alpha_divergence_coef=f_alpha_divergence_coef,
        use_weighting=False,
        loss_types=loss_types,
        loss_weights=loss_weights or [1.0] * len(loss_types),
        beta=beta,
        label_smoothing=label_smoothing,
        _metrics={"eval": defaultdict(list)},
        _total_train_tokens=0,
    )
    return DPOTrainer._compute_loss(trainer, lambda **_: output, inputs, return_outputs=False)
