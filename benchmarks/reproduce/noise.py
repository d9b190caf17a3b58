"""The flip rate of the demo's film reviews, of which a known share is flipped: `prefalign noise` against the truth.

    python benchmarks/reproduce/noise.py            # two minutes on one idle core, most of it one forward pass

SmolLM2's features of the pairs are made once (and kept in runs/noise); then labels are flipped by twenty seeds at each
rate, which only turns differences of features round. The table and the picture go to docs/reproductions.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _page import IMAGES, ROOT, put, table
from datasets import concatenate_datasets
from tqdm import tqdm

from prefalign.data import flip_labels, load_pairs
from prefalign.demo._model import model_path
from prefalign.diagnose import FlipRate, flip_rate, pair_features

RATES = (0.0, 0.1, 0.2, 0.3, 0.4)
PARTS = ("train", "dev", "heldout")
NEAR = 0.07  # how far an estimate may lie from the injected rate
SUSPICIOUS = 50
BLUE, ORANGE, SOFT = "#0072b2", "#d55e00", "#6b7686"


@dataclass(frozen=True)
class Draw:
    """One draw of flips: what was found, and the share of flips among the most suspicious pairs."""

    found: FlipRate
    precision: float


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
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    tried: dict[float, list[Draw]] = {}
    for rate in tqdm(RATES, desc="Rates", delay=2):
        tried[rate] = []
        for seed in seeds:
            flips = np.array(flip_labels(pairs, rate, seed)["flipped"])
            found = flip_rate(np.where(flips[:, None], -differences, differences))
            tried[rate].append(Draw(found, float(flips[found.most_suspicious(SUSPICIOUS)].mean())))
    head = ["injected", "estimate ± sd over flips", f"within {NEAR}", "interval covers", "says it can tell"]
    head += [f"of these within {NEAR}", "held-out agreement", f"precision of the {SUSPICIOUS} most suspicious"]
    text = table(head, [row(rate, draws) for rate, draws in tried.items()])
    text += (
        f"\n\n{len(pairs)} pairs, SmolLM2-135M-Instruct, layer 15 of 30, {args.seeds} draws of flips at each rate, "
        f"seeds {seeds[0]} to {seeds[-1]}.\n\n![Estimated against injected flip rates](images/noise.png)"
    )
    print(text)
    if not args.pool:
        draw(tried, IMAGES / "noise.png")
        put("noise", text)


def row(rate: float, draws: Sequence[Draw]) -> list[str]:
    """The table's row of one injected rate."""
    found = [one.found for one in draws]
    rates = np.array([one.rate for one in found])
    told = [one for one in found if one.can_tell]
    return [
        f"{rate:g}",
        f"{rates.mean():.3f} ± {rates.std():.3f}",
        f"{sum(abs(one.rate - rate) <= NEAR for one in found)} of {len(found)}",
        f"{sum(one.low <= rate <= one.high for one in found)} of {len(found)}",
        f"{len(told)} of {len(found)}",
        f"{sum(abs(one.rate - rate) <= NEAR for one in told)} of {len(told)}",
        f"{np.mean([one.accuracy for one in found]):.1%}",
        f"{np.mean([one.precision for one in draws]):.2f}" if rate else "–",
    ]


def draw(tried: Mapping[float, Sequence[Draw]], path: Path) -> None:
    """Every draw's estimate over the injected rate, and how often the most suspicious pairs are flipped."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    ends = np.array([-0.03, 0.45])
    left.fill_between(ends, ends - NEAR, ends + NEAR, color=SOFT, alpha=0.14, linewidth=0, label=f"within {NEAR}")
    left.plot(ends, ends, color=SOFT, linewidth=1, label="estimate = injected")
    for told, face, words in ((True, BLUE, "one draw, says it can tell"), (False, "none", "one draw, cannot tell")):
        points = [(x, one.found.rate) for x, one in spread(tried) if one.found.can_tell == told]
        x, y = np.array(points).T if points else np.empty((2, 0))
        left.scatter(x, y, s=22, facecolors=face, edgecolors=BLUE, linewidths=0.9, label=words, zorder=3)
    left.set(xlim=ends, ylim=(-0.03, 0.53), xlabel="injected flip rate", ylabel="estimate")
    left.legend(fontsize=8, loc="upper left", frameon=False)

    flipped = {rate: draws for rate, draws in tried.items() if rate}
    x, y = np.array([(x, one.precision) for x, one in spread(flipped)]).T
    right.scatter(x, y, s=22, color=ORANGE, alpha=0.6, linewidths=0, label="one draw", zorder=3)
    means = [np.mean([one.precision for one in draws]) for draws in flipped.values()]
    right.plot(list(flipped), means, color=ORANGE, marker="D", markersize=5, linewidth=1.4, label="mean", zorder=4)
    right.plot(ends, ends, color=SOFT, linewidth=1, label="base rate")
    right.plot(ends, 2 * ends, color=SOFT, linewidth=1, linestyle="--", label="twice the base rate")
    right.set(xlim=(0, 0.45), ylim=(0, 1.03), xlabel="injected flip rate")
    right.set_ylabel(f"flipped among the {SUSPICIOUS} most suspicious")
    right.legend(fontsize=8, loc="lower right", frameon=False)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)


def spread(tried: Mapping[float, Sequence[Draw]]) -> list[tuple[float, Draw]]:
    """The draws with their places on the axis: side by side around their rate."""
    return [
        (rate + 0.03 * ((index + 0.5) / len(draws) - 0.5), one)
        for rate, draws in tried.items()
        for index, one in enumerate(draws)
    ]


if __name__ == "__main__":
    main()
