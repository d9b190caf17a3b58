"""The round trip for many random structures at once. Run: python -m tests.compiler.round_trip --count 10000

Prints how many structures over w, l, rw, rl were compiled, read back from their code, and found equivalent.
"""

from __future__ import annotations

import argparse
import sys
import time

import torch
from tqdm import tqdm

from .test_round_trip import comes_back, random_structures


def main() -> int:
    """Go through them, and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    args = parser.parse_args()
    torch.set_num_threads(1)
    end, done, failed = time.monotonic() + args.seconds, 0, 0
    for structure in tqdm(random_structures(args.count, seed=args.seed)):
        if time.monotonic() > end:
            break
        try:
            comes_back(structure)
        except Exception as error:
            failed += 1
            print(f"top {structure.top_mask}, bottom {structure.bottom_mask}: {error!r}")
        done += 1
    print(f"{done} structures, {done - failed} came back equivalent, {failed} did not")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
