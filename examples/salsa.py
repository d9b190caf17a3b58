"""SALSA: two SFT models, their soup as the reference of DPO, and the arms without which a gain means little.

The reference is alpha times the first model plus (1 - alpha) times the second: alpha = 1 is DPO, SALSA takes 1/2.

Run `python examples/salsa.py` (45 minutes of one core; if stopped, it goes on where it was).
"""

import argparse
import json
import os
from pathlib import Path

from matplotlib.figure import Figure
from peft import LoraConfig

from prefalign import PrefConfig, PrefTrainer
from prefalign.data import load_pairs
from prefalign.demo import model_path
from prefalign.diagnose import gold_rewards, interval, load_model, paired_interval, sample
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
    size |= {"shared_prefix": True, "use_cpu": True}
    config = PrefConfig(str(args.out / "work"), max_steps=steps, learning_rate=rate, seed=seed, **size)
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
    policy, tokenizer = load_model(start)
    before = (scored := HeldOut(heldout, tokenizer)).nll(policy)
    # Adapters in the upper third of the layers: nothing need be propagated back through the others.
    upper = list(range(policy.config.num_hidden_layers * 2 // 3, policy.config.num_hidden_layers))
    adapted = {"target_modules": ["q_proj", "v_proj"], "layers_to_transform": upper}
    lora = LoraConfig(r=16, lora_alpha=32, task_type="CAUSAL_LM", **adapted)
    run = trainer(start, pairs, seed, args.steps, 1e-3, loss="dpo(beta=0.1)", reference=reference, peft_config=lora)
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
rewards = {name: [reward for result in results for reward in result["rewards"]] for name, results in found.items()}
changes = {name: [result["chosen"] for result in results] for name, results in found.items()}
groups = prompts * args.seeds
print("Held out, with 95 % intervals: changes over seeds, in nats per token; gold rewards over prompts")
for name in arms:
    less = paired_interval(changes["DPO"], changes[name])
    print(f"{name:8} log p(chosen) {interval(changes[name])}, less DPO's {less};")
    gain = paired_interval(rewards["DPO"], rewards[name], groups=groups)
    print(f"{'':8} gold reward {interval(rewards[name], groups=groups)}, less DPO's {gain}")

left, right = (figure := Figure(figsize=(10, 4), layout="constrained")).subplots(1, 2)
for seed in range(args.seeds):
    left.plot(list(arms), [changes[name][seed] for name in arms], "o-", alpha=0.6, label=f"seed {seed}")
whole = [interval(rewards[name], groups=groups) for name in arms]
ends = [[one.mean - one.low for one in whole], [one.high - one.mean for one in whole]]
right.errorbar(list(arms), [one.mean for one in whole], yerr=ends, fmt="o", capsize=4)
left.set(ylabel="change of log p(chosen), nats per token", title="Held-out chosen texts")
right.set(ylabel="VADER compound", title="Gold reward of samples, 95 % intervals")
left.legend()
figure.savefig(args.out / "salsa.png", dpi=110)
