"""SePPO's ablation: SFT, and winners against the policy's own past, with each flipper and each choice of the past.

Run `python examples/seppo_experiment.py` (under an hour of one core; when run again it leaves out what is there).
"""

import argparse
import json
from itertools import product
from pathlib import Path
from statistics import mean, stdev

from datasets import Dataset
from matplotlib.figure import Figure
from peft import LoraConfig
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from prefalign import PrefConfig, PrefTrainer
from prefalign.data import load_pairs
from prefalign.demo import model_path
from prefalign.diagnose import gold_rewards, sample
from prefalign.references import HeldOut, write_json

PAIRS = [("none", "random"), ("sign", "random"), ("indicator", "random"), ("sign", "initial"), ("sign", "latest")]
# Each arm's loss, and which snapshot of the past generates and scores.
SEPPO = {f"{flipper}, {choose}": (f"seppo(beta=0.1, flipper={flipper})", choose) for flipper, choose in PAIRS}
ARMS = {"sft": ("sft(reduction='sum')", None), **SEPPO}


class Curve(TrainerCallback):
    """Log-probability of held-out winners at the start, half-way and at the end: sums over tokens in nats, averaged."""

    def __init__(self, winners: list, model: str, steps: int) -> None:
        self.rows, self.marks = (
            HeldOut(winners, AutoTokenizer.from_pretrained(model), batch_size=16),
            (steps // 2, steps),
        )
        self.start = self.measure(AutoModelForCausalLM.from_pretrained(model))  # of every run: LoRA adds nothing yet

    def measure(self, model: AutoModelForCausalLM) -> float:
        return -self.rows.nll(model) * self.rows.scored / len(self.rows.examples)

    def on_step_end(self, args, state, control, model, **_) -> None:
        if state.global_step in self.marks:
            self.points[state.global_step] = self.measure(model)


def train(arm: str, seed: int, options: argparse.Namespace, splits: list[list], curve: Curve) -> dict:
    """One run's numbers, its curve, and its flip rate every few steps."""
    (loss, choose), curve.points = ARMS[arm], {0: curve.start}
    past = f"past(keep=7, every={options.every}, choose={choose}, seed={seed})"
    ahead = {"reference": past, "max_new_tokens": 20, "generate_ahead": options.every} if choose else {}
    args = PrefConfig(
        str(options.out / "work"), loss=loss, **ahead, shared_prefix=True, seed=seed, max_steps=options.steps,
        learning_rate=options.learning_rate, lr_scheduler_type="constant", per_device_train_batch_size=8,
        logging_steps=max(1, options.every // 2), save_strategy="no", report_to="none", use_cpu=True,
    )  # fmt: skip
    depth = AutoConfig.from_pretrained(options.model).num_hidden_layers
    upper = list(range(depth * 2 // 3, depth))  # the last third of the layers: the backward pass ends there
    lora = LoraConfig(r=16, lora_alpha=32, target_modules=["q_proj", "v_proj"], layers_to_transform=upper)
    rows = Dataset.from_list(splits[0]).select_columns(["prompt", "chosen"])
    trainer = PrefTrainer(options.model, args=args, train_dataset=rows, peft_config=lora, callbacks=[curve])
    trainer.train()
    flips = {row["step"]: row["anchor/flip_rate"] for row in trainer.state.log_history if "anchor/flip_rate" in row}
    points = list(curve.points.values())
    found = {"start": points[0], "end": points[-1], "lowest": min(points), "flip rate": mean(flips.values() or [0])}
    if options.gold:
        prompts, tokenizer = [row["prompt"] for row in splits[1]], trainer.processing_class
        found["gold"] = mean(gold_rewards(sample(trainer.model.eval(), tokenizer, prompts, seed)))
    return {"numbers": found, "curve": curve.points, "flips": flips}


def draw(runs: dict[str, list[dict]], file: Path) -> None:
    """The curves with their spread over seeds, and the flip rates."""
    left, right = (figure := Figure(figsize=(11, 4), layout="constrained")).subplots(1, 2)
    for number, (arm, seeds) in enumerate(runs.items()):
        look = {"color": f"C{number}"}  # the same in both panels
        for axes, key in ((left, "curve"), (right, "flips")):
            if steps := list(map(int, seeds[0][key])):
                values = list(zip(*(seed[key].values() for seed in seeds), strict=True))
                axes.plot(steps, list(map(mean, values)), label=arm, **look)
                axes.fill_between(steps, list(map(min, values)), list(map(max, values)), alpha=0.15, **look)
    left.set(xlabel="optimizer step", ylabel="log-probability of held-out winners (nats, sum)")
    right.set(xlabel="optimizer step", ylabel="flip rate", ylim=(0, 1))
    left.legend(title="flipper, snapshot")
    figure.savefig(file, dpi=150)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="folder or hub id (default: SmolLM2-135M-Instruct)")
    parser.add_argument("--data", type=Path, default=Path(__file__).parent / "data")
    parser.add_argument("--out", type=Path, default=Path("runs/seppo"))
    for name, value in {"steps": 24, "every": 6, "seeds": 3, "learning_rate": 1e-3, "longest": 120}.items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    parser.add_argument("--gold", action="store_true", help="also sample from every trained model, and score it")
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=list(ARMS))
    options = parser.parse_args(words)
    options.model = model_path(options.model, Path("runs/models"))
    options.out /= f"{Path(options.model).name}-{options.steps}-{options.every}-{options.learning_rate:g}"
    splits = [load_pairs(options.data / f"winners_{split}.jsonl").to_list() for split in ("train", "heldout")]
    splits = [[row for row in rows if len(row["chosen"]) <= options.longest] for rows in splits]
    runs, curve = {arm: [] for arm in options.arms}, None
    for seed, arm in product(range(options.seeds), options.arms):
        if not (file := options.out / f"{arm.replace(', ', '-')}-{seed}.json").is_file():
            curve = curve or Curve(splits[1][:48], options.model, options.steps)
            write_json(file, train(arm, seed, options, splits, curve))
        runs[arm].append(json.loads(file.read_text("utf-8")))
    write_json(options.out / "results.json", runs)
    draw(runs, options.out / "results.png")
    print("mean (deviation) ", *(name.rjust(15) for name in runs[options.arms[0]][0]["numbers"]))
    for arm, seeds in runs.items():
        cells = zip(*(seed["numbers"].values() for seed in seeds), strict=True)
        print(arm.ljust(17), *(f"{mean(c):8.2f} ({stdev(c) if len(c) > 1 else 0:4.2f})".rjust(15) for c in cells))


if __name__ == "__main__":
    main()
