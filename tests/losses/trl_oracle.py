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

from prefalign.losses import PairLogps, TokenLogps


@dataclass
class Batch:
    """Per-token log-probabilities of a batch: chosen rows first, rejected rows after them, zero outside completions.

    Shapes: `policy`, `reference` and `squares` (2 * pairs, tokens - 1), `mask` (2 * pairs, tokens). `squares` is
    log(sum of p**2) at each token.
    """

    policy: Tensor
    reference: Tensor
    mask: Tensor
    squares: Tensor

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
            single=TokenLogps(self.policy, self.mask[:, 1:], self.reference, self.squares),
        )


def random_tokens(seed: int, pairs: int = 5, tokens: int = 12, scale: float = 1.0) -> Batch:
    """Random log-probabilities of completions of uneven lengths after one prompt token."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, tokens, (2 * pairs, 1), generator=generator)
    positions = torch.arange(tokens)
    mask = ((positions >= 1) & (positions <= lengths)).long()
    draw = [-scale * torch.rand(2 * pairs, tokens - 1, generator=generator) * mask[:, 1:] for _ in range(3)]
    return Batch(draw[0].requires_grad_(), draw[1], mask, draw[2])


class _Still(torch.nn.Module):
    """A model whose training mode alone is asked for."""

    is_gradient_checkpointing = False


def trl_loss(
    tokens: Batch,
    loss_types: list[str],
    loss_weights: list[float] | None = None,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
    discopop_tau: float = 0.05,
    f_divergence_type: str = "reverse_kl",
    f_alpha_divergence_coef: float = 0.5,
    ld_alpha: float | None = None,
    use_weighting: bool = False,
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
    output = SimpleNamespace(
        log_probs=tokens.policy, log_sum_sq_probs=tokens.squares, entropy=blank, mean_logits=blank, is_top1=blank.bool()
    )
    accelerator = SimpleNamespace(
        device=torch.device("cpu"), gather=lambda value: value, gather_for_metrics=lambda value: value
    )
    trainer = SimpleNamespace(
        model=_Still().eval(),
        ref_model=lambda **_: SimpleNamespace(log_probs=tokens.reference),
        accelerator=accelerator,
        args=SimpleNamespace(discopop_tau=discopop_tau, gradient_checkpointing_kwargs=None),
        aux_loss_enabled=False,
        ld_alpha=ld_alpha,
        precompute_ref_logps=ld_alpha is None,  # sums that were computed before would lack `ld_alpha`
        f_divergence_type=f_divergence_type,
        f_alpha_divergence_coef=f_alpha_divergence_coef,
        use_weighting=use_weighting,
        loss_types=loss_types,
        loss_weights=loss_weights or [1.0] * len(loss_types),
        beta=beta,
        label_smoothing=label_smoothing,
        _metrics={"eval": defaultdict(list)},
        _total_train_tokens=0,
    )
    return DPOTrainer._compute_loss(trainer, lambda **_: output, inputs, return_outputs=False)
