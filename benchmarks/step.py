"""Time and memory of one DPO step: stock TRL, TRL with its compaction forced on, and the shared-prefix forward.

Run: python benchmarks/step.py --model MODEL [--rounds 5] [--mix 256/64 128/128 32/256 tail]

All variants run interleaved in one process on the same weights and the same batches: policy forward, reference forward
(unless cached) and backward through `DPOTrainer.compute_loss`. Printed are medians of process CPU time a step on the
CPU (of time between device events on a GPU) and the ratios of medians; `gradients` is the smallest cosine between a
parameter's gradient and the stock one.

"stock" is trl's DPOTrainer as installed. "compacted" is the same with its compaction of unscored positions forced on,
which TRL does only where Triton is: the honest stand-in for TRL on a GPU.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import torch
import transformers
import trl
import trl.trainer.utils as trl_utils
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

from prefalign.train._shared_prefix import install

MIXES = {"256/64": (2, 256, 64), "128/128": (2, 128, 128), "32/256": (2, 32, 256), "tail": (4, 0, 0)}


def heavy_tail(rng: random.Random) -> tuple[int, int, int]:
    """Prompt and completion lengths like UltraFeedback's: log-normal, medians 90 and 180 tokens, cut at 512."""
    prompt = min(512, max(8, int(rng.lognormvariate(4.5, 0.9))))
    chosen, rejected = (min(512, max(8, int(rng.lognormvariate(5.2, 0.8)))) for _ in range(2))
    return prompt, chosen, rejected


def make_batch(mix: str, vocabulary: int, seed: int, device: str) -> dict[str, torch.Tensor]:
    rng = random.Random(f"{mix}-{seed}")
    pairs, prompt, completion = MIXES[mix]
    lengths = [heavy_tail(rng) if mix == "tail" else (prompt, completion, completion) for _ in range(pairs)]
    rows = []
    for side in (1, 2):
        for index, size in enumerate(lengths):
            start = random.Random(f"{mix}-{seed}-{index}").choices(range(10, vocabulary), k=size[0])
            rows.append((size[0], start + rng.choices(range(10, vocabulary), k=size[side])))
    width = max(len(ids) for _, ids in rows)
    batch = {key: torch.zeros(2 * pairs, width, dtype=torch.long) for key in ("input_ids", "attention_mask")}
    batch["completion_mask"] = batch["attention_mask"].clone()
    for row, (start, ids) in enumerate(rows):
        batch["input_ids"][row, : len(ids)] = torch.tensor(ids)
        batch["attention_mask"][row, : len(ids)] = 1
        batch["completion_mask"][row, start : len(ids)] = 1
    return {key: value.to(device) for key, value in batch.items()}


@contextmanager
def compaction(on: bool):
    plain = trl_utils._use_triton
    if on:
        trl_utils._use_triton = lambda device: True
    try:
        yield
    finally:
        trl_utils._use_triton = plain


def build(model_path: str, checkpointing: bool, bf16: bool) -> DPOTrainer:
    gpu = torch.cuda.is_available()
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    args = DPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=4,
        max_length=None,
        use_cpu=not gpu,
        bf16=bf16,
        gradient_checkpointing=checkpointing,
        report_to="none",
        disable_tqdm=True,
    )
    rows = Dataset.from_list([{"prompt": "a", "chosen": " b", "rejected": " c"}] * 4)
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    trainer = DPOTrainer(model, args=args, train_dataset=rows, processing_class=tokenizer)
    torch.manual_seed(0)
    with torch.no_grad():  # an untouched reference would make every loss log 2, and prove nothing
        for parameter in trainer.ref_model.parameters():
            parameter.mul_(1 + 0.02 * torch.randn_like(parameter))
    return trainer


def step(trainer: DPOTrainer, batch: dict[str, torch.Tensor]) -> tuple[float, float]:
    """One forward and backward: (loss, seconds)."""
    trainer.model.zero_grad(set_to_none=True)
    trainer.model.train()
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.synchronize()
    start = time.perf_counter() if gpu else time.process_time()
    with trainer.compute_loss_context_manager():
        loss = trainer.compute_loss(trainer.model, dict(batch))
    loss.backward()
    if gpu:
        torch.cuda.synchronize()
    return loss.item(), (time.perf_counter() if gpu else time.process_time()) - start


def cosine(a: list[torch.Tensor], b: list[torch.Tensor]) -> float:
    pairs = [(x.double().flatten(), y.double().flatten()) for x, y in zip(a, b, strict=True)]
    return min(float(x @ y / (x.norm() * y.norm())) for x, y in pairs if x.norm() > 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="path or Hub id of a causal language model")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mix", nargs="+", choices=list(MIXES), default=list(MIXES))
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args()

    trainer = build(args.model, args.checkpointing, args.bf16)
    forwards = [install(trainer.model, "the policy"), install(trainer.ref_model, "the reference")]
    vocabulary = trainer.model.config.vocab_size
    variants = {
        "stock": (False, False, False),
        "compacted": (False, True, False),
        "shared": (True, False, False),
        "shared+cache": (True, False, True),
    }
    print(
        f"torch {torch.__version__}, transformers {transformers.__version__}, trl {trl.__version__}, "
        f"{torch.get_num_threads()} threads, {args.model}"
    )
    print(f"checkpointing {args.checkpointing}, bf16 {args.bf16}")
    results = []
    for mix in args.mix:
        times: dict[str, list[float]] = {name: [] for name in variants}
        losses, gradients = {}, {}
        for round_ in range(args.rounds + 1):
            batch = make_batch(mix, vocabulary, round_, trainer.accelerator.device)
            with torch.no_grad():
                trainer.ref_model.eval()
                reference = trainer.compute_ref_log_probs(trainer.ref_model, dict(batch))
            cached = dict(zip(("ref_chosen_logps", "ref_rejected_logps"), reference, strict=True))
            for name, (shared, compact, cache) in variants.items():
                for forward in forwards:
                    forward.active = shared
                trainer.precompute_ref_logps = cache
                with compaction(compact):
                    loss, seconds = step(trainer, {**batch, **cached} if cache else batch)
                if round_:  # the first is the warm-up
                    times[name].append(seconds)
                else:
                    losses[name] = loss
                    gradients[name] = [p.grad.clone() for p in trainer.model.parameters() if p.grad is not None]
        medians = {name: statistics.median(values) for name, values in times.items()}
        for name in variants:
            results.append(
                {
                    "mix": mix,
                    "variant": name,
                    "seconds": medians[name],
                    "over_stock": medians["stock"] / medians[name],
                    "over_compacted": medians["compacted"] / medians[name],
                    "loss": losses[name],
                    "gradients": cosine(gradients[name], gradients["stock"]),
                }
            )
            row = results[-1]
            print(
                f"{mix:>8} {name:>13} {row['seconds']:8.3f} s  {row['over_stock']:5.2f}x stock "
                f"{row['over_compacted']:5.2f}x compacted  loss {row['loss']:.6f}  gradients {row['gradients']:.7f}",
                flush=True,
            )
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
