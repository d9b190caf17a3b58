"""The demo's stages; each leaves a file, so that a stopped demo goes on where it was."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..diagnose import gold_rewards, interval, load_model, sample, write_report, write_samples
from ..losses import parse_loss
from ..references import write_json
from . import _words
from ._evaluate import sides, summed_logps
from ._measurement import Measurement
from ._model import model_path
from ._picture import draw
from ._settings import Settings, data_folder, prepare_run
from ._training import make_trainer, merged, train

if TYPE_CHECKING:
    from datasets import Dataset

    from ..losses import Loss


def run_demo(settings: Settings, out: Path, data: Path | None = None, fresh: bool = False) -> dict[str, Any]:
    """Run the demo, or what is left of it, in `out`; print and draw its result, and return it.

    Raises:
        PrefalignError: the settings, the folder or the data are not fit.
    """
    from ..data import flip_labels, load_pairs

    loss = parse_loss(settings.loss)
    data = data_folder(data)
    prepare_run(out, settings, data, fresh)
    labelled = load_pairs(data / "reviews_train.jsonl")
    heldout = load_pairs(data / "reviews_heldout.jsonl")
    heldout = heldout.select(range(min(settings.heldout or len(heldout), len(heldout))))
    noisy = flip_labels(labelled, settings.flip_rate, settings.seed)
    path = model_path(settings.model, out.parent / "models")
    _words.introduce(path, loss, noisy, heldout, data)
    before, after, record = _measure_and_train(settings, loss, path, noisy, heldout, out)
    result = summarise(before, after, heldout, settings.samples) | record
    write_json(out / "result.json", result)
    repeated = [prompt for prompt in heldout["prompt"] for _ in range(settings.samples)]
    write_samples(out, repeated, before.texts, after.texts, before.gold, after.gold)
    write_report(out)
    draw(out / "demo.png", before, after, result, _history(out))
    _words.report(out, result, before, after, heldout["prompt"], settings)
    return result


def _measure_and_train(
    settings: Settings, loss: Loss, path: str, noisy: Dataset, heldout: Dataset, out: Path
) -> tuple[Measurement, Measurement, dict[str, Any]]:
    """The measurements before and after training, from the files of an earlier run where there are any."""
    files = [out / f"{name}.json" for name in ("before", "after", "training")]
    if all(file.is_file() for file in files):
        print(f"\nThis demo has been run: its result is shown again (--fresh runs it anew). {out}", file=sys.stderr)
        before, after, record = (json.loads(file.read_text("utf-8")) for file in files)
        return Measurement(**before), Measurement(**after), record
    model, tokenizer = load_model(path)
    before = _measure(model, tokenizer, heldout, settings, files[0], "before")
    trainer = make_trainer(model, tokenizer, loss, noisy, settings, out)
    started, cpu = time.perf_counter(), time.process_time()
    resumed = train(trainer)
    record = {
        "training_seconds": time.perf_counter() - started,
        "training_cpu_seconds": time.process_time() - cpu,
        "resumed": resumed,
    }
    after = _measure(merged(trainer), tokenizer, heldout, settings, files[1], "after")
    write_json(files[2], record)
    return before, after, record


def _measure(model: Any, tokenizer: Any, heldout: Dataset, settings: Settings, file: Path, when: str) -> Measurement:
    if file.is_file():
        return Measurement(**json.loads(file.read_text("utf-8")))
    prompts = list(heldout["prompt"])
    repeated = [prompt for prompt in prompts for _ in range(settings.samples)]
    # The same seed before and after: common random numbers take noise out of the comparison.
    texts = sample(model, tokenizer, repeated, settings.seed, progress=f"Sampling, {when}")
    both = summed_logps(
        model, tokenizer, prompts * 2, [*heldout["chosen"], *heldout["rejected"]], progress=f"Scoring, {when}"
    )
    measurement = Measurement(texts, gold_rewards(texts), both[: len(prompts)], both[len(prompts) :])
    write_json(file, dataclasses.asdict(measurement))
    return measurement


def summarise(before: Measurement, after: Measurement, heldout: Dataset, samples: int) -> dict[str, Any]:
    """The demo's numbers, each with a 95 % bootstrap interval over held-out prompts."""
    prompts = [row for row in range(len(heldout)) for _ in range(samples)]
    chosen = np.subtract(after.chosen, before.chosen)
    rejected = np.subtract(after.rejected, before.rejected)
    estimates = {
        "gold_before": interval(before.gold, groups=prompts),
        "gold_after": interval(after.gold, groups=prompts),
        "gold_change": interval(np.subtract(after.gold, before.gold), groups=prompts),
        "accuracy": interval(sides(chosen - rejected)),
        "chosen_change": interval(chosen),
        "rejected_change": interval(rejected),
        "displaced": interval(chosen < 0),
    }
    return {
        **{name: dataclasses.asdict(estimate) for name, estimate in estimates.items()},
        "words_before": float(np.mean([len(text.split()) for text in before.texts])),
        "words_after": float(np.mean([len(text.split()) for text in after.texts])),
        "prompts": len(heldout),
        "samples": samples,
    }


def _history(out: Path) -> list[dict[str, float]]:
    """The training's log, from its last checkpoint."""
    states = sorted(out.glob("checkpoint-*/trainer_state.json"), key=lambda path: int(path.parent.name.split("-")[1]))
    return json.loads(states[-1].read_text("utf-8"))["log_history"] if states else []
