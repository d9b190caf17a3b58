"""SALSA's arms on SmolLM2, with parents far apart and a strong pull to the reference.

    python benchmarks/reproduce/salsa_smollm2.py             # ten minutes of one core; goes on where it was stopped
    python benchmarks/reproduce/salsa_smollm2.py --samples   # also samples of every trained model, and their rewards
    python benchmarks/reproduce/salsa_smollm2.py --write     # also puts the table and the picture into the docs

Only the upper layers are trained, in fine-tuning and in DPO: what the layers below make of the texts is computed once,
as are the references' log-probabilities. The soup is `prefalign.references.soup`, the loss `prefalign.losses.DPO`.
Two models are fine-tuned on the chosen texts of one half of the pairs each; DPO then goes once through all pairs.
Every arm's result is kept as a file in `--out`: a later call, as with `--write`, reads it and does not train again.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _page import IMAGES, put, table
from torch import Tensor
from tqdm import tqdm

from prefalign.data import load_pairs
from prefalign.demo import model_path
from prefalign.diagnose import gold_rewards, interval, load_model, paired_interval, sample
from prefalign.losses import DPO, PairLogps
from prefalign.references import soup, write_json

DATA = Path(__file__).parents[2] / "examples" / "data"
ARMS = {"DPO: (SFT1, SFT1)": ("sft-1", "sft-1"), "SALSA: (SFT1, soup)": ("sft-1", "soup"),
        "(SFT1, SFT2)": ("sft-1", "sft-2"), "control: (soup, soup)": ("soup", "soup")}  # fmt: skip
COLORS = ("#6b7686", "#0072b2", "#d55e00", "#009e73")  # one for each arm
BATCH = 8


@dataclass(frozen=True)
class Texts:
    """Prompts with completions: hidden states under the trained layers, tokens, and which of them are completion."""

    hidden_BTd: Tensor
    ids_BT: Tensor
    scored_BT: Tensor

    def __getitem__(self, rows: Any) -> Texts:
        scored_BT = self.scored_BT[rows]
        width = int(scored_BT.nonzero()[:, 1].max()) + 1  # causal: what lies behind the last token has no influence
        return Texts(self.hidden_BTd[rows][:, :width], self.ids_BT[rows][:, :width], scored_BT[:, :width])


class Model:
    """A checkpoint cut in two: the upper layers, which are trained, and those below."""

    def __init__(self, path: str, trained: int) -> None:
        self.whole, self.tokenizer = load_model(path)
        self.all_layers = self.whole.model.layers
        self.lower, self.upper = self.all_layers[:-trained], self.all_layers[-trained:]
        self.whole.requires_grad_(False)
        self.upper.requires_grad_(True)

    @torch.no_grad()
    def read(self, prompts: list[str], completions: list[str]) -> Texts:
        """The texts, through the lower layers."""
        end, pad = self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
        heads = [len(self.tokenizer(prompt)["input_ids"]) for prompt in prompts]
        rows = [self.tokenizer(p + c)["input_ids"] + [end] for p, c in zip(prompts, completions, strict=True)]
        width = max(map(len, rows))
        ids_BT = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
        place_T = torch.arange(width)
        starts, ends = torch.tensor(heads)[:, None], torch.tensor([len(row) for row in rows])[:, None]
        norm, self.whole.model.norm = self.whole.model.norm, torch.nn.Identity()
        self.whole.model.layers = self.lower
        hidden = [
            self.whole.model(input_ids=part, use_cache=False).last_hidden_state
            for part in tqdm(ids_BT.split(16), desc="Lower layers", delay=2)
        ]
        self.whole.model.layers, self.whole.model.norm = self.all_layers, norm
        return Texts(torch.cat(hidden), ids_BT, (place_T >= starts) & (place_T < ends))

    def logps(self, texts: Texts) -> Tensor:
        """Summed log-probabilities of the completions, nats, (texts,)."""
        self.whole.model.layers = self.upper
        hidden_BTd = self.whole.model(inputs_embeds=texts.hidden_BTd, use_cache=False).last_hidden_state
        self.whole.model.layers = self.all_layers
        scored_BT = texts.scored_BT[:, 1:]
        logps_N = torch.log_softmax(self.whole.lm_head(hidden_BTd[:, :-1][scored_BT]), dim=-1)
        picked_N = logps_N.gather(-1, texts.ids_BT[:, 1:][scored_BT][:, None])[:, 0].double()
        return torch.zeros(len(scored_BT), dtype=torch.float64).index_add(0, scored_BT.nonzero()[:, 0], picked_N)

    @torch.no_grad()
    def all_logps(self, texts: Texts) -> Tensor:
        """`logps` in small batches, without gradients."""
        return torch.cat([self.logps(texts[rows]) for rows in torch.arange(len(texts.ids_BT)).split(16)])

    def save(self, folder: Path) -> None:
        """As a checkpoint."""
        self.whole.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def fine_tune(model: Model, chosen: Texts, rows: Tensor, steps: int, rate: float, seed: int) -> None:
    """AdamW on the token mean of the negative log-likelihood."""
    optimizer = torch.optim.AdamW(model.upper.parameters(), lr=rate, weight_decay=0.0)
    random = torch.Generator().manual_seed(seed)
    order = torch.cat([rows[torch.randperm(len(rows), generator=random)] for _ in range(steps)])
    for batch in tqdm(order.split(BATCH)[:steps], desc="SFT", delay=2):
        texts = chosen[batch]
        (-model.logps(texts).sum() / texts.scored_BT.sum()).backward()
        optimizer.step()
        optimizer.zero_grad()


@dataclass(frozen=True)
class Bench:
    """What the runs share. Texts are the chosen ones, then the rejected ones."""

    args: argparse.Namespace
    train: Texts
    heldout: Texts
    prompts: list[str]

    def run(self, start: str, reference: str, seed: int) -> dict[str, Any]:
        """One arm: the held-out log-probabilities, sums in nats, after some steps, and the rewards of samples."""
        args = self.args
        model = Model(str(args.out / start), args.layers)
        held_to, loss = self.known(reference, model), DPO(beta=args.beta)
        count = len(held_to) // 2
        optimizer = torch.optim.AdamW(model.upper.parameters(), lr=args.rate, weight_decay=0.0)
        random = torch.Generator().manual_seed(seed)
        path = {"0": model.all_logps(self.heldout).tolist()}
        losses = []
        batches = torch.randperm(count, generator=random).split(BATCH)
        for step, batch in enumerate(tqdm(batches, desc=f"DPO, {start} held to {reference}", delay=2), 1):
            rows = torch.cat([batch, batch + count])
            value = loss(PairLogps(*model.logps(self.train[rows]).chunk(2), *held_to[rows].chunk(2))).mean()
            value.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(value.detach()))
            if step in (len(batches) // 2, len(batches)):
                path[str(step)] = model.all_logps(self.heldout).tolist()
        rewards = gold_rewards(sample(model.whole, model.tokenizer, self.prompts, seed)) if args.samples else []
        return {"path": path, "losses": losses, "rewards": rewards}

    def known(self, name: str, other: Model) -> Tensor:
        """The log-probabilities of the training texts under a reference, computed once."""
        file = self.args.out / f"{name}.logps.json"
        if not file.exists():
            write_json(file, Model(str(self.args.out / name), len(other.upper)).all_logps(self.train).tolist())
        return torch.tensor(json.loads(file.read_text()), dtype=torch.float64)


def prepare(args: argparse.Namespace) -> tuple[Bench, str]:
    """The two parents and their soup, where they are not there yet, the texts, and what the soup's parents score."""
    base = Model(model_path(args.model, args.out.parent), args.layers)
    pairs = load_pairs(DATA / "reviews_train.jsonl").to_list()[: args.pairs]
    heldout = load_pairs(DATA / "reviews_heldout48.jsonl").to_list()[: args.rows]
    train, test = (
        base.read([row["prompt"] for row in rows] * 2, [row[key] for key in ("chosen", "rejected") for row in rows])
        for rows in (pairs, heldout)
    )
    for half, name in enumerate(("sft-1", "sft-2")):
        if not (args.out / name).exists():
            model = Model(model_path(args.model, args.out.parent), args.layers)
            fine_tune(model, train, torch.arange(half, len(pairs), 2), args.sft_steps, args.sft_rate, half)
            model.save(args.out / f"{name}.new")
            (args.out / f"{name}.new").rename(args.out / name)
    if not (args.out / "soup").exists():
        soup([args.out / "sft-1", args.out / "sft-2"], out=args.out / "soup")
    chosen = test[torch.arange(len(heldout))]
    tokens = int(chosen.scored_BT.sum())
    nll = {n: -float(Model(str(args.out / n), args.layers).all_logps(chosen).sum()) / tokens for n in NAMES}
    told = ", ".join(f"{name} {value:.4f}" for name, value in nll.items())
    prompts = [row["prompt"] for row in heldout]
    return Bench(
        args, train, test, prompts
    ), f"Held-out negative log-likelihood of the chosen texts, nats per token: {told}."


def change(runs: list[dict[str, Any]], step: str, count: int) -> list[list[float]]:
    """Of the log-probability of every held-out chosen text since the start, nats, seed by seed."""
    paths = [run["path"] for run in runs]
    return [[n - o for n, o in zip(path[step][:count], path["0"][:count], strict=True)] for path in paths]


def report(found: dict[str, list[dict[str, Any]]], prompts: list[str]) -> str:
    """Changes of the held-out log-probabilities by arm and step, seed by seed, and the rewards of samples."""
    seeds, count = len(found["DPO: (SFT1, SFT1)"]), len(prompts)
    steps = [step for step in found["DPO: (SFT1, SFT1)"][0]["path"] if int(step)]
    groups = prompts * seeds

    first = next(iter(found))
    head = ["arm", "first loss"]
    head += [column for step in steps for column in (f"step {step}, by seed", "less DPO's")]
    rows = []
    for arm, runs in found.items():
        row = [arm, f"{np.mean([run['losses'][0] for run in runs]):.3f}"]
        for step in steps:
            row.append(", ".join(f"{np.mean(one):+.2f}" for one in change(runs, step, count)))
            both = ([value for one in change(found[name], step, count) for value in one] for name in (first, arm))
            row.append("–" if arm == first else str(paired_interval(*both, groups=groups)))
        rows.append(row)
    text = table(head, rows)
    if found[first][0]["rewards"]:
        rewards = {arm: [reward for run in runs for reward in run["rewards"]] for arm, runs in found.items()}
        told = [f"{arm} {interval(values, groups=groups)}" for arm, values in rewards.items()]
        text += f"\n\nGold rewards: {'; '.join(told)}."
    return text


def draw(found: dict[str, list[dict[str, Any]]], count: int, path: Path) -> None:
    """The held-out log pi(chosen) over the steps, by arm, and the same less DPO's of the seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps = sorted(next(iter(found.values()))[0]["path"], key=int)
    x = [int(step) for step in steps]
    lines = {
        arm: np.array([[np.mean(one) for one in change(runs, step, count)] for step in steps])
        for arm, runs in found.items()
    }
    dpo_KS = next(iter(lines.values()))  # steps, seeds
    for (arm, values_KS), color in zip(lines.items(), COLORS, strict=True):
        for axes, shown_KS in ((left, values_KS), (right, values_KS - dpo_KS)):
            axes.plot(x, shown_KS, color=color, linewidth=0.8, alpha=0.55)
            axes.plot(x, shown_KS.mean(axis=1), color=color, linewidth=2.2, marker="o", markersize=4, label=arm)
    left.set(xlabel="optimizer step", ylabel="held-out log π(chosen), nats gained")
    right.set(xlabel="optimizer step", ylabel="the same less DPO's, seed by seed, nats")
    left.legend(fontsize=8, frameon=False, title="(start, reference); thin: one seed", title_fontsize=8)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)


NAMES = ("sft-1", "sft-2", "soup")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="checkpoint folder or Hub id (default: SmolLM2-135M-Instruct)")
    parser.add_argument("--out", type=Path, default=Path("runs/salsa-smollm2"))
    for option, whole in (("seeds", 3), ("pairs", 128), ("rows", 48), ("sft-steps", 24), ("layers", 4)):
        parser.add_argument(f"--{option}", type=int, default=whole)
    for option, number in (("sft-rate", 3e-4), ("rate", 2e-4), ("beta", 0.5)):
        parser.add_argument(f"--{option}", type=float, default=number)
    parser.add_argument("--samples", action="store_true", help="sample from every trained model, and score it")
    parser.add_argument("--write", action="store_true", help="put the table and the picture into docs/reproductions.md")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    bench, told = prepare(args)
    print(told, flush=True)
    found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
    for seed in range(args.seeds):
        for arm, (start, reference) in ARMS.items():
            file = args.out / f"{start}-{reference}-{seed}.json"
            if not file.exists():
                write_json(file, bench.run(start, reference, seed))
            found[arm].append(json.loads(file.read_text()))
    text = report(found, bench.prompts) + "\n\n" + told
    print(text)
    if args.write:
        draw(found, len(bench.prompts), IMAGES / "salsa_smollm2.png")
        put("salsa_smollm2", f"{text}\n\n![Held-out log π(chosen) by arm](images/salsa_smollm2.png)")


if __name__ == "__main__":
    main()
