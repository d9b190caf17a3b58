"""LoRA adapters as what they do to the weights: products B·A, which may be averaged, while A and B apart may not."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ..._errors import CheckpointError
from ..._files import exists, read_json
from ._safetensors import Entry, Weights, digest, pieces, read_header

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<kind>embedding_)?(?P<factor>[AB])(?:\.weight)?$")
# Options under which the stored factors are not the whole change of a weight, or not of the base that is named.
_REFUSED = (
    "use_dora",
    "lora_bias",
    "use_qalora",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "velora_config",
    "monteclora_config",
    "alora_invocation_tokens",
)
_PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal", "eva", "lora_ga_stable")


@dataclass(frozen=True)
class Factors:
    """The change of one weight: `scale` times the product of the factors, in the layout that `kind` says.

    Attributes:
        module: Name of the layer in the base model.
        first: A, (rank, inputs); for an embedding (rank, vocabulary).
        second: B, (outputs, rank).
        scale: What PEFT multiplies B·A by.
        transposed: The weight is stored as (inputs, outputs): embeddings, and layers with `fan_in_fan_out`.
        embedding: The factors are stored under PEFT's names for embeddings.
    """

    module: str
    first: Entry
    second: Entry
    scale: float
    transposed: bool
    embedding: bool

    @property
    def rank(self) -> int:
        """The inner dimension of the product."""
        return self.first.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the weight that is changed."""
        outputs, inputs = self.second.shape[0], self.first.shape[1]
        return (inputs, outputs) if self.transposed else (outputs, inputs)


class Adapter:
    """A saved LoRA adapter.

    Args:
        folder: Holds `adapter_config.json` and `adapter_model.safetensors`.

    Raises:
        CheckpointError: It cannot be read, or is of a kind whose average is not the average of its products.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = read_json(folder / CONFIG)
        self._check_kind()
        file = folder / WEIGHTS
        if not exists(file):
            hint = " Its `adapter_model.bin` is a pickle, which is never opened." * exists(folder / "adapter_model.bin")
            raise CheckpointError(f"The adapter `{folder}` holds no `{WEIGHTS}`.{hint}")
        self.weights = Weights(folder, read_header(file))
        self.factors: dict[str, Factors] = {}
        self.replaced: dict[str, Entry] = {}
        self._sort_entries()

    @property
    def base(self) -> str:
        """Folder or Hub id of the model that the adapter changes."""
        name = self.config.get("base_model_name_or_path")
        if not isinstance(name, str) or not name:
            raise CheckpointError(f"`{self.folder / CONFIG}` does not say `base_model_name_or_path`. Pass `base=`.")
        return name

    @cached_property
    def targets(self) -> frozenset[str]:
        """The layers that are changed."""
        return frozenset(factors.module for factors in self.factors.values())

    def fingerprint(self) -> str:
        """The SHA-256 (hex) of its tensors and of what its configuration multiplies them by."""
        tensors = digest((entry, pieces(self.weights, entry)) for entry in self.weights.entries.values())
        scales = [(name, factors.scale, factors.transposed) for name, factors in sorted(self.factors.items())]
        return hashlib.sha256(f"{tensors}\n{json.dumps(scales)}".encode()).hexdigest()

    def product(self, factors: Factors) -> tuple[torch.Tensor, torch.Tensor]:
        """Two float64 matrices whose product, times `factors.scale`, is added to the weight."""
        first = self.weights.read(factors.first).double()
        second = self.weights.read(factors.second).double()
        return (first.T, second.T) if factors.transposed else (second, first)

    def _check_kind(self) -> None:
        kind = self.config.get("peft_type")
        if kind != "LORA":
            raise CheckpointError(
                f"Ingredients may be LoRA adapters (got the {kind!r} adapter `{self.folder}`). "
                "Merge it into its base model first."
            )
        odd = [name for name in _REFUSED if self.config.get(name)]
        if odd:
            raise CheckpointError(
                f"The adapter `{self.folder}` uses {', '.join(f'`{name}`' for name in odd)}, so that its change of the "
                "weights is not a plain product B·A. Merge it into its base model first (`merge_and_unload`)."
            )
        start = self.config.get("init_lora_weights")
        if start not in _PLAIN_STARTS:
            raise CheckpointError(
                f"The adapter `{self.folder}` began as {start!r}, which also changes the base model. "
                "Save it with PEFT's `path_initial_model_for_weight_conversion`, or merge it first."
            )

    def _sort_entries(self) -> None:
        found: dict[str, dict[str, tuple[Entry, bool]]] = {}
        for name, entry in self.weights.entries.items():
            plain = name.removeprefix(_PREFIX).replace(".base_layer.", ".")
            match = _FACTOR.match(plain)
            if match:
                found.setdefault(match["module"], {})[match["factor"]] = (entry, match["kind"] is not None)
            elif "lora_" in plain:
                raise CheckpointError(f"`{self.folder / WEIGHTS}` has the tensor `{name}`, which has no known meaning.")
            else:
                self.replaced[plain] = entry
        for module, pair in found.items():
            if set(pair) != {"A", "B"}:
                raise CheckpointError(f"`{self.folder / WEIGHTS}` has only one of the factors A and B of `{module}`.")
            (first, embedding), (second, _) = pair["A"], pair["B"]
            if len(first.shape) != 2 or len(second.shape) != 2 or first.shape[0] != second.shape[1]:
                raise CheckpointError(
                    f"The factors of `{module}` in `{self.folder / WEIGHTS}` must be matrices that fit together "
                    f"(got A {list(first.shape)} and B {list(second.shape)})."
                )
            transposed = embedding or bool(self.config.get("fan_in_fan_out"))
            scale = self._scale(module, first.shape[0])
            self.factors[f"{module}.weight"] = Factors(module, first, second, scale, transposed, embedding)
        if not self.factors and not self.replaced:
            raise CheckpointError(f"The adapter `{self.folder}` changes nothing: it holds no factors.")

    def _scale(self, module: str, rank: int) -> float:
        patterns = self.config.get("alpha_pattern") or {}
        assert isinstance(patterns, dict)
        # PEFT takes the first pattern that matches the end of the layer's name.
        try:
            key = next((key for key in patterns if re.match(rf"(.*\.)?({key})$", module)), None)
        except re.error as error:
            raise CheckpointError(f"`alpha_pattern` in `{self.folder / CONFIG}` cannot be read: {error}.") from None
        alpha: Any = self.config.get("lora_alpha", 8) if key is None else patterns[key]
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
            raise CheckpointError(
                f"`lora_alpha` in `{self.folder / CONFIG}` must be a finite number (got {alpha!a:.40} for `{module}`)."
            )
        return float(alpha) / (math.sqrt(rank) if self.config.get("use_rslora") else rank)


@dataclass(frozen=True)
class SummedRank:
    """Adapters of one base model as one adapter, whose product is the weighted sum of theirs.

    With `A = [A1; A2; …]` and `B = [w1 s1 B1, w2 s2 B2, …]` the product B·A is the sum of `w s B·A`. The scale of the
    new adapter is 1: `lora_alpha` equals the rank, layer by layer where ranks differ.

    Args:
        adapters: The adapters with their weights.
    """

    adapters: tuple[tuple[float, Adapter], ...]

    def tensors(self) -> dict[str, torch.Tensor]:
        """The new adapter's tensors under PEFT's names; 16-bit factors are kept in float32, as PEFT loads them."""
        made = {}
        for name in dict.fromkeys(name for _, adapter in self.adapters for name in adapter.factors):
            parts = [(weight, adapter, adapter.factors[name]) for weight, adapter in self._having(name)]
            first = torch.cat([adapter.weights.read(f.first).double() for _, adapter, f in parts], dim=0)
            second = torch.cat(
                [w * f.scale * adapter.weights.read(f.second).double() for w, adapter, f in parts], dim=1
            )
            wide = parts[0][2].first.dtype == "F64"
            dtype = torch.float64 if wide else torch.float32
            kind, end = ("embedding_", "") if parts[0][2].embedding else ("", ".weight")
            module = _PREFIX + parts[0][2].module
            made[f"{module}.lora_{kind}A{end}"] = first.to(dtype).contiguous()
            made[f"{module}.lora_{kind}B{end}"] = second.to(dtype).contiguous()
        return made | self._replaced()

    def config(self) -> dict[str, object]:
        """The new adapter's configuration."""
        ranks: dict[str, int] = {}
        for _, adapter in self.adapters:
            for factors in adapter.factors.values():
                ranks[factors.module] = ranks.get(factors.module, 0) + factors.rank
        usual = max(ranks.values(), default=1)
        # A pattern is a regular expression over the end of a layer's name.
        odd = {re.escape(module): rank for module, rank in ranks.items() if rank != usual}
        config = dict(self.adapters[0][1].config)
        config |= {
            "r": usual,
            "lora_alpha": usual,
            "use_rslora": False,
            "rank_pattern": odd,
            "alpha_pattern": dict(odd),
        }
        config |= {"init_lora_weights": True, "inference_mode": True}
        if len({adapter.targets for _, adapter in self.adapters}) > 1:
            config |= {"target_modules": sorted(ranks), "layers_to_transform": None, "layers_pattern": None}
            config |= {"exclude_modules": None}
        return config

    def _having(self, name: str) -> list[tuple[float, Adapter]]:
        return [(weight, adapter) for weight, adapter in self.adapters if name in adapter.factors]

    def _replaced(self) -> dict[str, torch.Tensor]:
        names = [set(adapter.replaced) for _, adapter in self.adapters]
        differing = sorted(set().union(*names) - names[0].intersection(*names))
        if differing:
            raise CheckpointError(
                "The adapters must replace the same layers (`modules_to_save`, `bias`) to be written as one adapter "
                f"(they differ in {differing[:4]}). Merge them into the base: `merge=True`, or `--merge`."
            )
        made = {}
        for name in sorted(names[0]):
            tensors = [(weight, adapter.weights.read(adapter.replaced[name])) for weight, adapter in self.adapters]
            total = torch.stack([weight * tensor.double() for weight, tensor in tensors]).sum(0)
            adapted = any(name in adapter.factors for _, adapter in self.adapters)
            stored = f"{name.removesuffix('.weight')}.base_layer.weight" if adapted else name
            made[_PREFIX + stored] = total.to(tensors[0][1].dtype)
        return made


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter rather than a whole model."""
    return exists(folder / CONFIG) and not exists(folder / "config.json")


def check_shapes(adapter: Adapter, shapes: Mapping[str, tuple[int, ...]], base: str) -> list[str]:
    """What of an adapter does not fit the base model, in words."""
    lost = [name for name in (*adapter.factors, *adapter.replaced) if name not in shapes]
    wrong = [
        f"{name} {list(factors.shape)} | {list(shapes[name])}"
        for name, factors in adapter.factors.items()
        if name in shapes and factors.shape != shapes[name]
    ]
    found = []
    if lost:
        tied = " (tied to another weight there?)" if any("lm_head" in name for name in lost) else ""
        found.append(f"`{adapter.folder}` changes layers that `{base}` does not store, such as `{lost[0]}`{tied}")
    if wrong:
        found.append(f"`{adapter.folder}` changes weights of another shape than `{base}` has: {wrong[0]}")
    return found
