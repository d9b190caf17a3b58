"""Stops a run whose numbers are no numbers any more, and says where they came from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..._errors import TrainingError
from ...losses import PairLogps
from ._whole import last_good


def bad_rows(pairs: PairLogps, values: Sequence[Tensor]) -> list[int]:
    """The places in the batch whose log-probabilities, or else whose losses, are not finite."""
    logps = [pairs.chosen, pairs.rejected, pairs.ref_chosen, pairs.ref_rejected]
    for group in ([t for t in logps if t is not None], list(values)):
        bad = torch.zeros(len(pairs), dtype=torch.bool)
        for tensor in group:
            bad |= ~torch.isfinite(tensor.detach()).cpu()
        if bad.any():
            return bad.nonzero().flatten().tolist()
    return list(range(len(pairs)))


def stop(what: str, rows: Sequence[str], output_dir: str | None) -> TrainingError:
    """The error for a loss that is not finite."""
    listed = "; ".join(rows[:4]) + (f"; and {len(rows) - 4} more" if len(rows) > 4 else "")
    return TrainingError(
        f"{what} It came from {listed}. {last_good(output_dir)} Look at these rows; if nothing is wrong with them, "
        "lower `learning_rate` or set `max_grad_norm`."
    )


def check_weights(model: nn.Module, output_dir: str | None, step: int) -> None:
    """Refuse to save weights that are not finite.

    Raises:
        TrainingError: A trained parameter is infinite or not a number.
    """
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        local = parameter.to_local() if hasattr(parameter, "to_local") else parameter
        if not torch.isfinite(local.detach()).all():
            raise TrainingError(
                f"The weights are not finite after step {step} (first in `{name}`), so no checkpoint of them is saved. "
                f"{last_good(output_dir)} Lower `learning_rate` or set `max_grad_norm`."
            )
