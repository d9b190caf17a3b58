"""SePPO's ablation in miniature: examples/seppo_experiment.py on a tiny model, trained in seconds to say three words.

Run `python -m benchmarks.seppo_miniature` in the repository's root (about a minute of one core).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
from pathlib import Path
from types import ModuleType

import torch

from tests.tiny import tiny_model, tiny_tokenizer

WORDS = ("good", "bad", "fine", "dull")
EXAMPLE = Path(__file__).parents[1] / "examples" / "seppo_experiment.py"


def text(draw: random.Random) -> str:
    """Three of the words."""
    return " " + " ".join(draw.choice(WORDS) for _ in range(3))


def gold(completion: str) -> int:
    """Good words less bad ones."""
    return sum(completion.count(word) * (1 if word in ("good", "fine") else -1) for word in WORDS)


def pretrained(folder: Path) -> Path:
    """A tiny model that has learnt to say three of four words, each as likely as the others."""
    if (folder / "config.json").is_file():
        return folder
    torch.manual_seed(0)
    draw, tokenizer = random.Random(0), tiny_tokenizer()
    model = tiny_model(hidden_size=48, intermediate_size=96, num_attention_heads=4, num_key_value_heads=4)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(400):
        prompts = [f"F{draw.randrange(1000):03d}:" for _ in range(32)]
        rows = [tokenizer(prompt + text(draw) + "<|im_end|>")["input_ids"] for prompt in prompts]
        width = max(map(len, rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        mask = (ids != 0).long()
        model(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_data(folder: Path) -> None:
    """The winner of each prompt is the best of four texts by `gold`, the loser the worst."""
    draw = random.Random(1)
    for split, numbers in (("train", range(128)), ("heldout", range(128, 160))):
        lines = []
        for number in numbers:
            four = sorted((text(draw) for _ in range(4)), key=gold)
            row = {"prompt": f"F{number:03d}:", "chosen": four[-1], "gold_chosen": gold(four[-1])}
            lines.append(json.dumps(row) + "\n" if four[0] != four[-1] else "")
        (folder / f"winners_{split}.jsonl").write_text("".join(lines))


def experiment() -> ModuleType:
    """The example, imported from its file."""
    spec = importlib.util.spec_from_file_location("seppo_experiment", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(folder: Path, seeds: int) -> None:
    """Make model and data in `folder` and train all arms there; prints the example's table."""
    folder.mkdir(parents=True, exist_ok=True)
    write_data(folder)
    words = ["--model", str(pretrained(folder / "base")), "--data", str(folder), "--out", str(folder / "out")]
    experiment().main([*words, "--seeds", str(seeds), "--learning_rate", "1e-2"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/seppo_miniature"))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    run(options.out, options.seeds)
