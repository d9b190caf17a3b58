"""One run of a sweep in a process of its own: `python -m prefalign.sweep._job JOB_FOLDER GOLD_SAMPLES UNTIL`."""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from .._errors import PrefalignError
from .._yaml import read_mapping
from ..references import write_json

CONFIG_FILE, GOLD_FILE = "config.yaml", "gold.json"


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
    from ._stop import Reached, StopAt

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


def _die_with(parent: int) -> None:
    """End this process when its worker is gone: another one will take the run over, and two must not write to it."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(75)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    _die_with(os.getppid())
    sys.exit(run_job(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
