"""What smollm2.py has in runs/reproduce/, as tables and pictures for docs/reproductions.md."""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from _page import IMAGES, put, table

Runs = dict[tuple[str, float], dict[int, dict[str, Any]]]  # (arm, flip rate) -> seed -> result


def show(args: argparse.Namespace) -> None:
    """Put what there is into the page: a stopped series shows what it has. Another model's results are only printed."""
    out: Path = args.out
    groups: dict[str, Runs] = {"noise": defaultdict(dict), "rpo": defaultdict(dict)}
    for file in sorted(out.glob(f"*_{args.steps}_*.json")):
        found = json.loads(file.read_text("utf-8"))
        setting = found["setting"]
        groups[found["group"]][found["arm"], setting["flips"]][setting["seed"]] = found
    if not any(groups.values()):
        return
    every = [run for runs in groups.values() for seeds in runs.values() for run in seeds.values()]
    same = ("beta", "learning_rate", "train_layers", "heldout")
    settings = {tuple(run["setting"][name] for name in same) for run in every}
    if len(settings) > 1:
        raise SystemExit(f"{out} holds runs of several settings {sorted(settings)}; use another --out for each.")
    ((beta, rate, layers, heldout),) = settings
    cpu = sum(run["cpu_seconds"] for run in every)
    parts = [
        f"{len(every)} runs: LoRA on the {layers} upper layers, {args.steps} steps of 8 of the 622 pairs of "
        f"`examples/data/reviews_train.jsonl`, learning rate {rate:g}, beta {beta:g}. Means over {heldout} held-out "
        f"pairs with clean labels, ± the standard error over seeds. All runs together took {cpu / 60:.0f} minutes of "
        f"CPU time, {np.mean([r['cpu_seconds'] for r in every]):.0f} s each."
    ]
    folder = IMAGES if args.model is None else out
    if groups["noise"]:
        parts += _noise(groups["noise"], beta, folder / "smollm2.png")
    if groups["rpo"]:
        parts += _rpo(groups["rpo"], beta, folder / "smollm2_rpo.png")
    if args.model is None:
        put("smollm2", "\n\n".join(parts))
    else:
        print("\n\n".join(parts))


def margin(run: dict[str, Any], beta: float) -> float:
    """Mean of beta times the difference of log-ratios over held-out pairs, clean labels."""
    return float(beta * np.mean(_difference(run)))


def accuracy(run: dict[str, Any]) -> float:
    """Share of held-out pairs whose margin is on the right side."""
    return float(np.mean(_difference(run) > 0))


def chosen(run: dict[str, Any]) -> float:
    """Mean change of log pi(chosen) on held-out pairs, nats, sum over tokens."""
    return float(np.mean(np.subtract(run["chosen"], run["ref_chosen"])))


def _difference(run: dict[str, Any]) -> np.ndarray:
    up, down = (np.subtract(run[key], run[f"ref_{key}"]) for key in ("chosen", "rejected"))
    return np.asarray(up - down)


def _spread(values: list[float], places: int = 3, percent: bool = False) -> str:
    factor, sign, unit = (100, "", " %") if percent else (1, "+", "")
    numbers = factor * np.array(values)
    mean = f"{numbers.mean():{sign}.{places}f}"
    error = f" ± {numbers.std(ddof=1) / np.sqrt(len(numbers)):.{places}f}" if len(numbers) > 1 else ""
    return f"{mean}{error}{unit}"


def _noise(runs: Runs, beta: float, picture: Path) -> list[str]:
    rates = sorted({rate for _, rate in runs})
    arms = list(dict.fromkeys(_by_order(arm for arm, _ in runs)))
    head = ["loss", *(f"ε = {rate:g}" for rate in rates)]
    seeds = sorted({seed for found in runs.values() for seed in found})

    def grid(measure: Any, **how: Any) -> str:
        def cell(arm: str, rate: float) -> str:
            found = runs.get((arm, rate), {})
            return _spread([measure(run) for run in found.values()], **how) if found else "–"

        return table(head, [[arm, *(cell(arm, rate) for rate in rates)] for arm in arms])

    _draw_noise(runs, arms, rates, beta, picture)
    return [
        f"**Clean held-out margin** (beta times the difference of log-ratios), seeds {', '.join(map(str, seeds))}:",
        grid(lambda run: margin(run, beta)),
        "**Pair accuracy**, held out, clean labels:",
        grid(accuracy, places=1, percent=True),
        "**In how many seeds** the margins stand in the order claimed:",
        _orders(runs, rates, beta),
        "![Clean margin against the flip rate](images/smollm2.png)",
    ]


def _by_order(arms: Any) -> list[str]:
    order = ["DPO", "cDPO", "rDPO", "IPO", "rIPO", "Dr.DPO", "Hölder-DPO"]
    found = set(arms)
    return [arm for arm in order if arm in found]


def _orders(runs: Runs, rates: list[float], beta: float) -> str:
    rows = []
    for high, low in (("rDPO", "DPO"), ("DPO", "cDPO"), ("rIPO", "IPO")):
        cells = []
        for rate in rates:
            a, b = runs.get((high, rate), {}), runs.get((low, rate), {})
            gaps = [margin(a[seed], beta) - margin(b[seed], beta) for seed in a if seed in b]
            if not gaps:
                cells.append("–")
            elif not any(gaps):
                cells.append(f"equal in {len(gaps)} of {len(gaps)}")
            else:
                cells.append(f"{sum(gap > 0 for gap in gaps)} of {len(gaps)}, by {_spread(gaps)}")
        rows.append([f"{high} > {low}", *cells])
    return table(["order", *(f"ε = {rate:g}" for rate in rates)], rows)


def _draw_noise(runs: Runs, arms: list[str], rates: list[float], beta: float, picture: Path) -> None:
    plt = _pyplot()
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for axes, measure, name in (
        (panels[0], lambda run: margin(run, beta), "clean held-out margin, β · nats"),
        (panels[1], accuracy, "clean held-out pair accuracy"),
    ):
        for place, arm in enumerate(arms):
            points = [
                (rate, [measure(run) for run in runs[arm, rate].values()]) for rate in rates if (arm, rate) in runs
            ]
            x = np.array([rate for rate, _ in points]) + 0.004 * (place - len(arms) / 2)
            means = [np.mean(values) for _, values in points]
            low = [np.mean(values) - np.min(values) for _, values in points]
            high = [np.max(values) - np.mean(values) for _, values in points]
            axes.errorbar(x, means, [low, high], marker="o", markersize=4, capsize=2, linewidth=1.5, label=arm)
        axes.set(xlabel="share of labels flipped, ε", ylabel=name)
        axes.set_xticks(rates)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].axhline(0, color="0.8", linewidth=1, zorder=0)
    panels[1].axhline(0.5, color="0.8", linewidth=1, zorder=0)
    panels[0].set_title("a line per loss, bars from the least to the greatest seed", fontsize=10, loc="left")
    lines, names = panels[0].get_legend_handles_labels()
    figure.legend(lines, names, fontsize=8, frameon=False, loc="outside right upper")
    _save(figure, picture, plt)


def _rpo(runs: Runs, beta: float, picture: Path) -> list[str]:
    arms = [arm for arm, _ in runs]
    arms.sort(key=lambda arm: -1.0 if arm == "DPO" else float(arm.split()[-1]))
    rows = []
    for arm in arms:
        found = list(runs[arm, 0.0].values())
        gold = [float(np.mean(run["gold"])) for run in found if "gold" in run]
        rows.append(
            [
                arm,
                str(len(found)),
                _spread([chosen(run) for run in found], 2),
                _spread([margin(run, beta) for run in found]),
                f"{np.mean([run['kl_ref_policy'] for run in found]):.4f}",
                f"{np.mean([run['kl_policy_ref'] for run in found if 'gold' in run]):.4f}" if gold else "–",
                _spread(gold) if gold else "–",
            ]
        )
    head = [
        "arm",
        "seeds",
        "change of log π(chosen), nats",
        "clean margin",
        "KL(ref ‖ π)",
        "KL(π ‖ ref)",
        "gold reward",
    ]
    _draw_rpo(runs, arms, picture)
    return [
        "**RPO**, no label flipped; log π(chosen) is summed over tokens, a KL is that of the next token, "
        "nats, mean over the tokens of held-out texts (ref ‖ π) and of fresh samples (π ‖ ref); the gold reward is "
        "VADER's sentiment of fresh samples:",
        table(head, rows),
        "![RPO: chosen log-probability and gold reward against KL](images/smollm2_rpo.png)",
    ]


def _draw_rpo(runs: Runs, arms: list[str], picture: Path) -> None:
    plt = _pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for arm in arms:
        found = list(runs[arm, 0.0].values())
        # DPO's dots are rings around those of eta = 0, which should be the same.
        look: dict[str, Any] = (
            {"s": 70, "facecolors": "none", "edgecolors": "black"} if arm == "DPO" else {"s": 28, "alpha": 0.8}
        )
        left.scatter([run["kl_ref_policy"] for run in found], [chosen(run) for run in found], label=arm, **look)
        sampled = [run for run in found if "gold" in run]
        right.scatter([run["kl_policy_ref"] for run in sampled], [np.mean(run["gold"]) for run in sampled], **look)
    for seed in sorted({seed for arm in arms for seed in runs[arm, 0.0]}):  # a line from eta to eta
        path = [runs[arm, 0.0][seed] for arm in arms if arm != "DPO" and seed in runs[arm, 0.0]]
        left.plot([run["kl_ref_policy"] for run in path], [chosen(run) for run in path], color="0.75", zorder=0)
        path = [run for run in path if "gold" in run]
        right.plot(
            [run["kl_policy_ref"] for run in path], [np.mean(run["gold"]) for run in path], color="0.75", zorder=0
        )
    left.axhline(0, color="0.9", linewidth=1, zorder=-1)
    left.set(xlabel="KL(ref ‖ π), nats per token", ylabel="change of log π(chosen), nats")
    right.set(xlabel="KL(π ‖ ref), nats per token", ylabel="gold reward of fresh samples")
    left.set_title("a line per seed", fontsize=10, loc="left")
    left.legend(fontsize=8, frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.locator_params(axis="x", nbins=5)
    _save(figure, picture, plt)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def _save(figure: Any, picture: Path, plt: Any) -> None:
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=110)
    plt.close(figure)
