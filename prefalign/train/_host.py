"""What the parts of a trainer may use of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor, nn

from ..references import Reference

Gather = Callable[[Tensor], Tensor]


class Host(Protocol):
    """The trainer, as its rooms see it: TRL's public names, and what `PrefTrainer` adds to them.

    Attributes:
        model: The policy.
        accelerator: Accelerate's `Accelerator`.
        args: The training arguments.
        state: The trainer's state; `global_step` counts optimizer steps.
        processing_class: The tokenizer.
        data_collator: Makes batches of rows.
        train_dataset, eval_dataset: Tokenised rows.
        objective: The loss as it is trained.
        reference: What the policy is compared with.
        data_reports: What the checks of the data found, by split.
        noise_rate: The share of labels that were flipped on purpose; None: none were.
        splits: The numbers of the splits that hold winners alone.
        forward_pass: How log-probabilities of a batch are computed.
        statistics: Whether this step computes what is only logged.
        watch: Changes since the start.
        self_play: What generates losing samples; None: nothing does.
        token_batches: Micro-batches by a budget of tokens; None: by pairs.
        calibration: The running means of a calibrated loss.
    """

    model: nn.Module
    accelerator: Any
    args: Any
    state: Any
    processing_class: Any
    data_collator: Any
    train_dataset: Any
    eval_dataset: Any
    objective: Any
    reference: Reference
    data_reports: Any
    noise_rate: float | None
    splits: Any
    forward_pass: Any
    statistics: Any
    watch: Any
    self_play: Any
    token_batches: Any
    calibration: Any

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Any: ...
