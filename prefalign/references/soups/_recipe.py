"""What a soup is made of, and how it becomes a standard checkpoint."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from safetensors.torch import save_file

from ..._errors import CheckpointError
from ..._files import copy_file, new_folder, read_json, sync, write_file
from ..weights import (
    CONFIG,
    MAX_SHARD,
    WEIGHTS,
    Adapter,
    Coefficients,
    Ingredient,
    SummedRank,
    write_blend,
)

# What makes a folder with weights a checkpoint. Not: optimizer and trainer states, cards, what other tools left.
_COMPANIONS = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
)
_TOKENIZERS = _COMPANIONS[1:]
RECORD = "soup.json"
Way = Literal["average", "greedy", "slerp", "learned"]


@dataclass(frozen=True)
class SoupReport:
    """What a soup is made of.

    Attributes:
        out: The checkpoint's folder.
        way: How the weights were chosen.
        ingredients: The models, as they were named.
        weights: Their weights, summing to 1.
        kind: "checkpoint", or "adapter" where the result is one LoRA adapter of summed rank.
        notes: What the way chose and what was measured, a sentence each.
    """

    out: Path
    way: str
    ingredients: tuple[str, ...]
    weights: tuple[float, ...]
    kind: str
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = " + ".join(f"{w:.6g}·{name}" for w, name in zip(self.weights, self.ingredients, strict=True) if w)
        return "\n".join([f"{self.out} ({self.kind}, {self.way}) = {parts}", *self.notes])


@dataclass(frozen=True)
class Recipe:
    """The outcome of a way: weights of the whole models, or of each tensor, and sentences about the choice."""

    weights: tuple[float, ...]
    notes: tuple[str, ...] = ()
    coefficients: Coefficients | None = None


def check_weights(weights: Sequence[float] | None, count: int) -> tuple[float, ...]:
    """The weights of a soup of `count` models: equal ones if None.

    Raises:
        CheckpointError: They are not `count` non-negative numbers that sum to 1.
    """
    if weights is None:
        return (1.0 / count,) * count
    numbers = list(weights)
    if not all(isinstance(w, int | float) and not isinstance(w, bool) and math.isfinite(w) and w >= 0 for w in numbers):
        raise CheckpointError(f"`weights` must be numbers, 0 or more (got {numbers}).")
    if len(numbers) != count:
        raise CheckpointError(f"`weights` must have one number per ingredient: {count} (got {len(numbers)}).")
    total = sum(numbers)  # `fsum` fails where huge numbers overflow
    total = math.fsum(numbers) if math.isfinite(total) else total
    if abs(total - 1) > 1e-6:
        share = f" Divided by their sum they are {[round(w / total, 6) for w in numbers]}." if total > 0 else ""
        raise CheckpointError(f"`weights` must sum to 1 (got {numbers}, which sum to {total:g}).{share}")
    return tuple(w / total for w in numbers)


def write_soup(
    ingredients: Sequence[Ingredient],
    recipe: Recipe,
    out: str | os.PathLike[str],
    way: str = "average",
    merge: bool = False,
    max_shard_size: int = MAX_SHARD,
    progress: bool = True,
) -> SoupReport:
    """Write the soup that a recipe describes; the arguments are those of `soup`."""
    models = {one.model.resolve() for one in ingredients}
    adapters = [one.adapter for one in ingredients if one.adapter is not None]
    as_adapter = not merge and len(adapters) == len(ingredients) and len(models) == 1 and recipe.coefficients is None
    if not as_adapter:
        _check_mergeable(ingredients)
    folder = Path(out)
    report = SoupReport(
        folder,
        way,
        tuple(one.name for one in ingredients),
        recipe.weights,
        "adapter" if as_adapter else "checkpoint",
        recipe.notes,
    )
    with new_folder(folder) as partial:
        write_file(partial / RECORD, json.dumps(_record(report), indent=2, ensure_ascii=False) + "\n")
        if as_adapter:
            _write_adapter(partial, _folded(adapters, recipe.weights))
        else:
            coefficients = recipe.coefficients or (lambda name: recipe.weights)
            write_blend(partial, ingredients, coefficients, max_shard_size, progress)
        _copy_companions(partial, ingredients, as_adapter)
    return report


def _check_mergeable(ingredients: Sequence[Ingredient]) -> None:
    for one in ingredients:
        if one.adapter is None or not read_json(one.model / "config.json").get("tie_word_embeddings"):
            continue
        if any(factors.embedding for factors in one.adapter.factors.values()):
            raise CheckpointError(
                f"The adapter `{one.name}` changes the input embedding of a model whose output layer is tied to it: "
                "merged, it would change both. Average adapters of one base, without `merge`."
            )


def _record(report: SoupReport) -> dict[str, object]:
    record = asdict(report)
    del record["out"]
    return {"made_by": "prefalign soup", **record}


def _folded(adapters: Sequence[Adapter], weights: Sequence[float]) -> list[tuple[float, Adapter]]:
    """Equal adapters as one with the sum of their weights, so that the soup of a model with itself is itself."""
    groups: dict[str, tuple[list[float], Adapter]] = {}
    for weight, adapter in zip(weights, adapters, strict=True):
        if weight:
            groups.setdefault(adapter.fingerprint(), ([], adapter))[0].append(weight)
    return [(math.fsum(numbers), adapter) for numbers, adapter in groups.values()]


def _write_adapter(folder: Path, parts: list[tuple[float, Adapter]]) -> None:
    if len(parts) == 1 and parts[0][0] == 1.0:
        copy_file(parts[0][1].folder / WEIGHTS, folder / WEIGHTS)
        copy_file(parts[0][1].folder / CONFIG, folder / CONFIG)
        return
    summed = SummedRank(tuple(parts))
    save_file(summed.tensors(), folder / WEIGHTS, metadata={"format": "pt"})
    sync(folder / WEIGHTS)
    write_file(folder / CONFIG, json.dumps(summed.config(), indent=2) + "\n")


def _copy_companions(folder: Path, ingredients: Sequence[Ingredient], as_adapter: bool) -> None:
    """Configuration and code from the first model, the tokenizer from the first ingredient that has one."""
    tokenizer = next((one.tokenizer for one in ingredients if one.tokenizer is not None), None)
    model = ingredients[0].model
    sources: dict[str, Path] = {}
    if tokenizer is not None and not (as_adapter and tokenizer == model):
        sources |= {name: tokenizer / name for name in _TOKENIZERS}
    if not as_adapter:
        sources |= {file.name: file for file in model.glob("*.py")}
        sources["generation_config.json"] = model / "generation_config.json"
    for name, source in sources.items():
        if source.is_file():
            copy_file(source, folder / name)
    if not as_adapter:
        # Last: without it nothing takes the folder for a model.
        copy_file(model / "config.json", folder / "config.json")
    sync(folder)
