"""The metrics of a loss's terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...losses import Loss, scheduled, share_done
from .. import _trl
from .._host import Gather

if TYPE_CHECKING:
    from .._host import Host


def term_names(loss: Loss) -> tuple[str, ...]:
    """A short name for every term of a composed loss: its name in expressions, numbered where it stands twice.

    Example:
        >>> from prefalign.losses import DPO, SFT
        >>> term_names(DPO(beta=0.1) + 0.5 * SFT(reduction="sum"))
        ('dpo', 'sft')
    """
    names = [_name(term) for _, term in loss.terms]
    return tuple(
        name if names.count(name) == 1 else f"{name}_{names[: index + 1].count(name)}"
        for index, name in enumerate(names)
    )


def _name(term: Loss) -> str:
    try:
        return term.expression.partition("(")[0].strip()
    except ValueError:  # a loss that is not registered
        return type(term).__name__.lower()


def term_metrics(loss: Loss, values: Sequence[Tensor], gather: Gather) -> dict[str, float]:
    """The mean of every term of a composed loss, without its weight; nothing for a single term."""
    if len(values) < 2:
        return {}
    means = gather(torch.stack([value.detach() for value in values], dim=1)).mean(dim=0).tolist()
    return {f"loss/{name}": mean for name, mean in zip(term_names(loss), means, strict=True)}


def weights_now(trainer: Host) -> list[float]:
    """The weights of the loss's terms at the trainer's step; what follows a schedule is logged as `eta`."""
    loss = trainer.objective.loss
    done = share_done(trainer.state.global_step, trainer.state.max_steps)
    mode = "train" if trainer.model.training else "eval"
    parts = scheduled(loss)
    for place, part in enumerate(parts, 1):
        _trl.add_metric(trainer, mode, "eta" if len(parts) == 1 else f"eta_{place}", part.eta_at(done))
    return [weight for weight, _ in loss.terms_at(done)]
