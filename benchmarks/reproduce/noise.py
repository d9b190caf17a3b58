"""The flip rate of the demo's film reviews, of which a known share is flipped: `prefalign noise` against the truth.

    python benchmarks/reproduce/noise.py            # three minutes on two idle cores, most of it one forward pass

SmolLM2's features of the 622 pairs are made once (and kept in runs/noise); then labels are flipped by ten seeds at each
rate, which only turns differences of features round.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from _page import ROOT, put, table
from tqdm import tqdm

from prefalign.cli.demo._model import model_path
from prefalign.data import flip_labels, load_pairs
from prefalign.diagnose import FlipRate, flip_rate, pair_features

RATES = (0.0, 0.1, 0.2, 0.3, 0.4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="checkpoint folder or Hub id (default: SmolLM2-135M-Instruct, as in the demo)")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--cache", type=Path, default=Path("runs/noise"))
    args = parser.parse_args()
    pairs = load_pairs(ROOT / "examples/data/reviews_train.jsonl")
    features = pair_features(pairs, model_path(args.model, Path("runs/models")), cache=args.cache)
    differences = features[:, 0] - features[:, 1]
    rows = []
    for rate in tqdm(RATES, desc="Rates", delay=2):
        found: list[FlipRate] = []
        precision = []
        for seed in range(args.seeds):
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
    text += f"\n\n{len(pairs)} pairs, SmolLM2-135M-Instruct, layer 15 of 30, {args.seeds} draws of flips at each rate."
    print(text)
    put("noise", text)


if __name__ == "__main__":
    main()
