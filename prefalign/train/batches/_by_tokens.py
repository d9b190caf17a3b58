"""Batches by tokens: a step keeps its pairs, and computes them in micro-batches of at most so many tokens.

The sampler stays what it is. The pairs that `per_device_train_batch_size * gradient_accumulation_steps` gives to a step
are put into bins, each bin is one micro-batch, and its mean loss counts by its pairs: the step's gradient is that of
the plain batch. What is logged of a step is weighted likewise.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from typing import Any

import torch
from accelerate.utils import DistributedType
from torch import Tensor

from ..._errors import ConfigError
from ...data import best_fit, best_fit_padded, split_up
from ...losses import Loss
from .. import _trl
from ..metrics import count_rows, together
from ._join import Batch, join, measure, select

logger = logging.getLogger(__name__)
_COUNTER = "num_tokens"


def check_token_batches(budget: int | None, loss: Loss) -> None:
    """Refuse `tokens_per_batch` with a loss whose value depends on how a batch is divided.

    Raises:
        ConfigError: A term couples the pairs of a batch.
    """
    coupled = [term for _, term in loss.terms if term.couples_pairs] if budget is not None else []
    if coupled:
        raise ConfigError(
            f"`tokens_per_batch={budget}` cannot be combined with the loss {coupled[0].title}: it couples the pairs of "
            "a micro-batch, so that its value depends on how they are divided. Leave `tokens_per_batch` out, or use a "
            "loss with one value per pair (of `sft`, the reductions 'sum' and 'sequence_mean')."
        )


class TokenBatches:
    """Runs the steps of a trainer in micro-batches by tokens.

    Args:
        trainer: The trainer, made.
        budget: Most tokens of a micro-batch: unique ones where the shared prefix is on, else padded positions.

    Raises:
        ConfigError: The data have images, or the model a router's loss, which is a mean over a micro-batch.
    """

    def __init__(self, trainer: Any, budget: int) -> None:
        self.trainer, self.budget = trainer, budget
        self._waiting: list[Batch] = []
        self._warned = False
        if _trl.has_router_loss(trainer) or _trl.has_images(trainer):
            what = "a router's auxiliary loss" if _trl.has_router_loss(trainer) else "images"
            raise ConfigError(f"`tokens_per_batch={budget}` cannot be combined with {what}. Leave it out.")

    def __str__(self) -> str:
        args = self.trainer.args
        pairs = args.per_device_train_batch_size * args.gradient_accumulation_steps
        what = "unique" if self._packed else "padded"
        return (
            f"Batches: the {pairs} pairs of a step (and process) are drawn as ever and computed in micro-batches of at "
            f"most {self.budget:,} {what} tokens; only this division is by length, so a step's gradient is that of the "
            "plain batch."
        )

    def begin_step(self) -> None:
        """Forget batches of a step that was not finished."""
        self._waiting.clear()

    def train(self, run: Callable[..., Tensor], model: Any, inputs: Batch, items: Any) -> Tensor:
        """Collect a step's batches; with the last one, run them all.

        Args:
            run: The trainer's own `training_step`.
            model: The wrapped policy.
            inputs: A batch.
            items: Handed on.

        Returns:
            The step's loss, () without gradient: 0 until its last batch.
        """
        trainer = self.trainer
        self._waiting.append(inputs)
        total = torch.zeros((), device=inputs["input_ids"].device)
        parts = trainer.current_gradient_accumulation_steps
        if len(self._waiting) < parts:
            return total
        batches, self._waiting = self._waiting, []
        synchronizes = trainer.accelerator.gradient_state.sync_gradients
        try:
            with closing(self._micro_batches(batches, "train")) as parts_by_length:
                for batch, share, last in parts_by_length:
                    # The loss of a micro-batch is divided by this number.
                    trainer.current_gradient_accumulation_steps = 1 / share if share else math.inf
                    with self._gradients(model, last, synchronizes):
                        total = total + run(model, batch, items)
        finally:
            trainer.current_gradient_accumulation_steps = parts
        return total

    def predict(
        self, run: Callable[..., Any], model: Any, inputs: Batch, ignore_keys: Any
    ) -> tuple[Tensor, None, None]:
        """A batch of an evaluation: `run` is the trainer's own `prediction_step`."""
        with closing(self._micro_batches([inputs], "eval")) as parts:
            losses = [run(model, batch, True, ignore_keys)[0] * share for batch, share, _ in parts]
        return torch.stack(losses).sum(), None, None

    @property
    def _packed(self) -> bool:
        packer = getattr(self.trainer, "shared_prefix", None)
        return packer is not None and packer.active

    def _micro_batches(self, batches: Sequence[Batch], mode: str) -> Generator[tuple[Batch, float, bool]]:
        """(batch, its share of the pairs, whether it is the last); what is logged meanwhile is put together then."""
        trainer = self.trainer
        whole = join(batches, getattr(trainer.processing_class, "pad_token_id", None) or 0)
        longest, unique = measure(whole)
        packed = self._packed
        costs = unique if packed else [2 * length for length in longest]
        bins = best_fit(unique, self.budget) if packed else best_fit_padded(longest, self.budget)
        count, over = self._everywhere(len(bins), sum(cost > self.budget for cost in costs), whole["input_ids"].device)
        bins = split_up(bins, count, costs)
        counts = self._counts(whole, bins)
        self._warn(over)
        logged = []
        multiple = trainer.args.pad_to_multiple_of or 1
        with _trl.uneven_gather(trainer.accelerator), trainer.means.set_aside():
            for number, pairs in enumerate(bins):
                cheapest = [min(range(len(costs)), key=costs.__getitem__)]
                with _trl.metrics_apart(trainer, mode) as values:
                    yield select(whole, pairs or cheapest, multiple), len(pairs) / len(costs), number == len(bins) - 1
                logged.append(values)
        extra = {"batches/micro_batches": float(len(bins)), "batches/over_budget": float(over)}
        counter = logged[-1].get(_COUNTER) if logged else None
        for name, value in (together(logged, counts) | extra).items():
            if name != _COUNTER:
                _trl.add_metric(trainer, mode, name, value)
        if counter:
            _trl.set_metric(trainer, mode, _COUNTER, counter)
        trainer.means.absorb(mode, [sum(column) for column in zip(*counts, strict=True)])

    def _everywhere(self, count: int, over: int, device: torch.device) -> tuple[int, int]:
        """The largest number of bins on any process, and how many pairs of all of them are longer than the budget."""
        numbers = self.trainer.accelerator.gather(torch.tensor([[count, over]], device=device))
        return int(numbers[:, 0].max()), int(numbers[:, 1].sum())

    def _counts(self, whole: Batch, bins: Sequence[Sequence[int]]) -> list[list[int]]:
        """What is counted of each bin, on all processes."""
        rows = count_rows(whole["completion_mask"])
        mine = torch.stack([rows[list(one)].sum(dim=0) for one in bins])
        everywhere: list[list[int]] = self.trainer.accelerator.gather(mine).view(-1, *mine.shape).sum(dim=0).tolist()
        return everywhere

    def _warn(self, over: int) -> None:
        if over and not self._warned:
            self._warned = True
            logger.warning(
                "tokens_per_batch=%d: %d pairs of this step are longer, and each is a micro-batch of its own "
                "(the metric batches/over_budget counts them).", self.budget, over
            )  # fmt: skip

    @contextmanager
    def _gradients(self, model: Any, last: bool, synchronizes: bool) -> Iterator[None]:
        """Gradients are exchanged between processes with a step's last micro-batch only, as transformers does it."""
        accelerator = self.trainer.accelerator
        accelerator.gradient_state._set_sync_gradients(last and synchronizes)
        each = accelerator.gradient_state.plugin_kwargs.get("sync_each_batch", False)
        at_once = last or each or accelerator.distributed_type == DistributedType.DEEPSPEED
        context: AbstractContextManager[Any] = nullcontext() if at_once else accelerator.no_sync(model=model)
        with context:
            yield
