"""One run of a sweep in a process of its own: `python -m prefalign.sweep._job JOB_FOLDER GOLD_SAMPLES UNTIL`.

Its standard input is a pipe that its worker holds open: when that ends, so does the run.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
from pathlib import Path
from typing import Any

from filelock import FileLock
from transformers import TrainerCallback

from .._errors import PrefalignError
from .._files import write_json
from .._yaml import read_mapping
from ._plan import CONFIG_FILE, GOLD_FILE


class Reached(Exception):
    """The run has come to its rung."""


class StopAt(TrainerCallback):  # type: ignore[misc]
    """Ends the process at a rung, with that step's evaluation in its checkpoint; the schedule is the whole run's."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for a checkpoint; the evaluation is there anyway."""
        if state.global_step == self.step:
            control.should_save = True

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop once all that belongs to the step is written."""
        if state.global_step >= self.step:
            raise Reached


def run_job(folder: Path, gold_samples: int, until: int = 0) -> int:
    """Train as `config.yaml` says, from the last checkpoint if there is one; then sample and score, if asked to.

    Args:
        folder: The run's folder.
        gold_samples: Samples of each held-out prompt; 0 is none.
        until: The step of a rung, at which to stop with a checkpoint; 0 for the end.

    Returns:
        The exit code of `prefalign train`.
    """
    if not (folder / "run" / "trainer_state.json").is_file():  # the last thing that training writes
        from ..train import last_whole_checkpoint

        checkpoint = last_whole_checkpoint(str(folder / "run"))
        if until and checkpoint is not None and int(checkpoint.rpartition("-")[2]) >= until:
            return 0
        try:
            if not _train(folder / CONFIG_FILE, checkpoint, until):
                return 0
        except PrefalignError as error:
            print(f"prefalign train: {error}", file=sys.stderr)
            return 2
    if gold_samples and not (folder / GOLD_FILE).is_file():
        write_json(folder / GOLD_FILE, {"rewards": _gold(folder, gold_samples)})
    return 0


def _train(config: Path, checkpoint: str | None, until: int) -> bool:
    """`prefalign train`, and what it has no option for; whether it came to its end, and not only to `until`."""
    from ..train import add_training_arguments, run_training

    parser = argparse.ArgumentParser(prog="prefalign train", allow_abbrev=False)
    add_training_arguments(parser)
    # The look at the untrained model is in the checkpoint; another one would be a point that only stopped runs have.
    resume = [] if checkpoint is None else ["--resume_from_checkpoint", checkpoint, "--eval_on_start", "false"]
    args = parser.parse_args(["--config", str(config), *resume])
    args.callbacks = [StopAt(until)] if until else []
    try:
        run_training(args)
    except Reached:
        return False
    return True


def _gold(folder: Path, samples: int) -> list[float]:
    """VADER's scores of `samples` continuations of each held-out prompt: of the first prompt, then the second, …"""
    from ..data import load_pairs
    from ..diagnose import gold_rewards, sample

    config = read_mapping(folder / CONFIG_FILE, "--config", "The config file")
    pairs = load_pairs(config["eval_dataset_name"], split=config.get("dataset_test_split", "test"))
    prompts = [prompt for prompt in pairs["prompt"] for _ in range(samples)]
    model, tokenizer = _trained(folder / "run")
    return gold_rewards(sample(model, tokenizer, prompts, config["seed"], progress="Samples"))


def _trained(run: Path) -> tuple[Any, Any]:
    """The trained model, an adapter folded into its base model's weights, and its tokenizer."""
    from ..diagnose import load_model

    if not (run / "adapter_config.json").is_file():
        return load_model(str(run))
    from peft import PeftConfig, PeftModel
    from transformers import AutoTokenizer

    base, _ = load_model(str(PeftConfig.from_pretrained(run).base_model_name_or_path))
    merged: Any = PeftModel.from_pretrained(base, run)
    return merged.merge_and_unload().eval(), AutoTokenizer.from_pretrained(run)


def _end_with_worker() -> None:
    """End this process when its worker is gone: another one will take the run over, and two must not write to it."""

    def watch() -> None:
        # The read returns when the worker has died, even if that was before this process came so far.
        os.read(0, 1)  # not `sys.stdin`, whose lock a thread that waits would hold when the process ends
        os._exit(75)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    _end_with_worker()
    with FileLock(Path(sys.argv[1]) / "run.lock"):  # until the process of a worker that died is gone, too
        sys.exit(run_job(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
