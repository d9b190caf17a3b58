"""A whole training run: trl's trainer, the same with its compaction forced on, and ours.

Run: python benchmarks/train.py --model MODEL [--steps 3] [--pairs 2] [--prompt 128] [--completion 128]
     [--no-checkpointing]

Each trains the same pairs of random tokens for the same steps, float32, AdamW, gradient checkpointing, the reference
every step, a log at the end. Taken is the process CPU time of `train()` (elapsed time on a GPU), everything in it:
data loading, optimizer, statistics, and in ours the check of the first batch, which costs one more forward pass.
"compacted" is the honest stand-in for trl on a GPU; see `benchmarks/step.py`.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time

import torch
import trl.trainer.utils as trl_utils
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

from prefalign import PrefConfig, PrefTrainer


def make_rows(tokenizer: object, count: int, prompt: int, completion: int) -> Dataset:
    """Pairs of random tokens that are exactly as long, end token included."""
    rng = random.Random(0)
    alphabet = [i for i in range(1000, 20000) if tokenizer.encode(tokenizer.decode([i])) == [i]]

    def text(length: int) -> str:
        while True:
            found = tokenizer.decode(rng.choices(alphabet, k=length))
            if len(tokenizer.encode(found)) == length:
                return found

    return Dataset.from_list(
        [
            {"prompt": text(prompt), "chosen": text(completion - 1), "rejected": text(completion - 1)}
            for _ in range(count)
        ]
    )


def run(name: str, rows: Dataset, args: argparse.Namespace) -> tuple[float, float]:
    """(seconds of `train()`, the logged loss)."""
    gpu = torch.cuda.is_available()
    trainer_of, config_of = (PrefTrainer, PrefConfig) if name == "prefalign" else (DPOTrainer, DPOConfig)
    config = config_of(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=args.pairs,
        max_steps=args.steps,
        max_length=None,
        logging_steps=args.steps,
        use_cpu=not gpu,
        bf16=False,
        gradient_checkpointing=not args.no_checkpointing,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=0,
    )
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    trainer = trainer_of(model, args=config, train_dataset=rows, processing_class=tokenizer)
    kept = trl_utils._use_triton
    if name == "compacted":
        trl_utils._use_triton = lambda device: True
    clock = time.perf_counter if gpu else time.process_time
    try:
        start = clock()
        trainer.train()
        return clock() - start, next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
    finally:
        trl_utils._use_triton = kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="path or Hub id of a causal language model")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--completion", type=int, default=128)
    parser.add_argument("--no-checkpointing", action="store_true")
    parser.add_argument("--ways", nargs="+", default=["stock", "compacted", "prefalign"])
    args = parser.parse_args()

    rows = make_rows(AutoTokenizer.from_pretrained(args.model), args.steps * args.pairs, args.prompt, args.completion)
    seconds = {}
    for name in args.ways:
        seconds[name], loss = run(name, rows, args)
        over = "  ".join(f"{seconds[n] / seconds[name]:.2f}x {n}" for n in ("stock", "compacted") if n in seconds)
        print(f"{name:>10} {seconds[name]:8.2f} s  {over}  loss {loss:.6f}", flush=True)


if __name__ == "__main__":
    main()
