"""One run of smollm2.py: LoRA on the upper layers of one loaded model, and what comes of it on held-out pairs.

The lower layers are the same in every run, and so are the batches of one seed and flip rate: what those layers make of
a batch is kept, and so are the log-probabilities of the start. Nothing is approximated by that; a run costs what its
own layers cost.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig
from torch import Tensor, nn
from transformers import PrinterCallback, ProgressCallback

from prefalign.data import flip_labels
from prefalign.diagnose import gold_rewards, sample
from prefalign.references import Initial, write_json
from prefalign.train import PrefConfig, PrefTrainer

BATCH = 8


@dataclass(frozen=True)
class Setting:
    """What decides a run's result."""

    loss: str
    beta: float
    flips: float
    seed: int
    steps: int
    learning_rate: float
    train_layers: int  # LoRA on so many of the upper layers
    heldout: int
    samples: int  # of each held-out prompt, after training
    model: str | None


class Frozen(nn.Module):
    """The layers below the trained ones, as one layer whose outputs are kept.

    Args:
        layers: The layers.
        room: How many bytes of outputs are kept at most; what was not used for longest goes first.
    """

    def __init__(self, layers: nn.ModuleList, room: int = 300_000_000) -> None:
        super().__init__()
        self.layers = layers
        self.kept: OrderedDict[bytes, Tensor] = OrderedDict()
        self.room = room
        self.remembers = True

    def __deepcopy__(self, memo: dict[int, Any]) -> Frozen:
        return self  # never trained, so that all runs may share it

    def forward(self, hidden: Tensor, **kwargs: Any) -> Tensor:
        if kwargs.get("past_key_values") is not None:
            return self._run(hidden, kwargs)
        cosine, _ = kwargs["position_embeddings"]
        seen = [hidden, cosine] + [m for m in [kwargs.get("attention_mask")] if m is not None]
        digest = hashlib.blake2b(digest_size=16)
        for tensor in seen:
            digest.update(str(tuple(tensor.shape)).encode() + tensor.detach().contiguous().cpu().numpy().tobytes())
        key = digest.digest()
        if key in self.kept:
            self.kept.move_to_end(key)
            return self.kept[key]
        made = self._run(hidden, kwargs)
        if self.remembers:
            self.kept[key] = made
            self.room -= made.nbytes
        while self.room < 0:
            self.room += self.kept.popitem(last=False)[1].nbytes
        return made

    @torch.no_grad()
    def _run(self, hidden: Tensor, kwargs: dict[str, Any]) -> Tensor:
        for layer in self.layers:
            hidden = layer(hidden, **kwargs)
        return hidden


def freeze_below(model: Any, trained: int) -> Frozen:
    """Put all but the `trained` upper layers of a model into one `Frozen`."""
    layers = model.model.layers
    lower = Frozen(nn.ModuleList(layers[: len(layers) - trained]))
    model.model.layers = nn.ModuleList([lower, *layers[len(layers) - trained :]])
    return lower


@dataclass
class Remembered(Initial):
    """`Initial`, whose log-probability of a text is computed once for all runs.

    Args:
        known: Summed log-probabilities in nats, by the text's tokens.
    """

    known: dict[bytes, float] = field(default_factory=dict)

    def logps(self, inputs: Any) -> tuple[Tensor, Tensor]:
        rows = zip(inputs["input_ids"], inputs["attention_mask"], inputs["completion_mask"], strict=True)
        keys = [torch.stack([ids, inside])[:, real.bool()].cpu().numpy().tobytes() for ids, real, inside in rows]
        if any(key not in self.known for key in keys):
            made = torch.cat(super().logps(inputs)).tolist()
            self.known.update(zip(keys, made, strict=True))
        device = inputs["input_ids"].device
        chosen, rejected = torch.tensor([self.known[key] for key in keys], device=device).chunk(2)
        return chosen, rejected


@dataclass
class Bench:
    """What all runs of one process share.

    Attributes:
        model, tokenizer: The start, its lower layers frozen.
        lower: Those layers.
        train, heldout: Pairs with right labels.
        known: See `Remembered`.
        before: Per-token log-probabilities of the held-out texts under the start, once they are measured.
    """

    model: Any
    tokenizer: Any
    lower: Frozen
    train: Any
    heldout: Any
    known: dict[bytes, float] = field(default_factory=dict)
    before: dict[int, list[np.ndarray]] = field(default_factory=dict)

    def run(self, setting: Setting, scratch: Path) -> dict[str, Any]:
        """Train and measure. Log-probabilities are nats: sums over tokens, one for each held-out pair."""
        pairs = self.heldout.select(range(min(setting.heldout, len(self.heldout))))
        prompts = [*pairs["prompt"]] * 2
        texts = [*pairs["chosen"], *pairs["rejected"]]
        if setting.heldout not in self.before:
            self.before[setting.heldout] = token_logps(self.model, self.tokenizer, prompts, texts)
        before = self.before[setting.heldout]
        started, cpu = time.perf_counter(), time.process_time()
        model, log = self._train(setting, scratch)
        trained = time.process_time() - cpu
        after = token_logps(model, self.tokenizer, prompts, texts)
        chosen, rejected = np.split(np.array([row.sum() for row in after]), 2)
        ref_chosen, ref_rejected = np.split(np.array([row.sum() for row in before]), 2)
        found = {
            "setting": asdict(setting),
            "chosen": chosen.tolist(),
            "rejected": rejected.tolist(),
            "ref_chosen": ref_chosen.tolist(),
            "ref_rejected": ref_rejected.tolist(),
            "kl_ref_policy": divergence(self.model, model, self.tokenizer, prompts, texts),
            "log": log,
        }
        if setting.samples:
            found |= self._sampled(model, setting, list(pairs["prompt"]))
        found |= {
            "train_cpu_seconds": trained,
            "cpu_seconds": time.process_time() - cpu,
            "seconds": time.perf_counter() - started,
        }
        return found

    def _train(self, setting: Setting, scratch: Path) -> tuple[Any, list[dict[str, float]]]:
        layers = len(self.lower.layers)
        twin = copy.deepcopy(self.model)
        for layer in self.lower.layers:  # shared by all twins: they must take the packed rows that this one takes
            layer.self_attn.config = twin.config  # type: ignore[union-attr]
        config = PrefConfig(
            str(scratch),
            loss=setting.loss,
            max_steps=setting.steps,
            per_device_train_batch_size=BATCH,
            learning_rate=setting.learning_rate,
            lr_scheduler_type="linear",
            warmup_steps=min(5, setting.steps - 1),
            max_length=128,
            shared_prefix=True,
            reference_cache="off",  # `Remembered` serves all runs
            logging_steps=1,
            save_strategy="no",
            seed=setting.seed,
            report_to="none",
            disable_tqdm=True,
            use_cpu=not torch.accelerator.is_available(),
        )
        with contextlib.redirect_stdout(io.StringIO()):  # the check of the data, the same in every run
            trainer = PrefTrainer(
                twin,
                args=config,
                reference=Remembered(known=self.known),
                train_dataset=flip_labels(self.train, setting.flips, setting.seed),
                processing_class=self.tokenizer,
                # The frozen layers are one level deeper, where the pattern does not reach.
                peft_config=LoraConfig(
                    r=16,
                    lora_alpha=32,
                    target_modules=r"model\.layers\.\d+\.self_attn\.[qv]_proj",
                    task_type="CAUSAL_LM",
                ),
            )
            for callback in (PrinterCallback, ProgressCallback):
                trainer.remove_callback(callback)
            trainer.train()
        model = trainer.accelerator.unwrap_model(trainer.model).eval()
        names = {name for name, weight in model.named_parameters() if weight.requires_grad}
        expected = 4 * setting.train_layers
        assert len(names) == expected, f"{len(names)} trained matrices, not {expected}, above {layers} frozen layers"
        keep = ("step", "loss", "rewards/margins", "logps/chosen_change", "displacement", "grad_norm")
        log = [{key: float(row[key]) for key in keep if key in row} for row in trainer.state.log_history]
        return model, [row for row in log if "loss" in row]

    def _sampled(self, model: Any, setting: Setting, prompts: list[str]) -> dict[str, Any]:
        repeated = [prompt for prompt in prompts for _ in range(setting.samples)]
        texts = sample(model, self.tokenizer, repeated, setting.seed)
        self.lower.remembers = False  # these texts never come again
        try:
            distance = divergence(model, self.model, self.tokenizer, repeated, texts)
        finally:
            self.lower.remembers = True
        return {
            "gold": gold_rewards(texts),
            "kl_policy_ref": distance,
            "samples": texts,
        }


@torch.no_grad()
def next_tokens(
    model: Any, tokenizer: Any, prompts: list[str], completions: list[str], batch: int = 16
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """For every completion log-probabilities, nats, (tokens, vocabulary), and its tokens, the end of text with them."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    for start in range(0, len(prompts), batch):
        part = range(start, min(start + batch, len(prompts)))
        heads = [len(tokenizer(prompts[i])["input_ids"]) for i in part]
        wholes = [tokenizer(prompts[i] + completions[i])["input_ids"] + [tokenizer.eos_token_id] for i in part]
        width = max(map(len, wholes))
        ids = torch.tensor([whole + [tokenizer.pad_token_id] * (width - len(whole)) for whole in wholes])
        real = torch.tensor([[1] * len(whole) + [0] * (width - len(whole)) for whole in wholes])
        ids, real = ids.to(inner.device), real.to(inner.device)
        hidden = inner.model(input_ids=ids, attention_mask=real, use_cache=False).last_hidden_state
        for row, (head, whole) in enumerate(zip(heads, wholes, strict=True)):
            logits = inner.lm_head(hidden[row, head - 1 : len(whole) - 1]).float()
            yield logits.log_softmax(-1), ids[row, head : len(whole)]


def token_logps(model: Any, tokenizer: Any, prompts: list[str], completions: list[str]) -> list[np.ndarray]:
    """Log-probability of every token of each completion and of the end of text, nats."""
    return [
        logps.gather(-1, tokens[:, None])[:, 0].double().cpu().numpy()
        for logps, tokens in next_tokens(model, tokenizer, prompts, completions)
    ]


def divergence(model: Any, other: Any, tokenizer: Any, prompts: list[str], completions: list[str]) -> float:
    """KL(model || other) of the next token, summed over the vocabulary: nats, mean over the completions' tokens.

    The usual estimates, which look at the completions' own tokens alone, would not do: completions are cut to whole
    sentences, so that their end of text was not sampled. A policy that has learned to end there would seem far away.
    """
    total, count = 0.0, 0
    texts = tokenizer, prompts, completions
    for (mine, _), (others, _) in zip(next_tokens(model, *texts), next_tokens(other, *texts), strict=True):
        total += (mine.exp() * (mine - others)).sum().item()
        count += len(mine)
    return total / count


def kept(file: Path, setting: Setting) -> dict[str, Any] | None:
    """The result of an earlier run of the same setting."""
    if not file.is_file():
        return None
    found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return found if found["setting"] == asdict(setting) else None


def keep(file: Path, found: dict[str, Any]) -> None:
    """Write a result, atomically."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, found)
