"""Robust DPO and RPO on SmolLM2-135M, on the demo's film reviews with flips of known truth.

    nice python benchmarks/reproduce/smollm2.py                                  # all arms, three seeds
    nice python benchmarks/reproduce/smollm2.py --seeds 1 --steps 8 --heldout 8 --samples 1 --only noise

Every arm is a run of the demo in runs/reproduce/; a run that was stopped goes on from its last checkpoint, and one that
is done is read again. What has been run is put into docs/reproductions.md, with its settings.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _page import IMAGES, put, table

from prefalign.cli.demo._run import run_demo
from prefalign.cli.demo._settings import Settings
from prefalign.losses import parse_loss

BETA = 0.1


@dataclass(frozen=True)
class Arm:
    """One loss on labels of which a share was flipped."""

    group: str
    name: str
    loss: str
    flips: float


ARMS = (
    Arm("noise", "DPO", f"dpo(beta={BETA})", 0.3),
    Arm("noise", "cDPO", f"smoothed(dpo(beta={BETA}), flip_rate=0.3)", 0.3),
    Arm("noise", "rDPO", f"robust(dpo(beta={BETA}), flip_rate=0.3)", 0.3),
    Arm("noise", "IPO", f"ipo(beta={BETA}, mean=False)", 0.3),
    Arm("noise", "rIPO", f"robust(ipo(beta={BETA}, mean=False), flip_rate=0.3)", 0.3),
    Arm("noise", "Dr.DPO", f"dr_dpo(beta={BETA})", 0.3),
    Arm("noise", "Hölder-DPO", f"holder_dpo(beta={BETA})", 0.3),
    Arm("clean", "cDPO, ε = 0", f"smoothed(dpo(beta={BETA}), flip_rate=0.0)", 0.0),
    Arm("clean", "rDPO, ε = 0", f"robust(dpo(beta={BETA}), flip_rate=0.0)", 0.0),
    Arm("rpo", "DPO", f"dpo(beta={BETA})", 0.0),
    Arm("rpo", "η = 0", f"rpo(beta={BETA}, eta=0.0, reduction='sum')", 0.0),
    Arm("rpo", "η = 0.005", f"rpo(beta={BETA}, eta=0.005, reduction='sum')", 0.0),
    Arm("rpo", "η = 0.05", f"rpo(beta={BETA}, eta=0.05, reduction='sum')", 0.0),
    Arm("rpo", "η = 0.5", f"rpo(beta={BETA}, eta=0.5, reduction='sum')", 0.0),
)


@dataclass(frozen=True)
class Result:
    """Means over held-out pairs with clean labels."""

    margin: float  # beta times the difference of log-ratios
    accuracy: float
    chosen: float  # change of log pi(chosen), summed over tokens, nats
    gold: float  # change of the mean gold reward of samples
    kl: float  # nats per token, on the training pairs, last tenth of the steps


def read(out: Path) -> Result:
    before, after = (json.loads((out / f"{when}.json").read_text("utf-8")) for when in ("before", "after"))
    chosen = np.subtract(after["chosen"], before["chosen"])
    rejected = np.subtract(after["rejected"], before["rejected"])
    states = sorted(out.glob("checkpoint-*/trainer_state.json"), key=lambda path: int(path.parent.name.split("-")[1]))
    log = json.loads(states[-1].read_text("utf-8"))["log_history"]
    kl = [entry["kl"] for entry in log if "kl" in entry]
    gold = float(np.mean(after["gold"]) - np.mean(before["gold"]))
    return Result(
        margin=float(BETA * (chosen - rejected).mean()),
        accuracy=float(((chosen > rejected) + 0.5 * (chosen == rejected)).mean()),
        chosen=float(chosen.mean()),
        gold=gold,
        kl=float(np.mean(kl[-max(1, len(kl) // 10) :])) if kl else float("nan"),
    )


def spread(values: list[float]) -> str:
    mean = f"{np.mean(values):+.3f}"
    return f"{mean} ± {np.std(values, ddof=1) / np.sqrt(len(values)):.3f}" if len(values) > 1 else mean


def draw(results: dict[Arm, list[Result]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    noisy = [arm for arm in results if arm.group == "noise"]
    for place, arm in enumerate(noisy):
        left.scatter([place] * len(results[arm]), [one.margin for one in results[arm]], color="C0")
    left.set_xticks(range(len(noisy)), [arm.name for arm in noisy], rotation=30)
    left.set(ylabel="clean held-out margin", title="30 % of the labels flipped; a dot per seed")
    for arm in (arm for arm in results if arm.group == "rpo"):
        line = right.scatter([one.kl for one in results[arm]], [one.chosen for one in results[arm]], label=arm.name)
        line.set_alpha(0.8)
    right.set(xlabel="KL, nats per token", ylabel="change of log π(chosen), nats", title="RPO: a dot per seed")
    if right.collections:
        right.legend(fontsize=8)
    IMAGES.mkdir(exist_ok=True)
    figure.savefig(IMAGES / "smollm2.png", dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="checkpoint folder or Hub id (default: SmolLM2-135M-Instruct, as in the demo)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=48)
    parser.add_argument("--heldout", type=int, help="how many held-out prompts (default: all)")
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--only", choices=["noise", "clean", "rpo"], help="only one group of arms")
    parser.add_argument("--arms", nargs="+", help="only the arms of these names")
    parser.add_argument("--out", type=Path, default=Path("runs/reproduce"))
    args = parser.parse_args()
    arms = [arm for arm in ARMS if args.only in (None, arm.group) and (not args.arms or arm.name in args.arms)]
    results: dict[Arm, list[Result]] = {}
    for seed in range(args.seeds):
        for arm in arms:
            parse_loss(arm.loss)
            settings = Settings(
                args.model, arm.loss, arm.flips, args.steps, args.learning_rate, args.samples, args.heldout, seed
            )
            name = "".join(
                c if c.isalnum() else "-" for c in f"{arm.group}-{arm.name}-{args.steps}-{args.heldout}-{seed}"
            )
            run_demo(settings, args.out / name)
            results.setdefault(arm, []).append(read(args.out / name))
            show(args, results)


def show(args: argparse.Namespace, results: dict[Arm, list[Result]]) -> None:
    """Put what there is into the page: a stopped series shows what it has."""
    head = ["arm", "seeds", "clean margin", "pair accuracy", "log π(chosen), nats", "gold reward", "KL, nats/token"]
    titles = {"noise": "30 % of the labels flipped", "clean": "No label flipped", "rpo": "RPO, no label flipped"}
    parts = [
        f"LoRA on the 622 pairs of `examples/data/reviews_train.jsonl`, {args.steps} steps of 8 pairs, learning rate "
        f"{args.learning_rate:g}, beta {BETA}; {args.heldout or 'all'} held-out prompts, {args.samples} samples each. "
        "Means over held-out pairs with clean labels, ± the standard error over seeds. Changes are from before "
        "training to after."
    ]
    for group, title in titles.items():
        rows = [
            [
                arm.name,
                str(len(found)),
                spread([one.margin for one in found]),
                f"{np.mean([one.accuracy for one in found]):.1%}",
                spread([one.chosen for one in found]),
                spread([one.gold for one in found]),
                f"{np.mean([one.kl for one in found]):.4f}",
            ]
            for arm, found in results.items()
            if arm.group == group
        ]
        if rows:
            parts += [f"**{title}**", table(head, rows)]
    draw(results)
    put("smollm2", "\n\n".join([*parts, "![SmolLM2 under noise, and RPO](images/smollm2.png)"]))


if __name__ == "__main__":
    main()
