"""SePPO's ablation: SFT, and winners against the policy's own past, with each flipper and each choice of the past.

Run `python examples/seppo_experiment.py` (hours on two cores; if stopped, it goes on where it was; `--help` for less).
"""

import argparse
import json
import shutil
from pathlib import Path
from statistics import mean, stdev

from datasets import Dataset
from peft import LoraConfig

from prefalign import PrefConfig, PrefTrainer
from prefalign.cli.demo import gold_rewards, model_path, sample
from prefalign.train import last_whole_checkpoint

PAIRS = [("none", "random"), ("sign", "random"), ("indicator", "random"), ("sign", "initial"), ("sign", "latest")]
# Each arm's loss, and which snapshot of the past generates and scores.
SEPPO = {f"{flipper}, {choose}": (f"seppo(beta=0.1, flipper={flipper})", choose) for flipper, choose in PAIRS}
ARMS = {"sft": ("sft(reduction='sum')", None), **SEPPO}


def best(file: Path) -> Dataset:
    """For each prompt the pair whose winner has the highest gold reward: the best of several samples of the model."""
    rows = sorted(map(json.loads, file.read_text("utf-8").splitlines()), key=lambda row: row["gold_chosen"])
    rows = {row["prompt"]: row for row in rows}.values()
    return Dataset.from_list([{name: row[name] for name in ("prompt", "chosen", "rejected")} for row in rows])


def train(arm: str, seed: int, options: argparse.Namespace) -> dict[str, float]:
    """One run's numbers; log-probabilities are sums over tokens in nats, averaged over held-out winners."""
    loss, choose = ARMS[arm]
    folder = options.out / f"{arm.replace(', ', '-')}-{seed}"
    if (done := folder / "result.json").is_file():
        return json.loads(done.read_text("utf-8"))
    pairs, held_out = (best(options.data / f"reviews_{split}.jsonl") for split in ("train", "heldout"))
    past = f"past(keep=7, every={options.every}, choose={choose}, seed={seed})"
    args = PrefConfig(
        str(folder), loss=loss, reference=past if choose else "none", max_new_tokens=32 if choose else None,
        learning_rate=options.learning_rate, lr_scheduler_type="constant", max_steps=options.steps, seed=seed,
        per_device_train_batch_size=8, per_device_eval_batch_size=32, eval_strategy="steps", eval_on_start=True,
        eval_steps=max(1, options.steps // 2), save_steps=options.every, save_total_limit=1, logging_steps=1,
        report_to="none", use_cpu=True,
    )  # fmt: skip
    trainer = PrefTrainer(
        options.model, args=args, train_dataset=pairs if choose is None else pairs.remove_columns("rejected"),
        eval_dataset=held_out, peft_config=LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"),
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(str(folder)))
    names = ("eval_logps/chosen", "anchor/flip_rate")
    curve, flips = ([row[name] for row in trainer.state.log_history if name in row] for name in names)
    texts = sample(trainer.model.eval(), trainer.processing_class, held_out["prompt"][:], seed=0)
    result = {"start": curve[0], "end": curve[-1], "lowest": min(curve), "flip rate": mean(flips or [0])}
    done.write_text(json.dumps(result | {"gold": mean(gold_rewards(texts))}), "utf-8")
    list(map(shutil.rmtree, folder.glob("checkpoint-*")))
    return json.loads(done.read_text("utf-8"))


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="folder or hub id (default: SmolLM2-135M-Instruct)")
    parser.add_argument("--data", type=Path, default=Path(__file__).parent / "data")
    parser.add_argument("--out", type=Path, default=Path("runs/seppo"))
    for name, value in {"steps": 40, "every": 10, "seeds": 3, "learning_rate": 1e-3}.items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=list(ARMS))
    options = parser.parse_args(words)
    options.model = model_path(options.model, Path("runs/models"))
    options.out /= f"{Path(options.model).name}-{options.steps}-{options.every}-{options.learning_rate:g}"
    table = {arm: [train(arm, seed, options) for seed in range(options.seeds)] for arm in options.arms}
    print("mean (deviation) ", *(name.rjust(15) for name in table[options.arms[0]][0]))
    for arm, runs in table.items():
        cells = zip(*(run.values() for run in runs), strict=True)
        print(arm.ljust(17), *(f"{mean(c):8.2f} ({stdev(c) if len(c) > 1 else 0:4.2f})".rjust(15) for c in cells))


if __name__ == "__main__":
    main()
