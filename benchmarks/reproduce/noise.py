"""The flip rate of the demo's film reviews, of which a known share is flipped: `prefalign noise` against the truth.

    python benchmarks/reproduce/noise.py            # two minutes on one idle core, most of it one forward pass

SmolLM2's features of the pairs are made once (and kept in runs/noise); then labels are flipped by twenty seeds at each
rate, which only turns differences of features round.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from _page import ROOT, put, table
from datasets import concatenate_datasets
from tqdm import tqdm

from prefalign.cli.demo._model import model_path
from prefalign.data import flip_labels, load_pairs
from prefalign.diagnose import FlipRate, flip_rate, pair_features

RATES = (0.0, 0.1, 0.2, 0.3, 0.4)
PARTS = ("train", "dev", "heldout")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="checkpoint folder or Hub id (default: SmolLM2-135M-Instruct, as in the demo)")
    parser.add_argument("--seeds", type=int, default=20, help="draws of flips at each rate (default: 20)")
    parser.add_argument("--first-seed", type=int, default=100, help="0 to 9 were looked at before (default: 100)")
    parser.add_argument("--pool", action="store_true", help="with the dev and held-out pairs; nothing is written")
    parser.add_argument("--cache", type=Path, default=Path("runs/noise"))
    args = parser.parse_args()
    parts = [load_pairs(ROOT / f"examples/data/reviews_{name}.jsonl") for name in PARTS[: None if args.pool else 1]]
    model = model_path(args.model, Path("runs/models"))
    features = np.concatenate([pair_features(part, model, cache=args.cache) for part in parts])
    pairs = concatenate_datasets(parts)
    differences = features[:, 0] - features[:, 1]
    rows = []
    for rate in tqdm(RATES, desc="Rates", delay=2):
        found: list[FlipRate] = []
        precision = []
        for seed in range(args.first_seed, args.first_seed + args.seeds):
            flips = np.array(flip_labels(pairs, rate, seed)["flipped"])
            found.append(flip_rate(np.where(flips[:, None], -differences, differences)))
            precision.append(flips[found[-1].most_suspicious(50)].mean())
        rates = np.array([one.rate for one in found])
        told = [one for one in found if one.can_tell]
        near = sum(abs(one.rate - rate) <= 0.07 for one in found)
        rows.append(
            [
                f"{rate:g}",
                f"{rates.mean():.3f} ± {rates.std():.3f}",
                f"{near} of {len(found)}",
                f"{sum(one.low <= rate <= one.high for one in found)} of {len(found)}",
                f"{len(told)} of {len(found)}",
                f"{sum(abs(one.rate - rate) <= 0.07 for one in told)} of {len(told)}",
                f"{np.mean([one.accuracy for one in found]):.1%}",
                f"{np.mean(precision):.2f}" if rate else "–",
            ]
        )
    head = ["injected", "estimate ± sd over flips", "within 0.07", "interval covers", "says it can tell"]
    text = table([*head, "of these within 0.07", "held-out agreement", "precision of the 50 most suspicious"], rows)
    text += (
        f"\n\n{len(pairs)} pairs, SmolLM2-135M-Instruct, layer 15 of 30, {args.seeds} draws of flips at each rate, "
        f"seeds {args.first_seed} to {args.first_seed + args.seeds - 1}."
    )
    print(text)
    if not args.pool:
        put("noise", text)


if __name__ == "__main__":
    main()
