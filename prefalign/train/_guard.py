"""Stops a run whose numbers are no numbers any more, and says where they came from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._errors import TrainingError
from ..losses import PairLogps

SPLIT = 2**40  # a pair's number is its row plus SPLIT times the number of its data set


# Written last: by this package after everything else, by transformers after the weights and the optimizer.
LAST_FILE = "prefalign_watch.json"
_LAST_FILES = (LAST_FILE, "trainer_state.json")
# There from before a checkpoint's first file until after its last one, which may be an older run's of the same name.
UNFINISHED = "prefalign_unfinished"


def last_whole_checkpoint(output_dir: str | None) -> str | None:
    """The latest checkpoint in `output_dir` that was written to its end; None if there is none.

    One that a killed run left half-written is passed over. Where no checkpoint has this package's own last file, as
    after a run of TRL's trainer, transformers' one counts.
    """
    folder = Path(output_dir or "")
    if output_dir is None or not folder.is_dir():
        return None
    found = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    found = [path for path in found if not (path / UNFINISHED).exists()]
    for name in _LAST_FILES:
        whole = [path for path in found if (path / name).is_file()]
        if whole:
            return str(max(whole, key=lambda path: int(path.name.partition("-")[2])))
    return None


def last_good(output_dir: str | None) -> str:
    """The end of the message: which state to go back to."""
    last = last_whole_checkpoint(output_dir)
    if last is None:
        return "No checkpoint had been saved yet."
    return f"The last good state is {last!r}; resume from it with `resume_from_checkpoint`."


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


def describe_row(
    place: int, inputs: dict[str, Any], numbers: Tensor | None, splits: Sequence[str], tokenizer: Any
) -> str:
    """Which row stands at `place` of a batch, with the start of its text."""
    row = inputs["input_ids"][place][inputs["attention_mask"][place].bool()]
    text = tokenizer.decode(row.tolist())
    start = f"{text[:80]!r}" + "..." * (len(text) > 80)
    if numbers is None:
        return f"a row that begins with {start}"
    split, index = divmod(int(numbers[place]), SPLIT)
    return f"row {index} of the {splits[split]} data, which begins with {start}"


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
