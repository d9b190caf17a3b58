"""What a reference cache saves: the time of a later epoch, and of reading what another run has computed.

Run: python benchmarks/cache.py [--model MODEL] [--pairs 48] [--batch 4]

Trains two epochs on the film reviews of examples/data, without and with `reference_cache`, with the cache twice: the
first run computes the reference's log-probabilities, the second reads them. Printed are the median process CPU time of
a step of the second epoch, that of making the trainer (with the pass over the data, where there is one), and the
largest difference of a logged loss. Without --model: a random Llama of 16 million parameters over bytes, which needs
no download.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast, TrainerCallback

from prefalign import PrefConfig, PrefTrainer

PAIRS = Path(__file__).parents[1] / "examples" / "data" / "reviews_train.jsonl"


class Times(TrainerCallback):
    """Process CPU seconds of every step, by epoch."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, float]] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.epoch, self.start = state.epoch, time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.steps.append((self.epoch, time.process_time() - self.start))


def random_model(folder: Path) -> str:
    """A byte-level tokenizer and a random model."""
    letters = ["<pad>", "<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", pad_token="<pad>").save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(letters), hidden_size=512, intermediate_size=1408, num_hidden_layers=5, num_attention_heads=8,
        max_position_embeddings=2048, bos_token_id=None, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    return str(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint folder or Hub id (default: a random model)")
    parser.add_argument("--pairs", type=int, default=48)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--max-length", type=int, default=512)
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    with PAIRS.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line, _ in zip(lines, range(args.pairs), strict=False)]
    data = Dataset.from_list([{key: row[key] for key in ("prompt", "chosen", "rejected")} for row in rows])
    with tempfile.TemporaryDirectory() as scratch:
        model = args.model or random_model(Path(scratch) / "model")
        losses = {}
        for name in ("off", "computes", "reads"):
            config = PrefConfig(
                str(Path(scratch) / name), loss="dpo(beta=0.1)", num_train_epochs=2, logging_steps=1,
                per_device_train_batch_size=args.batch, max_length=args.max_length, report_to="none",
                save_strategy="no", disable_tqdm=True, use_cpu=not torch.cuda.is_available(),
                reference_cache="off" if name == "off" else str(Path(scratch) / "cache"),
            )  # fmt: skip
            times, start = Times(), time.process_time()
            with contextlib.redirect_stdout(None):
                trainer = PrefTrainer(model, args=config, train_dataset=data, callbacks=[times])
                made = time.process_time() - start
                trainer.train()
            step = statistics.median(seconds for epoch, seconds in times.steps if epoch >= 1)
            losses[name] = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
            gap = max(abs(a - b) for a, b in zip(losses[name], losses["off"], strict=True))
            print(f"{name:<10} trainer made {made:7.2f} s   step {step:7.3f} s   loss differs by {gap:.1e}", flush=True)


if __name__ == "__main__":
    main()
