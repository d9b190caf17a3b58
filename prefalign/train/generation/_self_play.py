"""Data of winners alone: the reference generates the other completion, for several steps at once."""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object
from torch import Tensor

from ..._errors import DataError
from ..._files import new_file
from ...losses import PairLogps
from ...references import State
from .. import _trl
from .._host import Gather
from .._rows import PAIR_INDEX, SPLIT
from ._sampling import Generator, Request, Sampling, check_some, read_completions, seed_of

if TYPE_CHECKING:
    from .._host import Host

logger = logging.getLogger(__name__)
SAMPLES_FILE = "prefalign_generated.jsonl"
_SAMPLES = 2  # texts that are kept of each call
_TRAINING, _EVALUATION = 0, 1


@dataclass
class _Winner:
    """One row of a batch: its tokens, and its number in the data."""

    prompt: list[int]
    chosen: list[int]
    number: int | None


# What was generated for a row: its loser, and its winner too if that is not the data's.
_Made = tuple[list[int], list[int] | None]


@dataclass
class _Planned:
    """A batch that was fetched, and the completions once they are there."""

    batch: dict[str, Any]
    completions: list[_Made] | None = None


class SelfPlay:
    """Puts completions of the reference where a batch of winners has placeholders.

    Batches are fetched ahead, and for all of them one call of the generator makes the completions, as long as the
    reference stays the same; the reference that generated a completion is thereby the one that scores it. Completions
    that were not used yet are saved with a checkpoint.

    Args:
        trainer: The trainer.
        generator: Makes the completions.
        sampling: How.
        splits: Numbers of the data sets that hold winners alone (`pair_index` carries them); 0 are the training data.
    """

    def __init__(self, trainer: Host, generator: Generator, sampling: Sampling, splits: frozenset[int]) -> None:
        self.trainer, self.generator, self.sampling, self.splits = trainer, generator, sampling, splits
        self._source: object = None
        self._queue: deque[_Planned] = deque()
        self._current: list[_Planned] = []
        self._until = 0
        self._restored: list[list[Any]] = []

    @property
    def trains(self) -> bool:
        """Whether the training data hold winners alone; if not, some evaluation data do."""
        return 0 in self.splits

    def look_ahead(self, batches: Iterator[dict[str, Any]], count: int) -> Iterator[dict[str, Any]]:
        """The next `count` batches, one step's, with more fetched behind them that completions are made for."""
        step, trainer = self.trainer.state.global_step, self.trainer
        if batches is not self._source:  # a new epoch, of which nothing was generated yet, or a resumed one
            self._source, self._queue = batches, deque()
            self._until = self._until if self._restored else step
        if step >= self._until:
            change = trainer.reference.next_change(step)
            ends = [step + self.sampling.ahead, max(trainer.state.max_steps, step + 1)]
            self._until = min([*ends, change] if change is not None else ends)
        wanted = count + (self._until - step - 1) * trainer.args.gradient_accumulation_steps
        while len(self._queue) < wanted:
            batch = next(batches, None)
            if batch is None:
                break
            self._queue.append(_Planned(batch))
        self._current = []
        while self._queue:
            self._current.append(self._queue.popleft())
            yield self._current[-1].batch

    def fill(self, step: int) -> None:
        """Before an optimizer step, when the reference is the step's: complete its batches in place."""
        if not self.trains:
            return
        started = time.perf_counter()
        planned = [*self._current, *self._queue]
        self._take_restored(planned)
        empty = [one for one in planned if one.completions is None]
        if empty:
            rows = [self._rows(one.batch) for one in empty]
            flat = [row for some in rows for row in some]
            seed = seed_of(*self._seed(step), _TRAINING)
            made = iter(self._generate(flat, seed, self.trainer.reference.casts(len(flat), seed), step))
            for one, some in zip(empty, rows, strict=True):
                one.completions = [next(made) for _ in some]
        seconds = time.perf_counter() - started if empty else 0.0
        for one in self._current:
            assert one.completions is not None
            one.batch.update(self._complete(one.batch, one.completions, "train"))
        _trl.add_metric(self.trainer, "train", "generated/seconds", seconds)

    def fill_evaluation(self, inputs: dict[str, Any], numbers: Tensor | None) -> dict[str, Any]:
        """An evaluation batch with completions, if it holds winners alone; else the batch itself."""
        if numbers is None or not len(numbers) or int(numbers[0]) // SPLIT not in self.splits:
            return inputs
        rows = self._rows({**inputs, PAIR_INDEX: numbers})
        step = self.trainer.state.global_step
        seed, cast = seed_of(*self._seed(step), _EVALUATION, int(numbers[0])), (None, self.trainer.reference.version)
        made = self._generate(rows, seed, [cast] * len(rows), None)
        return self._complete(inputs, made, "eval")

    def keep_samples_before(self, step: int) -> None:
        """Forget the samples of a run that is begun anew, or of the steps that a resumed run does again."""
        path = Path(self.trainer.args.output_dir) / SAMPLES_FILE
        if not path.is_file():
            return
        lines = [line for line in path.read_text("utf-8").splitlines(keepends=True) if line.endswith("\n")]
        kept = [line for line in lines if json.loads(line)["step"] < step]
        with new_file(path) as partial:
            partial.write_text("".join(kept), "utf-8")

    def state_dict(self) -> State:
        """Completions that are there and not used yet, of all processes; every process must call it."""
        pending = [
            [_numbers(one.batch), one.completions] for one in self._queue if one.completions is not None
        ] + self._restored
        return {"until": self._until, "pending": gather_object([pending])}

    def load_state_dict(self, state: State) -> None:
        """Take back what `state_dict` gave."""
        self._until = int(state["until"])
        accelerator, pending = self.trainer.accelerator, state["pending"]
        if len(pending) == accelerator.num_processes:
            self._restored = pending[accelerator.process_index]
        elif any(pending):
            logger.warning("The checkpoint was saved with another number of processes: completions are made anew.")

    def _take_restored(self, planned: Sequence[_Planned]) -> None:
        if not self._restored:
            return
        restored, self._restored = self._restored, []
        theirs = [numbers for numbers, _ in restored]
        if theirs != [_numbers(one.batch) for one in planned[: len(restored)]]:
            logger.warning("The checkpoint's completions belong to other rows than come now: they are made anew.")
            return
        for one, (_, completions) in zip(planned, restored, strict=False):
            one.completions = [(loser, winner) for loser, winner in completions]

    def _seed(self, step: int) -> tuple[int, int, int]:
        return self.trainer.args.seed, step, self.trainer.accelerator.process_index

    def _generate(
        self, rows: Sequence[_Winner], seed: int, casts: Sequence[tuple[int | None, int]], step: int | None
    ) -> list[_Made]:
        """What each row lacks; a few texts go to the samples' file if `step` says when."""
        missing = [row for row in rows if not row.prompt]
        if missing:
            raise DataError(
                f"Row {missing[0].number} of the data has no prompt left that could be continued. Give it one, or "
                "raise `max_length`."
            )
        made: dict[tuple[int, bool], list[int]] = {}  # by the row's place, and whether it is the winner
        versions = sorted({version for cast in casts for version in cast if version is not None})
        if (
            self.trainer.accelerator.is_fsdp2
        ):  # a forward pass needs all processes: each generates with every version that one of them wants
            versions = sorted({version for theirs in gather_object([versions]) for version in theirs})
        for version in versions:
            places = [(place, False) for place, (_, loser) in enumerate(casts) if loser == version]
            places += [(place, True) for place, (winner, _) in enumerate(casts) if winner == version]
            asked = [rows[place] for place, _ in places]
            own = seed if len(versions) == 1 else seed_of(seed, version)
            with self.trainer.reference.at(version):
                completions = self._ask(asked or rows[:1], own, version)
            made |= zip(places, completions, strict=bool(places))
            if step is not None and self.trainer.accelerator.is_main_process:
                self._write_samples(asked[:_SAMPLES], completions, step, version)
        check_some(made.values())
        return [(made[place, False], made.get((place, True))) for place in range(len(rows))]

    def _ask(self, rows: Sequence[_Winner], seed: int, version: int) -> list[list[int]]:
        """One completion for each row by the reference as it is."""
        request = Request(tuple(tuple(row.prompt) for row in rows), self.sampling, seed, version)
        with self.trainer.reference.serving() as model, self.trainer.accelerator.autocast():
            vocabulary = model.config.get_text_config().vocab_size  # type: ignore[union-attr, operator]
            return read_completions(self.generator(model, request), request, vocabulary)

    def _complete(self, batch: dict[str, Any], made: Sequence[_Made], mode: str) -> dict[str, Any]:
        """The batch, collated anew with the completions."""
        device = batch["input_ids"].device
        rows = self._rows(batch)
        examples, counts = [], []
        for row, (loser, winner) in zip(rows, made, strict=True):
            chosen = row.chosen if winner is None else self._ended_like(row, winner)
            examples.append(
                {"prompt_ids": row.prompt, "chosen_ids": chosen, "rejected_ids": self._ended_like(row, loser)}
                | ({} if row.number is None else {PAIR_INDEX: row.number})
            )
            whole = bool(loser) and loser[-1] in self.sampling.stop_ids
            counts.append([len(loser), whole, not loser, loser == chosen[: len(loser)] and whole, winner is not None])
        means = self.trainer.accelerator.gather(torch.tensor(counts, dtype=torch.float32, device=device)).mean(dim=0)
        metrics = dict(zip(("length", "ended", "empty", "same", "winners"), means.tolist(), strict=True))
        if not self.trainer.reference.generates_winners:
            del metrics["winners"]
        named = {f"generated/{name}": value for name, value in metrics.items()} | self.trainer.reference.metrics()
        for name, value in named.items():
            _trl.add_metric(self.trainer, mode, name, value)
        collated = self.trainer.data_collator(examples)
        return {key: value.to(device) if torch.is_tensor(value) else value for key, value in collated.items()}

    def _ended_like(self, row: _Winner, completion: list[int]) -> list[int]:
        """A completion that ends as the data's does, where it ended by itself."""
        stops = self.sampling.stop_ids
        if not completion:  # a reference that said nothing gave the empty answer, which is the end token alone
            return [stops[0]]
        # What the data have after the end token (a chat template's line break) is no difference between the two.
        last = max((place for place, token in enumerate(row.chosen) if token in stops), default=None)
        tail = row.chosen[last + 1 :] if completion[-1] in stops and last is not None else []
        return [*completion, *tail]

    def _rows(self, batch: dict[str, Any]) -> list[_Winner]:
        """The winners of a collated batch, which is where they were cut to `max_length` already."""
        count = len(batch["input_ids"]) // 2
        table = (batch[key][:count].tolist() for key in ("input_ids", "attention_mask", "completion_mask"))
        numbers: Sequence[int | None] = _numbers(batch) or [None] * count
        rows = []
        for ids, real, inside, number in zip(*table, numbers, strict=True):
            kept = [(token, part) for token, there, part in zip(ids, real, inside, strict=True) if there]
            rows.append(_Winner([t for t, part in kept if not part], [t for t, part in kept if part], number))
        return rows

    def _write_samples(self, rows: Sequence[_Winner], made: Sequence[list[int]], step: int, version: int) -> None:
        decode: Any = self.trainer.processing_class.decode
        path = Path(self.trainer.args.output_dir) / SAMPLES_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            for row, completion in zip(rows, made, strict=False):
                texts = {"prompt": row.prompt, "chosen": row.chosen, "generated": completion}
                line = {"step": step, "reference_step": version}
                line |= {name: decode(ids, skip_special_tokens=True) for name, ids in texts.items()}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


def anchor_metrics(pairs: PairLogps, gather: Gather) -> dict[str, float]:
    """What SePPO's gate sees: the mean of log pi(w) - log ref(w) in nats, and the share of pairs below 0."""
    anchor = gather(pairs.ratios()[0].detach().float())
    return {"anchor/margin": anchor.mean().item(), "anchor/flip_rate": (anchor < 0).float().mean().item()}


def _numbers(batch: dict[str, Any]) -> list[int] | None:
    numbers = batch.get(PAIR_INDEX)
    return None if numbers is None else [int(number) for number in numbers.tolist()]
