"""SALSA: two SFT models, their soup as the reference of DPO, and the arms without which a gain means little.

Run `python examples/salsa.py` (sized for an hour of two cores; if stopped, it goes on where it was).
"""

import argparse
import json
import os
from pathlib import Path

from peft import LoraConfig

from prefalign import PrefConfig, PrefTrainer
from prefalign.cli.demo import gold_rewards, load, model_path, sample
from prefalign.data import load_pairs
from prefalign.diagnose import interval, paired_interval
from prefalign.references import HeldOut, soup

parser = argparse.ArgumentParser()
parser.add_argument("--model", help="checkpoint folder or Hub id (default: SmolLM2-135M-Instruct)")
parser.add_argument("--out", type=Path, default=Path("runs/salsa"))
for option, default in (("sft-steps", 40), ("steps", 30), ("seeds", 3), ("rows", 95)):
    parser.add_argument(f"--{option}", type=int, default=default)
args = parser.parse_args()
data = Path(__file__).parent / "data"
pairs = load_pairs(data / "reviews_train.jsonl").select_columns(["prompt", "chosen", "rejected"])
heldout = load_pairs(data / "reviews_heldout.jsonl").to_list()[: args.rows]
prompts = [row["prompt"] for row in heldout]


def trainer(model: str, rows: object, seed: int, steps: int, rate: float, **more: object) -> PrefTrainer:
    size = {"per_device_train_batch_size": 8, "max_length": 128, "save_strategy": "no", "report_to": "none"}
    config = PrefConfig(str(args.out / "work"), max_steps=steps, learning_rate=rate, seed=seed, use_cpu=True, **size)
    return PrefTrainer(model, args=config, train_dataset=rows, **more)


def sft(name: str, half: int) -> str:
    """A model fine-tuned on the chosen texts of one half of the data."""
    target, rows = args.out / name, pairs.select(range(half, len(pairs), 2))
    if not target.exists():
        start, loss = model_path(args.model, args.out.parent), "sft(reduction='token_mean')"
        made = trainer(start, rows, half, args.sft_steps, 2e-5, loss=loss)
        made.train()
        made.save_model(f"{target}.new")
        os.rename(f"{target}.new", target)
    return str(target)


def measure(start: str, reference: str, seed: int) -> dict[str, object]:
    """Train one arm with one seed; the change of the chosen log-probability and the rewards of samples, held out."""
    policy, tokenizer = load(start)
    before = (scored := HeldOut(heldout, tokenizer)).nll(policy)
    lora = LoraConfig(r=16, lora_alpha=32, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    run = trainer(start, pairs, seed, args.steps, 5e-4, loss="dpo(beta=0.1)", reference=reference, peft_config=lora)
    run.train()
    trained = run.model.merge_and_unload().eval()
    texts = sample(trained, tokenizer, prompts, seed, progress="Samples")
    return {"chosen": before - scored.nll(trained), "rewards": gold_rewards(texts)}


one, two, mixed = sft("sft-1", 0), sft("sft-2", 1), str(args.out / "soup")
if not Path(mixed).exists():
    soup([one, two], out=mixed, data=heldout)
print("\n".join(json.loads((Path(mixed) / "soup.json").read_text())["notes"]))
arms = {"DPO": (one, "initial"), "SALSA": (one, f"soup('{one}', '{two}')"), "control": (mixed, "initial")}
arms["SFT2"] = (one, f"checkpoint('{two}')")
found: dict[str, list[dict[str, list[float]]]] = {name: [] for name in arms}
for seed in range(args.seeds):
    for name, (start, reference) in arms.items():
        file = args.out / f"{name}-{seed}.json"
        if not file.exists():
            file.write_text(json.dumps(measure(start, reference, seed)))
        found[name].append(json.loads(file.read_text()))
print("arm: change of log p(chosen), nats per token; gold reward; its gain over DPO (95 % intervals over prompts)")
rewards = {name: [reward for result in results for reward in result["rewards"]] for name, results in found.items()}
groups = prompts * args.seeds
for name, results in found.items():
    changes = interval([result["chosen"] for result in results])
    gain = paired_interval(rewards["DPO"], rewards[name], groups=groups)
    print(f"{name:8} {changes}; {interval(rewards[name], groups=groups)}; {gain}")
