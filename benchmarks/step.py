"""Time and memory of a DPO step: stock TRL, TRL with its compaction forced on or grouped by length, and ours.

Run: python benchmarks/step.py --model MODEL [--rounds 5] [--mix 256/64 128/128 32/256 tail] [--memory]
     [--checkpointing] [--bf16]

All variants run interleaved in one process on the same weights and the same pairs: policy forward, reference forward
(unless cached) and backward through `DPOTrainer.compute_loss`. A small batch warms every variant up. `cosine` is the
smallest between a parameter's gradient and the stock one, in the first round. Times are process CPU time on a CPU, time
between device synchronisations on a GPU; the number of a variant is the median over the rounds, for the heavy-tailed
mix, whose batches differ, the sum over the same pairs. --memory is what a step allocates at its peak, without
gradients.

    stock       trl's DPOTrainer as installed
    compacted   the same with its compaction of unscored positions forced on, which TRL does only where Triton is:
                the honest stand-in for TRL on a GPU
    grouped     compacted, with the pairs of all rounds sorted by length before they are cut into batches (tail only)
    chunked     the shared-prefix forward with TRL's own head
    shared      the shared-prefix forward as it is: logits kept where they fit
    + cache     the same with the reference's log-probabilities given, as from a cache

`tail/4` is the heavy-tailed mix with every length divided by four, for machines that are too small or too slow for it.

With --bf16 also the error of the pairs' log-ratios against float32 on the same weights, rms in nats, and how far each
way is from stock in bfloat16. (A whole run, with its optimizer: `benchmarks/train.py`.)
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
import trl
import trl.trainer.utils as trl_utils
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

from prefalign.train.forward import _shared_prefix
from prefalign.train.forward._shared_prefix import install

MIXES = {
    "256/64": (2, 256, 64),
    "128/128": (2, 128, 128),
    "32/256": (2, 32, 256),
    "16/16": (4, 16, 16),
    "tail": (4, 0, 0),
    "tail/4": (4, 0, 0),
}
Pair = tuple[list[int], list[int], list[int]]


@dataclass(frozen=True)
class Variant:
    """How a step is made."""

    shared: bool = False
    compacted: bool = False
    cache: bool = False
    kept: bool = True
    grouped: bool = False


VARIANTS = {
    "stock": Variant(),
    "compacted": Variant(compacted=True),
    "grouped": Variant(compacted=True, grouped=True),
    "chunked": Variant(shared=True, kept=False),
    "shared": Variant(shared=True),
    "shared + cache": Variant(shared=True, cache=True),
}


def heavy_tail(rng: random.Random, divisor: int) -> list[int]:
    """Prompt and completion lengths like UltraFeedback's: log-normal, medians 90 and 180 tokens, cut at 512."""
    lengths = [rng.lognormvariate(4.5, 0.9), rng.lognormvariate(5.2, 0.8), rng.lognormvariate(5.2, 0.8)]
    return [min(512, max(8, int(length))) // divisor for length in lengths]


def make_pairs(mix: str, vocabulary: int, rounds: int) -> list[list[Pair]]:
    """A batch of random tokens for each round."""
    rng, words = random.Random("tail"), random.Random(mix)  # `tail` and `tail/4` have the same shapes
    count, prompt, completion = MIXES[mix]

    def pair() -> Pair:
        divisor = 4 if mix == "tail/4" else 1
        lengths = heavy_tail(rng, divisor) if mix.startswith("tail") else [prompt, completion, completion]
        start, chosen, rejected = (words.choices(range(10, vocabulary), k=length) for length in lengths)
        return start, chosen, rejected

    return [[pair() for _ in range(count)] for _ in range(rounds)]


def group(batches: list[list[Pair]]) -> list[list[Pair]]:
    """The same pairs, sorted by the longer of their two rows and cut again."""
    pairs = sorted((pair for batch in batches for pair in batch), key=lambda p: len(p[0]) + max(map(len, p[1:])))
    size = len(batches[0])
    return [pairs[start : start + size] for start in range(0, len(pairs), size)]


def collate(pairs: list[Pair], device: torch.device) -> dict[str, torch.Tensor]:
    rows = [(prompt, chosen) for prompt, chosen, _ in pairs] + [(prompt, rejected) for prompt, _, rejected in pairs]
    width = max(len(prompt) + len(completion) for prompt, completion in rows)
    keys = ("input_ids", "attention_mask", "completion_mask")
    batch = {key: torch.zeros(len(rows), width, dtype=torch.long) for key in keys}
    for row, (prompt, completion) in enumerate(rows):
        length = len(prompt) + len(completion)
        batch["input_ids"][row, :length] = torch.tensor(prompt + completion)
        batch["attention_mask"][row, :length] = 1
        batch["completion_mask"][row, len(prompt) : length] = 1
    return {key: value.to(device) for key, value in batch.items()}


class Bench:
    """A trainer, and its steps made in different ways."""

    def __init__(self, path: str, checkpointing: bool, bf16: bool) -> None:
        self.gpu = torch.cuda.is_available()
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        args = DPOConfig(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=4,
            max_length=None,
            use_cpu=not self.gpu,
            bf16=bf16,
            gradient_checkpointing=checkpointing,
            report_to="none",
            disable_tqdm=True,
        )
        rows = Dataset.from_list([{"prompt": "a", "chosen": " b", "rejected": " c"}] * 4)
        tokenizer = AutoTokenizer.from_pretrained(path)
        self.trainer = trainer = DPOTrainer(model, args=args, train_dataset=rows, processing_class=tokenizer)
        if checkpointing:  # otherwise done by `train`, which is never called here
            trainer.model.activation_checkpointing_enable({"use_reentrant": False})
        assert trainer.model.is_activation_checkpointing == checkpointing
        # Accelerate wraps the reference's forward in autocast for good: without, it is float32 where none is on.
        reference = trainer.ref_model
        reference.forward = getattr(reference, "_original_forward", reference.forward)
        torch.manual_seed(0)
        with torch.no_grad():  # an untouched reference would make every loss log 2, and prove nothing
            for parameter in trainer.ref_model.parameters():
                parameter.mul_(1 + 0.02 * torch.randn_like(parameter))
            for parameter in trainer.model.parameters():  # mapped from a file they come and go with the page cache
                parameter.data = parameter.data.clone()
        self.forwards = [install(trainer.model, "the policy"), install(trainer.ref_model, "the reference")]
        for forward in self.forwards:
            assert forward is not None

    @contextmanager
    def as_in(self, variant: Variant) -> Iterator[None]:
        for forward in self.forwards:
            forward.active = variant.shared
        self.trainer.precompute_ref_logps = variant.cache
        kept = trl_utils._use_triton, _shared_prefix.fits
        if variant.compacted:
            trl_utils._use_triton = lambda device: True
        if not variant.kept:
            _shared_prefix.fits = lambda *_: False
        try:
            yield
        finally:
            trl_utils._use_triton, _shared_prefix.fits = kept

    def reference(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        with torch.no_grad(), self.as_in(Variant(shared=True)):
            logps = self.trainer.compute_ref_log_probs(self.trainer.ref_model, dict(batch))
        return dict(zip(("ref_chosen_logps", "ref_rejected_logps"), logps, strict=True))

    def step(self, variant: Variant, batch: dict[str, torch.Tensor]) -> tuple[float, float]:
        """One forward and backward: (loss, seconds)."""
        trainer = self.trainer
        trainer.model.zero_grad(set_to_none=True)
        trainer.model.train()
        cached = self.reference(batch) if variant.cache else {}
        with self.as_in(variant):
            self._wait()
            start = time.perf_counter() if self.gpu else time.process_time()
            with trainer.compute_loss_context_manager():
                loss = trainer.compute_loss(trainer.model, {**batch, **cached})
            loss.backward()
            self._wait()
        return loss.item(), (time.perf_counter() if self.gpu else time.process_time()) - start

    def gradients(self) -> list[torch.Tensor]:
        return [p.grad.clone() for p in self.trainer.model.parameters() if p.grad is not None]

    def memory(self, variant: Variant, batch: dict[str, torch.Tensor]) -> float:
        """GiB that a step adds at its peak, without the gradients."""
        cached = self.reference(batch) if variant.cache else {}
        small = {key: value[:, :2] for key, value in batch.items()}
        self.step(Variant(), {**small, "completion_mask": small["attention_mask"]})  # leaves gradients
        model = self.trainer.model
        for parameter in model.parameters():
            parameter.grad.zero_()
        with self.as_in(variant), self.trainer.compute_loss_context_manager(), _Peak(self.gpu) as peak:
            self.trainer.compute_loss(self.trainer.model, {**batch, **cached}).backward()
        return peak.bytes / 2**30

    def log_ratios(self, variant: Variant, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Of policy over reference, (2 pairs,), nats."""
        found = []
        trainer = self.trainer
        with torch.no_grad(), self.as_in(variant):
            for model in (trainer.model, trainer.ref_model):
                found.append(torch.cat(trainer.compute_ref_log_probs(model, dict(batch))).double())
        return found[0] - found[1]

    def _wait(self) -> None:
        if self.gpu:
            torch.cuda.synchronize()


class _Peak:
    """What PyTorch's allocator holds at most more than at the start. (The resident size also counts what the C library
    keeps of earlier steps, and moves by a quarter of a GiB with what ran before.)
    """

    def __init__(self, gpu: bool) -> None:
        self.gpu = gpu
        self.bytes = 0
        self._profile = torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
        )

    def __enter__(self) -> _Peak:
        if self.gpu:
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        else:
            self._profile.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self.gpu:
            self.bytes = torch.cuda.max_memory_allocated() - self._before
            return
        self._profile.__exit__(*error)
        events = [e for e in self._profile.profiler.kineto_results.events() if e.name() == "[memory]"]
        held = itertools.accumulate(event.nbytes() for event in sorted(events, key=lambda e: e.start_ns()))
        self.bytes = max(held)


def cosine(a: list[torch.Tensor], b: list[torch.Tensor]) -> float:
    pairs = [(x.double().flatten(), y.double().flatten()) for x, y in zip(a, b, strict=True)]
    return min(float(x @ y / (x.norm() * y.norm())) for x, y in pairs if x.norm() > 0)


def measure(
    bench: Bench, mix: str, rounds: int, names: list[str], vocabulary: int, with_memory: bool
) -> list[dict[str, object]]:
    """All variants on one mix, interleaved."""
    batches = make_pairs(mix, vocabulary, rounds)
    grouped = group(batches)
    device = bench.trainer.accelerator.device
    times: dict[str, list[float]] = {name: [] for name in names}
    losses, gradients = {}, {}
    memory: dict[str, float] = {}
    for name in names:
        bench.step(VARIANTS[name], collate(make_pairs("16/16", vocabulary, 1)[0], device))
    for round_ in range(rounds):
        for name in names:
            variant = VARIANTS[name]
            batch = collate((grouped if variant.grouped else batches)[round_], device)
            loss, seconds = bench.step(variant, batch)
            times[name].append(seconds)
            if not round_:
                losses[name], gradients[name] = loss, bench.gradients()
    if with_memory:
        memory = {name: bench.memory(VARIANTS[name], collate(batches[0], device)) for name in names}
    number = sum if mix.startswith("tail") else statistics.median
    took = {name: number(values) for name, values in times.items()}
    return [
        {
            "mix": mix,
            "variant": name,
            "seconds": took[name],
            "over_stock": took["stock"] / took[name],
            "over_compacted": took["compacted"] / took[name],
            "memory": memory.get(name),
            "memory_over_compacted": memory[name] / memory["compacted"] if memory else None,
            "loss": losses[name],
            "relative": abs(losses[name] / losses["stock"] - 1),
            "cosine": cosine(gradients[name], gradients["stock"]),
        }
        for name in names
    ]


def errors_of_bf16(bench: Bench, mix: str, names: list[str], vocabulary: int) -> None:
    batch = collate(make_pairs(mix, vocabulary, 1)[0], bench.trainer.accelerator.device)
    autocast = bench.trainer.accelerator.autocast
    bench.trainer.accelerator.autocast = nullcontext
    exact = bench.log_ratios(Variant(), batch)
    bench.trainer.accelerator.autocast = autocast
    stock = bench.log_ratios(Variant(), batch)
    for name in names:
        found = bench.log_ratios(VARIANTS[name], batch)
        error, apart = (math.sqrt((found - other).square().mean()) for other in (exact, stock))
        print(
            f"{mix:>8} {name:>15}  bf16 log-ratios: {error:.4f} nats rms from float32, {apart:.4f} from stock's, "
            f"sums {found.sum():.4f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="path or Hub id of a causal language model")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mix", nargs="+", choices=list(MIXES), default=["256/64", "128/128", "32/256", "tail"])
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--memory", action="store_true", help="also what a step adds at its peak, without gradients")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args()

    bench = Bench(args.model, args.checkpointing, args.bf16)
    vocabulary = bench.trainer.model.config.vocab_size
    print(
        f"torch {torch.__version__}, transformers {transformers.__version__}, trl {trl.__version__}, "
        f"{torch.cuda.get_device_name() if bench.gpu else f'CPU, {torch.get_num_threads()} threads'}, "
        f"load {os.getloadavg()[0]:.1f}, {args.model}, checkpointing {args.checkpointing}, bf16 {args.bf16}, "
        f"{args.rounds} rounds"
    )
    results = []
    for mix in args.mix:
        names = [name for name in args.variants if mix.startswith("tail") or not VARIANTS[name].grouped]
        names = [*dict.fromkeys(["stock", "compacted", *names])]
        for row in measure(bench, mix, args.rounds, names, vocabulary, args.memory):
            results.append(row)
            print(
                f"{mix:>8} {row['variant']:>15} {row['seconds']:8.3f} s  {row['over_stock']:5.2f}x stock "
                f"{row['over_compacted']:5.2f}x compacted  "
                + (
                    f"{row['memory']:5.2f} GiB = {row['memory_over_compacted']:.2f} of compacted  "
                    if args.memory
                    else ""
                )
                + f"loss {row['loss']:.6f} ({row['relative']:.0e})  "
                f"cosine {row['cosine']:.7f}",
                flush=True,
            )
        if args.bf16:
            errors_of_bf16(
                bench, mix, [n for n in names if not VARIANTS[n].grouped and not VARIANTS[n].cache], vocabulary
            )
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
