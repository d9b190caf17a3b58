"""Compiled losses beside hand-written ones, forward and backward. Run: python benchmarks/compiler.py

Prints the median time of each and the ratio. The two are timed in turn, block by block, so that what else the machine
does falls on both.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from prefalign import derive, to_loss
from prefalign.losses import DPO, Loss, OddsRatio, PairLogps


def pairs(count: int) -> PairLogps:
    """Random pairs in float32, 10 to 200 tokens each."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(10, 200, (2, count), generator=generator).float()
    logps = [-2 * torch.rand(count, generator=generator) * tokens[i % 2] for i in range(4)]
    return PairLogps(logps[0].requires_grad_(), logps[1].requires_grad_(), logps[2], logps[3], tokens[0], tokens[1])


def step(loss: Loss, batch: PairLogps) -> None:
    """One forward and backward."""
    torch.autograd.grad(loss(batch).mean(), (batch.chosen, batch.rejected))


def seconds(loss: Loss, batch: PairLogps, repeats: int) -> float:
    """Time per step over `repeats` steps."""
    start = time.perf_counter()
    for _ in range(repeats):
        step(loss, batch)
    return (time.perf_counter() - start) / repeats


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=300)
    args = parser.parse_args()
    torch.set_num_threads(1)
    batch = pairs(args.pairs)
    print(f"{args.pairs} pairs, {args.blocks} interleaved blocks of 20, one thread, torch {torch.__version__}")
    print(f"{'loss':6}  {'by hand':>10}  {'compiled':>10}  {'ratio':>6}")
    for name, by_hand, compiled in (
        ("DPO", DPO(beta=0.1), to_loss("dpo", beta=0.1)),
        ("ORPO", OddsRatio(beta=1.0), to_loss("orpo", beta=1.0, reference=False, mean=True)),
    ):
        for loss in (by_hand, compiled):
            seconds(loss, batch, 50)
        times: dict[str, list[float]] = {"hand": [], "compiled": []}
        for _ in range(args.blocks):
            times["hand"].append(seconds(by_hand, batch, 20))
            times["compiled"].append(seconds(compiled, batch, 20))
        ratio = statistics.median(c / h for c, h in zip(times["compiled"], times["hand"], strict=True))
        hand, ours = (1e6 * statistics.median(times[k]) for k in ("hand", "compiled"))
        print(f"{name:6}  {hand:7.1f} µs  {ours:7.1f} µs  {ratio:6.3f}")
    start = time.process_time()
    derive(DPO(beta=0.1))
    print(f"derive(DPO(beta=0.1)): {1e3 * (time.process_time() - start):.0f} ms of one core, the first time")


if __name__ == "__main__":
    main()
