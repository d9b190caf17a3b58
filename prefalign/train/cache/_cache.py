"""The reference cache of a run: rows that are missing are computed once, and training reads the rest.

`settle` decides, computes and checks before training. During training a batch whose rows are all there brings the
reference's log-probabilities along (`CachedCollator`); TRL's own code sums them up. Where data are streamed, or the
reference is sharded with the policy, rows are computed as they are met.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, gather_object, send_to_device
from torch import Tensor
from tqdm import tqdm
from transformers import TrainerCallback
from trl import DPOTrainer

from ..._errors import CheckpointError, ConfigError
from ...references import Logps, LogpStore
from ..checkpoints import rounding
from ._plan import CachePlan
from ._rows import KNOWN, TOKEN_LOGPS, CachedCollator, Replay, Survey, row_keys, row_values, rows_of, survey
from ._weights import Load, ReferenceWeights

_CHECKED = 8  # pairs whose values are computed afresh before training
_PEEKED = 16  # rows of a stream that are looked for before it is used
_LEAST_TOKENS = 4096  # of a batch that is computed before training


def settle(trainer: Any, plan: CachePlan, load: Load, quantization: Any = None) -> ReferenceCache | None:
    """Decide whether the run uses the cache; if so, compute what is missing, and check what was there.

    Args:
        trainer: The trainer, made, with the reference set up.
        plan: What was settled before weights loaded.
        load: Loads the second model where the reference names one.
        quantization: The policy's quantization.

    Raises:
        ConfigError: The cache was asked for, and cannot be used.
        CheckpointError: What it holds is not what the reference gives.
    """
    if plan.folder is None:
        return None
    weights = ReferenceWeights(trainer, plan, load, quantization)
    why = weights.reason_against() or _unknown_inputs(trainer)
    if trainer.distributions.wanted:
        why = "the loss reads the reference's distribution over the vocabulary, which is not kept"
    if why is None:
        cache = ReferenceCache(trainer, plan, weights)
        why = cache.prepare()
        if why is None:
            return cache
        if cache.full:  # said by the store; even a cache that was asked for is not worth the run
            weights.hold()
            return None
    plan.off(why)
    weights.hold()
    return None


class ReferenceCache:
    """The reference's log-probabilities of a run.

    Args:
        trainer: The trainer.
        plan: What was settled before weights loaded.
        weights: The reference's weights.

    Attributes:
        store: The log-probabilities on disk.
        computed: How many pairs this process has computed.
        full: The disk took no more before all rows were written, on some process.
        spread: Root mean square of cached minus fresh log-probabilities of a text, summed over tokens, in nats.
    """

    def __init__(self, trainer: Any, plan: CachePlan, weights: ReferenceWeights) -> None:
        self.trainer, self.plan, self.weights = trainer, plan, weights
        self.main: bool = trainer.accelerator.is_main_process
        assert plan.folder is not None
        self.store = LogpStore(plan.folder / weights.key(), weights.about())
        self.computed = 0
        self.full = False
        self.spread: float | None = None
        self._verified = False  # a batch that came from the cache, where nothing was checked before training
        self._collate = trainer.data_collator
        datasets = {"train": trainer.train_dataset}
        if isinstance(trainer.eval_dataset, Mapping):
            datasets |= {f"eval_{name}": dataset for name, dataset in trainer.eval_dataset.items()}
        elif trainer.eval_dataset is not None:
            datasets["eval"] = trainer.eval_dataset
        self.datasets = datasets
        # Rows are computed as they are met where they are not known before, or nothing can be computed before.
        self.lazy: bool = weights.late or any(not hasattr(each, "__len__") for each in datasets.values())

    def prepare(self) -> str | None:
        """Compute what is missing; gives the reason if the cache is not used after all."""
        why = self._peek() if self.lazy else self._fill()
        if why is not None:
            return why
        if not self.lazy:
            self._verify()
            self.weights.release()
        else:
            self.weights.hold()
            self.trainer.add_callback(_Flush(self))
        self.trainer.data_collator = CachedCollator(self._collate, self.store)
        if self.main:
            print(f"Reference cache: {self._summary()}", flush=True)
        return None

    def logps(self, inputs: dict[str, Any]) -> Logps:
        """The reference's log-probabilities of a batch, from the cache, else computed and kept.

        Args:
            inputs: The batch; what the collator put into it for the cache is taken out.

        Returns:
            Sums as TRL sums them, and the log-probabilities of every token.
        """
        trainer = self.trainer
        known: Tensor | None = inputs.pop(TOKEN_LOGPS, None)
        if self._all_know(known is not None):
            assert known is not None
            if self.lazy and not self._verified:
                self._verify_batch(inputs, known)
            chosen, rejected = DPOTrainer.compute_ref_log_probs(trainer, Replay(known), inputs)
            return Logps(chosen, rejected, known)
        self.weights.hold()
        logps: Logps = trainer.reference.logps(inputs)
        assert logps.tokens is not None
        if self.lazy or trainer.model.training:
            self._keep(inputs, logps.tokens)
        return logps

    def _all_know(self, known: bool) -> bool:
        """Whether no process has to compute: where the model is sharded, all compute or none."""
        trainer = self.trainer
        if not self.weights.sharded or (trainer.model.training and not self.lazy):
            return known
        flag = torch.tensor([int(known)], device=trainer.accelerator.device)
        return bool(trainer.accelerator.gather(flag).min())

    def _keep(self, batch: Mapping[str, Any], tokens: Tensor) -> None:
        for key, values in zip(row_keys(batch), row_values(tokens, batch["completion_mask"]), strict=True):
            if key not in self.store:
                self.store.add(key, values)
        self.computed += len(tokens) // 2

    def _peek(self) -> str | None:
        """Whether a stream's first rows are there; only a thrifty run cares."""
        if not self.plan.thrifty or (self.weights.late and 1 < self.plan.epochs < math.inf):
            return None
        rows = [row for row, _ in zip(self.trainer.train_dataset, range(_PEEKED), strict=False)]
        found = [all(key in self.store for key in row_keys(self._collate(rows)))]
        broadcast_object_list(found, from_process=0)
        return None if found[0] else "the first rows of the data are not there from an earlier run"

    def _fill(self) -> str | None:
        world = self.trainer.accelerator.num_processes
        surveys = {name: survey(each, self._collate, name, self._shows) for name, each in self.datasets.items()}
        self._found = sum(len(each.keys) for each in surveys.values())
        why = self._not_worth(surveys)
        if why is not None:
            return why
        self._surveyed = surveys["train"]
        # Others wait for the one that computes, unless whole groups would: their collectives time out.
        with self.store.alone(wait=world == 1) if self._missing(surveys) else nullcontext():
            self.store.refresh()
            for name, numbers in self._missing(surveys).items():
                self._compute(name, surveys[name], numbers)
        reasons = [each for each in gather_object([self.store.full]) if each is not None]
        if reasons:
            self.full = True
            return str(reasons[0])
        self.store.refresh()
        lost = sum(len(each.missing(self.store)) for each in surveys.values())
        if lost:
            raise ConfigError(
                f"The reference cache in {str(self.store.folder)!r} must be seen by all processes: {lost} pairs that "
                "others have computed are not there. Name a folder that all machines share, or write "
                '`reference_cache="off"`.'
            )
        return None

    def _missing(self, surveys: Mapping[str, Survey]) -> dict[str, list[int]]:
        """The pairs to compute, as the main process sees it; data sets with none are left out."""
        found: list[Any] = [{name: each.missing(self.store) for name, each in surveys.items()} if self.main else None]
        broadcast_object_list(found, from_process=0)
        return {name: numbers for name, numbers in found[0].items() if numbers}

    def _not_worth(self, surveys: Mapping[str, Survey]) -> str | None:
        missing = self._missing(surveys)
        pairs, lacking = len(surveys["train"].keys), len(missing.get("train", ()))
        if self.plan.thrifty and lacking >= self.plan.epochs * pairs:
            return f"of {pairs} training pairs {lacking} would have to be computed, as many as in training itself"
        folder = self.store.folder if self.store.folder.exists() else self.store.folder.parent
        if missing and not os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            return f"{sum(map(len, missing.values()))} pairs are missing, and {str(folder)!r} may not be written to"
        return None

    def _compute(self, name: str, found: Survey, numbers: list[int]) -> None:
        """Compute this process's share of the missing pairs."""
        trainer, accelerator = self.trainer, self.trainer.accelerator
        micro = 2 * trainer.args.per_device_train_batch_size * max(found.lengths)
        world, rank = accelerator.num_processes, accelerator.process_index
        share = 2 * sum(found.lengths[each] for each in numbers) // world  # so that no process has nothing to do
        batches = found.batches(numbers, min(max(2 * micro, _LEAST_TOKENS), share))
        if self.weights.sharded:  # every process takes part in every forward pass
            batches += batches[-1:] * (-len(batches) % world)
        mine = batches[rank::world]
        bar = tqdm(
            total=sum(map(len, mine)), desc=f"Reference cache: {name} pairs", unit="pair", disable=not self._shows
        )
        try:
            with bar:
                for batch in mine:
                    for rows, tokens in self._fresh(self.datasets[name], batch):
                        self._keep(rows, tokens)
                    bar.update(len(batch))
                    if self.store.full is not None and not self.weights.sharded:
                        break
        finally:  # also when it is interrupted
            self.store.flush()

    def _fresh(self, dataset: Any, numbers: list[int]) -> list[tuple[dict[str, Any], Tensor]]:
        """The reference's log-probabilities of some pairs; in two halves where memory does not suffice."""
        trainer = self.trainer
        batch = self._collate(rows_of(dataset, numbers))
        try:
            there = send_to_device(batch, trainer.accelerator.device)
            found = trainer.reference_logps(self.weights.computing(), there)
        except torch.OutOfMemoryError:
            if len(numbers) == 1 or self.weights.sharded:
                raise
        else:
            return [(batch, found.tokens)]
        torch.accelerator.memory.empty_cache()
        half = len(numbers) // 2
        return self._fresh(dataset, numbers[:half]) + self._fresh(dataset, numbers[half:])

    def _verify(self) -> None:
        """Compute a sample afresh, in batches as in training, and hold it against the cache.

        Raises:
            CheckpointError: It differs by more than rounding explains.
        """
        trainer, pairs = self.trainer, self._surveyed.keys
        seed = [random.SystemRandom().getrandbits(32)]
        broadcast_object_list(seed, from_process=0)
        chosen = sorted(random.Random(seed[0]).sample(range(len(pairs)), min(_CHECKED, len(pairs))))
        size, sums, worst = trainer.args.per_device_train_batch_size, [], 0.0
        if self.weights.sharded and self.plan.stands_alone and not self.computed and trainer.ref_model is None:
            return  # checksums were tested; a sharded copy would have to be loaded for the sample alone
        for start in range(0, len(chosen), size):
            for rows, tokens in self._fresh(self.datasets["train"], chosen[start : start + size]):
                fresh = row_values(tokens, rows["completion_mask"])
                for key, values in zip(row_keys(rows), fresh, strict=True):
                    kept = self.store.get(key)
                    assert kept is not None, "the row was there"
                    worst = max(worst, float(abs(kept - values).max(initial=0.0)))
                    sums.append(float((kept - values).sum(dtype="float64")))
        self._refuse(worst)
        self.spread = math.sqrt(sum(each * each for each in sums) / len(sums))

    def _verify_batch(self, inputs: dict[str, Any], known: Tensor) -> None:
        """Compute the first batch that the cache has whole afresh, where none could be before training.

        Raises:
            CheckpointError: It differs by more than rounding explains.
        """
        trainer = self.trainer
        self._verified = True
        self.weights.hold()
        fresh = trainer.reference.logps(dict(inputs)).tokens
        apart = (fresh - known.to(fresh.device)).abs() * inputs["completion_mask"][:, 1:].to(fresh.device)
        worst = apart.max().item()
        if self.weights.sharded:  # all come to the same end
            worst = trainer.accelerator.gather(apart.max()).max().item()
        self._refuse(worst)

    def _refuse(self, worst: float) -> None:
        """Raise an error where a token's log-probability differs by `worst` nats and rounding does not explain it."""
        trainer = self.trainer
        allowed = rounding(trainer)
        if not worst <= allowed:
            raise CheckpointError(
                f"The reference cache in {str(self.store.folder)!r} holds other values than the reference gives: a "
                f"token's log-probabilities differ by {worst:.2g} nats (rounding explains {allowed:.2g}). Remove it, "
                f'`prefalign cache clear {self.store.folder.name}`, or write `reference_cache="off"`.'
            )

    @property
    def _shows(self) -> bool:
        return self.main and not self.trainer.args.disable_tqdm

    def _summary(self) -> str:
        if self.lazy:
            return f"on, rows are computed when they are first met, and kept in {self.store.folder}"
        spread = "" if self.spread is None else f"; cached and fresh sums differ by {self.spread:.2g} nats rms"
        world = self.trainer.accelerator.num_processes
        by = " by this process" if world > 1 else ""
        return f"on, {self._found} pairs, {self.computed} of them computed now{by}, in {self.store.folder}{spread}"


class _Flush(TrainerCallback):  # type: ignore[misc]
    """Writes rows that were met, and finds those of other processes."""

    def __init__(self, cache: ReferenceCache) -> None:
        self.cache = cache

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.cache.store.flush()
        self.cache.trainer.accelerator.wait_for_everyone()
        self.cache.store.refresh()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.cache.store.flush()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.cache.store.flush()


def _unknown_inputs(trainer: Any) -> str | None:
    """Whether batches hold what the tokens do not decide."""
    row = next(iter(trainer.train_dataset))
    extra = sorted(set(trainer.data_collator([row])) - KNOWN)
    if not extra:
        return None
    return f"batches hold {', '.join(map(repr, extra))}, which a row's tokens do not decide"
