"""Makes examples/data: SmolLM2's continuations of film-review openings, paired, or the best taken, by VADER's score.

Run `python examples/make_pairs.py` (about 12 minutes of one core; if stopped, it goes on where it was).
"""

import json
import random
from pathlib import Path

from tqdm.auto import tqdm

from prefalign.demo import model_path
from prefalign.diagnose import gold_rewards, load_model, sample

OUT = Path(__file__).parent / "data"
PROGRESS = Path("runs/make_pairs/samples.jsonl")
SAMPLES, SEED, CHUNK = 6, 20, 16  # samples a prompt; seed of the first chunk; prompts a chunk
BEST_OF = 4  # of a prompt's samples, the first ones: the best is the winner where winners stand alone
MIN_GAP, MIN_WORDS = 0.4, 3  # between the gold scores of a pair; in each of its texts
SIZES = {"train": 400, "heldout": 96, "dev": 48}  # prompts, no title shared; `dev` is for choosing settings
PAIRS = {"train": 2, "heldout": 1, "dev": 1}  # most pairs of a prompt


def prompts() -> dict[str, list[str]]:
    """Distinct prompts for each split."""
    draw = random.Random(SEED)
    words = json.loads((OUT / "prompts.json").read_text("utf-8"))
    draw.shuffle(words["titles"])
    owned = {"train": words["titles"][:44], "dev": words["titles"][44:50], "heldout": words["titles"][50:]}
    every = {
        split: [
            opening.format(title=title, aspect=aspect)
            for title in titles
            for opening in words["openings"]
            for aspect in words["aspects"]
        ]
        for split, titles in owned.items()
    }
    return {split: draw.sample(every[split], size) for split, size in SIZES.items()}


def scored_texts(texts: list[str]) -> list[tuple[float, str]]:
    """The finished ones of some texts, each once, behind their gold scores, the lowest first."""
    whole = [text for text in texts if text.endswith((".", "!", "?", '"')) and len(text.split()) >= MIN_WORDS]
    return sorted(set(zip(gold_rewards(whole), whole, strict=True)))


def pairs_of(prompt: str, texts: list[str], most: int) -> list[dict[str, object]]:
    """At most `most` pairs: best and worst of the finished samples, then second best and second worst."""
    scored = scored_texts(texts)
    halves = list(zip(reversed(scored), scored, strict=True))[: min(most, len(scored) // 2)]
    return [
        {"prompt": prompt, "chosen": chosen, "rejected": rejected, "gold_chosen": high, "gold_rejected": low}
        for (high, chosen), (low, rejected) in halves
        if high - low >= MIN_GAP
    ]


def sampled(asked: list[str]) -> list[list[str]]:
    """`SAMPLES` texts for each prompt; every chunk has its own seed and is kept on disk as soon as it is there."""
    lines = PROGRESS.read_text("utf-8").splitlines(keepends=True) if PROGRESS.exists() else []
    done = [line for line in lines if line.endswith("\n")]  # a line cut short by an interruption is sampled again
    PROGRESS.parent.mkdir(parents=True, exist_ok=True)
    PROGRESS.write_text("".join(done), "utf-8")
    chunks = [asked[start : start + CHUNK] for start in range(0, len(asked), CHUNK)]
    model, tokenizer = load_model(model_path(None, Path("runs/models")))
    for number in tqdm(range(len(done), len(chunks)), initial=len(done), total=len(chunks), unit="chunk"):
        repeated = [prompt for prompt in chunks[number] for _ in range(SAMPLES)]
        done.append(json.dumps(sample(model, tokenizer, repeated, SEED + number, batch=len(repeated))) + "\n")
        with PROGRESS.open("a", encoding="utf-8") as file:
            file.write(done[-1])
    texts = [text for line in done for text in json.loads(line)]
    return [texts[start : start + SAMPLES] for start in range(0, len(texts), SAMPLES)]


def main() -> None:
    asked = prompts()
    every = iter(sampled([prompt for some in asked.values() for prompt in some]))
    for split, some in asked.items():
        texts = {prompt: next(every) for prompt in some}
        rows = [row for prompt in some for row in pairs_of(prompt, texts[prompt], PAIRS[split])]
        best = {prompt: scored_texts(texts[prompt][:BEST_OF])[-1:] for prompt in some}
        winners = [{"prompt": p, "chosen": text, "gold_chosen": gold} for p in some for gold, text in best[p]]
        for name, made in (("reviews", rows), ("winners", winners)):
            (OUT / f"{name}_{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made), "utf-8")
        print(f"{split}: {len(rows)} pairs and {len(winners)} winners of {len(some)} prompts")


if __name__ == "__main__":
    main()
