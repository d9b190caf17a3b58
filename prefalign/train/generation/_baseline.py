"""The baseline distribution of a loss's likelihood term: completions of another data set, or of the reference.

Every pair gets one completion. Of another data set, the pair's number and the epoch say which: each epoch deals the
completions out anew, and a run that is resumed, another number of processes or other micro-batches change nothing.
The reference's samples, one for each row of the pairs, are drawn once and kept with the run.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor
from tqdm.auto import tqdm

from ..._errors import CheckpointError, DataError
from ...losses import PairLogps
from ...references import write_json
from .. import _trl
from .._rows import PAIR_INDEX, SPLIT
from ._baseline_plan import BaselinePlan
from ._sampling import Generator, Request, Sampling, checked, seed_of

if TYPE_CHECKING:
    from .._host import Host

_FORMAT = 1
_AT_ONCE = 32  # prompts of one call, where `generation_batch_size` does not say
_STREAM = 0x5F7  # tells these draws from others with the run's seed


class Baseline:
    """Gives the pairs of a batch the log-probabilities of their baseline completions.

    Args:
        trainer: The trainer, made.
        plan: Whose completions.
        generator: Samples the reference.
    """

    def __init__(self, trainer: Host, plan: BaselinePlan, generator: Generator) -> None:
        self.trainer, self.plan, self.generator = trainer, plan, generator
        self._rows: list[tuple[list[int], list[int]]] | None = None
        self._samples: dict[int, tuple[list[int], list[int]]] | None = None
        if plan.report is not None:
            trainer.data_reports["sft_dataset"] = plan.report  # the record of the run names it
        if plan.data is not None:
            made: Any = trainer._prepare_dataset(plan.data, trainer.processing_class, trainer.args, "sft")
            self._rows = [(row["prompt_ids"], row["chosen_ids"]) for row in made]

    def add(self, pairs: PairLogps, model: Any, numbers: Tensor | None) -> PairLogps:
        """The pairs with `baseline` and `baseline_tokens`; makes one more forward pass of the policy.

        Args:
            pairs: The batch.
            model: The wrapped policy.
            numbers: The pairs' numbers in their data sets, (pairs,).

        Raises:
            DataError: The rows of the data have no numbers.
        """
        if numbers is None:
            raise DataError("The baseline's completions are dealt out by row, and these data have no row numbers.")
        trainer = self.trainer
        examples = [self._example(int(number)) for number in numbers.tolist()]
        device = pairs.chosen.device
        batch = {
            key: value.to(device) for key, value in trainer.data_collator(examples).items() if torch.is_tensor(value)
        }
        batch = {key: value[: len(examples)] for key, value in batch.items()}
        mask = batch.pop("completion_mask")
        recorder = _trl.Recorder(model, trainer.forward_pass)
        labels = batch["input_ids"].masked_fill(mask == 0, -100)
        with trainer.statistics.left_out():
            recorder(**batch, labels=labels, fused_lm_head=True, use_cache=False)
        logps = recorder.token_logps(mask).sum(dim=1)
        mode = "train" if trainer.model.training else "eval"
        mean = trainer.accelerator.gather(logps.detach().float()).mean().item()
        _trl.add_metric(trainer, mode, "logps/baseline", mean)
        return replace(pairs, baseline=logps, baseline_tokens=mask.sum(dim=1).to(logps.dtype))

    def _example(self, number: int) -> dict[str, list[int]]:
        if self._rows is not None:
            prompt, completion = self._rows[self._dealt(number)]
        else:
            if self._samples is None:
                self._samples = self._draw()
            prompt, completion = self._samples[number]
        return {"prompt_ids": prompt, "chosen_ids": completion, "rejected_ids": completion}

    def _dealt(self, number: int) -> int:
        """Which row of the other data set a pair gets in this epoch; evaluations always get those of the first."""
        assert self._rows is not None
        training = self.trainer.model.training
        # The epoch is a fraction of steps, which rounding leaves a little below a whole number.
        epoch = int((self.trainer.state.epoch or 0.0) + 1e-6) if training else 0
        order = _permutation(len(self._rows), self.trainer.args.seed, epoch)
        return int(order[number % SPLIT % len(order)])

    def _draw(self) -> dict[int, tuple[list[int], list[int]]]:
        """One sample of the reference for each row of all data sets, from the run's cache where they are there."""
        trainer, sampling = self.trainer, self.plan.sampling
        assert sampling is not None
        prompts = dict(self._prompts())
        accelerator = trainer.accelerator
        file = self._file(prompts)
        kept: list[Any] = [_read(file) if accelerator.is_main_process and file is not None else None]
        if accelerator.num_processes > 1:
            broadcast_object_list(kept)
        completions: dict[int, list[int]]
        if kept[0] is not None:
            completions = {int(number): ids for number, ids in kept[0].items()}
        else:
            parts = None if file is None else file.with_suffix(".parts")
            completions = self._generate(prompts, sampling, parts)
            if accelerator.is_main_process and file is not None and parts is not None:
                _write(file, completions)
                shutil.rmtree(parts)
        return {number: (prompt, completions[number]) for number, prompt in prompts.items()}

    def _prompts(self) -> Iterator[tuple[int, list[int]]]:
        trainer = self.trainer
        others = trainer.eval_dataset
        sets = [trainer.train_dataset, *(others.values() if isinstance(others, Mapping) else [others])]
        for dataset in sets:
            if dataset is not None:
                for row in dataset:
                    yield int(row[PAIR_INDEX]), list(row["prompt_ids"])

    def _generate(
        self, prompts: Mapping[int, list[int]], sampling: Sampling, parts: Path | None
    ) -> dict[int, list[int]]:
        """A sample for every prompt, by its number; each call's are kept at once, for a run that is stopped."""
        trainer = self.trainer
        accelerator = trainer.accelerator
        size = sampling.batch or _AT_ONCE
        numbers = sorted(prompts, key=lambda number: (len(prompts[number]), number))
        portions = [numbers[start : start + size] for start in range(0, len(numbers), size)]
        # What the main process finds counts for all: they make as many calls, or those of a sharded model would wait
        # for one another for ever.
        found: list[Any] = [_read_parts(parts, portions) if accelerator.is_main_process else None]
        if accelerator.num_processes > 1:
            broadcast_object_list(found)
        kept: dict[int, dict[int, list[int]]] = found[0]
        if parts is not None:
            parts.mkdir(parents=True, exist_ok=True)
        left = [place for place in range(len(portions)) if place not in kept]
        rounds = -(-len(left) // accelerator.num_processes)
        made: dict[int, list[int]] = {}
        bar = tqdm(
            range(rounds), desc="Sampling the reference", unit="batch", delay=2, disable=not accelerator.is_main_process
        )
        with trainer.reference.serving() as model, accelerator.autocast():
            vocabulary = model.config.get_text_config().vocab_size  # type: ignore[union-attr, operator]
            for turn in bar:
                own = turn * accelerator.num_processes + accelerator.process_index
                place = left[min(own, len(left) - 1)]
                mine = portions[place]
                request = Request(
                    tuple(tuple(prompts[number]) for number in mine),
                    sampling,
                    seed_of(trainer.args.seed, _STREAM, place),
                    trainer.reference.version,
                )
                drawn = checked(self.generator(model, request), request, vocabulary)
                # What says nothing is the end token alone.
                new = {n: list(ids or [sampling.stop_ids[0]]) for n, ids in zip(mine, drawn, strict=True)}
                made |= new
                if parts is not None and own < len(left):
                    _write(parts / f"{place}.json", new)
        for portion in kept.values():
            made |= portion
        return {int(n): list(ids) for n, ids in gather_object(list(made.items()))}

    def _file(self, prompts: Mapping[int, Sequence[int]]) -> Path | None:
        """Where the samples are kept: the name holds everything they depend on; None if that cannot be told."""
        reference = self.trainer.reference
        state = {k: v for k, v in reference.state_dict().items() if isinstance(v, str | int | float)}
        if state.get("fingerprint") is None:
            return None
        assert self.plan.sampling is not None
        content = [_FORMAT, state, asdict(self.plan.sampling), self.trainer.args.seed, sorted(prompts.items())]
        key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]
        return Path(self.trainer.args.output_dir) / "prefalign_cache" / "baseline" / f"{key}.json"


def _permutation(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, _STREAM, epoch]).permutation(count)


def _write(file: Path, completions: Mapping[int, list[int]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, {"format": _FORMAT, "completions": {str(n): ids for n, ids in completions.items()}})


def _read_parts(parts: Path | None, portions: Sequence[Sequence[int]]) -> dict[int, dict[int, list[int]]]:
    """What a run that was stopped has sampled: by the portion's place, the samples by their numbers."""
    found = {}
    for place, numbers in enumerate(portions):
        kept = None if parts is None else _read(parts / f"{place}.json")
        samples = {int(number): ids for number, ids in (kept or {}).items()}
        if sorted(samples) == sorted(numbers):
            found[place] = samples
    return found


def _read(file: Path) -> dict[str, list[int]] | None:
    """The samples in a file; None if there is none.

    Raises:
        CheckpointError: The file is damaged.
    """
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text("utf-8"))
        completions: dict[str, list[int]] = content["completions"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"The samples in {str(file)!r} are damaged ({error!r}). Delete the file.") from error
    return completions
