"""One run of a sweep, in a process of its own: `python -m prefalign.cli.sweep._job JOB_FOLDER GOLD_SAMPLES`."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from ..._yaml import read_mapping
from ...references import write_json
from .._main import main as prefalign

CONFIG_FILE, GOLD_FILE = "config.yaml", "gold.json"


def run_job(folder: Path, gold_samples: int) -> int:
    """Train as `config.yaml` says, from the last checkpoint if there is one; then sample and score, if asked to."""
    config = folder / CONFIG_FILE
    if not (folder / "run" / "trainer_state.json").is_file():  # the last thing that training writes
        from ...train import last_whole_checkpoint

        checkpoint = last_whole_checkpoint(str(folder / "run"))
        resume = [] if checkpoint is None else ["--resume_from_checkpoint", checkpoint]
        code = prefalign(["train", "--config", str(config), *resume])
        if code:
            return code
    if gold_samples and not (folder / GOLD_FILE).is_file():
        write_json(folder / GOLD_FILE, {"rewards": _gold(folder, gold_samples)})
    return 0


def _gold(folder: Path, samples: int) -> list[float]:
    """VADER's scores of `samples` continuations of each held-out prompt: of the first prompt, then the second, …"""
    from ...data import load_pairs
    from ..demo import gold_rewards, sample

    config = read_mapping(folder / CONFIG_FILE, "--config", "The config file")
    pairs = load_pairs(config["eval_dataset_name"], split=config.get("dataset_test_split", "test"))
    prompts = [prompt for prompt in pairs["prompt"] for _ in range(samples)]
    model, tokenizer = _trained(folder / "run")
    return gold_rewards(sample(model, tokenizer, prompts, config["seed"], progress="Samples"))


def _trained(run: Path) -> tuple[Any, Any]:
    """The trained model, an adapter folded into its base model's weights, and its tokenizer."""
    from ..demo import load

    if not (run / "adapter_config.json").is_file():
        return load(str(run))
    from peft import PeftConfig, PeftModel
    from transformers import AutoTokenizer

    base, _ = load(str(PeftConfig.from_pretrained(run).base_model_name_or_path))
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
    sys.exit(run_job(Path(sys.argv[1]), int(sys.argv[2])))
