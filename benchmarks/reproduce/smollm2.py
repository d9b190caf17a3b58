"""Robust DPO and RPO on SmolLM2-135M, on the demo's film reviews with flips of known truth.

    nice python benchmarks/reproduce/smollm2.py                               # everything that is not done yet
    nice python benchmarks/reproduce/smollm2.py --only noise --flip-rates 0.3 --arms DPO cDPO rDPO --seeds 0 1 2
    nice python benchmarks/reproduce/smollm2.py --only rpo --samples 2
    nice python benchmarks/reproduce/smollm2.py --page                        # only put what is done into the page

One process loads the model once and does run after run; each leaves one file in runs/reproduce/, so that the script
may be stopped at any time and goes on behind the last file. After every run the page docs/reproductions.md says what is
done; with `--model` the tables are printed instead.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from _page import ROOT
from _smollm2_page import show
from _smollm2_run import Bench, Setting, freeze_below, keep, kept
from tqdm import tqdm

from prefalign.data import load_pairs
from prefalign.demo import model_path
from prefalign.diagnose import load_model
from prefalign.losses import parse_loss

FLIP_RATES = (0.0, 0.1, 0.2, 0.3, 0.4)
ETAS = (0.0, 0.005, 0.05, 0.5)
# The losses that need the flip rate are told the true one.
NOISE = {
    "DPO": "dpo(beta={beta})",
    "cDPO": "smoothed(dpo(beta={beta}), flip_rate={flips})",
    "rDPO": "robust(dpo(beta={beta}), flip_rate={flips})",
    "IPO": "ipo(beta={beta}, mean=False)",
    "rIPO": "robust(ipo(beta={beta}, mean=False), flip_rate={flips})",
    "Dr.DPO": "dr_dpo(beta={beta})",
    "Hölder-DPO": "holder_dpo(beta={beta})",
}
RPO = {"DPO": "dpo(beta={beta})"} | {f"η = {eta:g}": f"rpo(beta={{beta}}, eta={eta}, reduction='sum')" for eta in ETAS}


@dataclass(frozen=True)
class Arm:
    """One loss on labels of which a share was flipped."""

    group: str
    name: str
    flips: float

    def loss(self, beta: float) -> str:
        """The expression."""
        text = (NOISE if self.group == "noise" else RPO)[self.name]
        return parse_loss(text.format(beta=beta, flips=self.flips)).expression

    def file(self, seed: int, args: argparse.Namespace) -> Path:
        """Where the result lies."""
        plain = self.name.replace("ö", "oe").replace("η = ", "eta ")
        name = "".join(c if c.isalnum() or c == "." else "-" for c in f"{self.group} {plain}")
        return args.out / f"{name}_{self.flips:g}_{args.steps}_{seed}.json"

    def setting(self, seed: int, args: argparse.Namespace) -> Setting:
        """What decides the result."""
        return Setting(
            loss=self.loss(args.beta),
            beta=args.beta,
            flips=self.flips,
            seed=seed,
            steps=args.steps,
            learning_rate=args.learning_rate,
            train_layers=args.train_layers,
            heldout=args.heldout,
            samples=args.samples if args.samples is not None else 2 * (self.group == "rpo"),
            model=args.model,
        )


def chosen_arms(args: argparse.Namespace) -> list[Arm]:
    """The arms asked for, rate by rate, so that what the lower layers make of a batch is used by all losses."""
    noise = [Arm("noise", name, rate) for rate in args.flip_rates for name in NOISE]
    rpo = [Arm("rpo", name, 0.0) for name in RPO]
    arms = [arm for arm in noise + rpo if args.only in (None, arm.group)]
    return [arm for arm in arms if args.arms is None or arm.name in args.arms]


def open_bench(args: argparse.Namespace) -> Bench:
    """Load the model and the pairs."""
    transformers.logging.set_verbosity_error()
    model, tokenizer = load_model(model_path(args.model, Path("runs/models")))
    lower = freeze_below(model, args.train_layers)
    data = ROOT / "examples/data"
    return Bench(
        model, tokenizer, lower, *(load_pairs(data / f"reviews_{part}.jsonl") for part in ("train", "heldout"))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="checkpoint folder or Hub id (default: SmolLM2-135M-Instruct, as in the demo)")
    parser.add_argument("--only", choices=["noise", "rpo"], help="only one group of arms")
    parser.add_argument("--arms", nargs="+", choices=[*NOISE, *RPO], help="only the arms of these names", metavar="ARM")
    parser.add_argument("--flip-rates", nargs="+", type=float, default=list(FLIP_RATES), help="of the group noise")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=24, help="optimizer steps of 8 pairs")
    parser.add_argument("--heldout", type=int, default=64, help="how many of the 95 held-out pairs")
    parser.add_argument("--samples", type=int, help="samples of each held-out prompt (default: 0; group rpo: 2)")
    parser.add_argument("--beta", type=float, default=0.5)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--train-layers", type=int, default=10, help="LoRA on so many upper layers; the rest is frozen")
    parser.add_argument("--out", type=Path, default=Path("runs/reproduce"))
    parser.add_argument("--page", action="store_true", help="train nothing; put what is done into the page")
    args = parser.parse_args()
    if any(not 0 <= rate < 0.5 for rate in args.flip_rates):
        parser.error("--flip-rates must lie in [0, 0.5).")
    plan = [(arm, seed) for seed in args.seeds for arm in chosen_arms(args)]
    wanted = (
        []
        if args.page
        else [one for one in plan if kept(one[0].file(one[1], args), one[0].setting(one[1], args)) is None]
    )
    bench = open_bench(args) if wanted else None
    for arm, seed in tqdm(wanted, desc="Runs", unit="run", file=sys.stderr):
        assert bench is not None
        found = bench.run(arm.setting(seed, args), args.out / "scratch")
        keep(arm.file(seed, args), {"group": arm.group, "arm": arm.name, **found})
        tqdm.write(f"{arm.group} {arm.name} ε={arm.flips:g} seed {seed}: {found['cpu_seconds']:.0f} s of CPU time")
        if args.model is None:
            show(args)
    show(args)


if __name__ == "__main__":
    torch.set_num_interop_threads(1)
    main()
