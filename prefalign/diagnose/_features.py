"""Features of completions: a model's hidden states at a middle layer, averaged over the completion's tokens.

Shapes: B rows of a batch, T tokens, D hidden units. A row is a prompt with one of its completions.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from .._errors import CheckpointError, DataError
from ._mixture import Array
from ._write import write_atomically

if TYPE_CHECKING:
    from torch import nn

# Pairs per file of the cache: what a killed run loses, and the scope in which rows are sorted by length.
BLOCK = 256
_TOKENS = 4096
_FORMAT = 1


class _Reached(Exception):
    """The layer that is read has been computed; the layers above are not needed."""


class Encoder:
    """A model that gives completions their features.

    Args:
        model: A causal language model, its folder, or its name on the Hub.
        tokenizer: Its tokenizer; None loads the one saved with it.
        layer: Whose output is read, 1 to the number of layers; None is the middle one.
        max_length: Tokens of prompt and completion that are kept, from the start, >= 2.
        model_init_kwargs: Options of `from_pretrained`, such as a revision or a dtype, for a model that is named.

    Attributes:
        identity: What the features depend on besides the texts; None for a model that was given as an object.

    Raises:
        CheckpointError: The model cannot be loaded, or its layers cannot be found.
        DataError: An argument is out of range.
    """

    def __init__(
        self,
        model: str | nn.Module,
        tokenizer: Any = None,
        *,
        layer: int | None = None,
        max_length: int = 1024,
        model_init_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        if max_length < 2:
            raise DataError(f"`max_length` must be at least 2 (got {max_length}).")
        options = dict(model_init_kwargs or {})
        if layer is not None:
            _check_layer(layer, _count_layers(model, options))
        self.model, self.tokenizer = _load(model, tokenizer, options)
        layers = _layers_of(self.model)
        chosen = (len(layers) + 1) // 2 if layer is None else layer
        _check_layer(chosen, len(layers))
        self.layer, self.max_length = chosen, max_length
        self._module = layers[chosen - 1]
        self.identity: str | None = None
        if isinstance(model, str):
            # What is loaded otherwise is another model; without options the name is what it always was.
            told = [sorted((name, str(value)) for name, value in options.items())] if options else []
            self.identity = json.dumps([_FORMAT, _identify(model, self.model), chosen, max_length, *told])

    def encode(self, rows: Sequence[Mapping[str, str]], bar: Any = None) -> Array:
        """Features of texts with `prompt`, `chosen` and `rejected`: (rows, 2, D), chosen first.

        Raises:
            DataError: A completion has no token left within `max_length`; the row is named.
        """
        texts = [self._tokens(index, row, side) for index, row in enumerate(rows) for side in ("chosen", "rejected")]
        result: Array | None = None
        for batch in _batches([len(ids) for ids, _ in texts]):
            means_BD = self._means([texts[index] for index in batch])
            if result is None:
                result = np.empty((len(texts), means_BD.shape[1]))
            result[batch] = means_BD
            if bar is not None:
                bar.update(len(batch) / 2)
        assert result is not None
        return result.reshape(len(rows), 2, -1)

    def _tokens(self, index: int, row: Mapping[str, str], side: str) -> tuple[list[int], int]:
        """Token ids of prompt and completion, and where the completion starts."""
        prompt, ids = (self.tokenizer(text)["input_ids"] for text in (row["prompt"], row["prompt"] + row[side]))
        start = next((i for i, (a, b) in enumerate(zip(prompt, ids, strict=False)) if a != b), len(prompt))
        kept = ids[: self.max_length]
        if start >= len(kept):
            raise DataError(
                f"pair {index}: `{side}` has no token within `max_length` ({self.max_length}; the prompt has {start}). "
                "Raise `max_length`, or leave the pair out."
            )
        return kept, start

    def _means(self, batch: Sequence[tuple[list[int], int]]) -> Array:
        import torch

        width = max(len(ids) for ids, _ in batch)
        tokens_BT, mask_BT, scored_BT = (torch.zeros(len(batch), width, dtype=torch.long) for _ in range(3))
        for place, (ids, start) in enumerate(batch):
            tokens_BT[place, : len(ids)] = torch.tensor(ids)
            mask_BT[place, : len(ids)] = 1
            scored_BT[place, start : len(ids)] = 1
        device = next(self.model.parameters()).device
        found: list[torch.Tensor] = []

        def stop(module: Any, inputs: Any, output: Any) -> None:
            found.append(output[0] if isinstance(output, tuple) else output)
            raise _Reached

        handle = self._module.register_forward_hook(stop)
        try:
            with torch.no_grad():
                self.model(input_ids=tokens_BT.to(device), attention_mask=mask_BT.to(device), use_cache=False)
        except _Reached:
            pass
        finally:
            handle.remove()
        weights_BT = scored_BT.to(device).float()
        sums_BD = torch.einsum("btd,bt->bd", found[0].float(), weights_BT)
        means: Array = (sums_BD / weights_BT.sum(dim=1, keepdim=True)).cpu().double().numpy()
        return means


def pair_features(
    pairs: Any,
    model: str | nn.Module,
    tokenizer: Any = None,
    *,
    layer: int | None = None,
    max_length: int = 1024,
    cache: str | os.PathLike[str] | None = None,
    progress: bool = True,
    model_init_kwargs: Mapping[str, Any] | None = None,
) -> Array:
    """What a model makes of both completions of each pair, for `flip_rate`.

    One forward pass of the lower half of the model; the features are the hidden states of a middle layer, averaged
    over the completion's tokens.

    Args:
        pairs: A `datasets.Dataset` of pairs in one of TRL's layouts, plain or conversational.
        model: A causal language model, its folder, or its name on the Hub.
        tokenizer: Its tokenizer; None loads the one saved with it.
        layer: Whose output is read, 1 to the number of layers; None is the middle one.
        max_length: Tokens of prompt and completion that are kept, from the start.
        cache: Folder in which features are kept as safetensors, block by block, so that a run that was stopped goes on
            where it was; unused for a model that is given as an object.
        progress: Show a progress bar on stderr when it takes more than two seconds.
        model_init_kwargs: Options of `from_pretrained`, such as a revision or a dtype, for a model that is named.

    Returns:
        (pairs, 2, hidden units), chosen first.

    Raises:
        CheckpointError: The model cannot be loaded.
        DataError: A pair cannot be read, or an argument is out of range.
    """
    encoder = Encoder(model, tokenizer, layer=layer, max_length=max_length, model_init_kwargs=model_init_kwargs)
    trains = encoder.model.training  # a policy that is about to be trained, lent for a moment
    encoder.model.eval()
    try:
        return _pair_features(pairs, encoder, cache, progress)
    finally:
        encoder.model.train(trains)


def _pair_features(pairs: Any, encoder: Encoder, cache: str | os.PathLike[str] | None, progress: bool) -> Array:
    texts = _as_texts(pairs, encoder.tokenizer)
    blocks = []
    with tqdm(total=len(texts), desc="Reading pairs", unit=" pairs", delay=2, leave=False, disable=not progress) as bar:
        for first in range(0, len(texts), BLOCK):
            part = texts[first : first + BLOCK]
            file = None if cache is None else _file(Path(cache), encoder.identity, part)
            block = None if file is None else _read(file, len(part))
            if block is None:
                try:
                    block = encoder.encode(part, bar)
                except DataError as error:
                    raise DataError(f"in the pairs from {first} on, {error}") from None
                if file is not None:
                    _save(file, block)
            else:
                bar.update(len(part))
            blocks.append(block)
    return np.concatenate(blocks)


def _load(model: str | nn.Module, tokenizer: Any, options: dict[str, Any]) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not isinstance(model, str):
        if tokenizer is None:
            raise CheckpointError("`tokenizer` must be given with a model that is loaded already.")
        if options:
            raise CheckpointError("`model_init_kwargs` would have no effect: the model is loaded already.")
        return model, tokenizer
    import torch

    try:
        if tokenizer is None:
            shared = {name: options[name] for name in ("revision", "trust_remote_code") if name in options}
            tokenizer = AutoTokenizer.from_pretrained(model, **shared)
        loaded = AutoModelForCausalLM.from_pretrained(model, **{"dtype": "auto", **options})
    except Exception as error:  # a dozen kinds, by what is missing or damaged
        first = (str(error).strip().splitlines() or [""])[0]
        raise CheckpointError(
            f"`model` must be a folder with a causal language model, or one on the Hub (got {model!a}): "
            f"{type(error).__name__}: {first}"
        ) from None
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    return (loaded if "device_map" in options else loaded.to(device)).eval(), tokenizer


def _count_layers(model: str | nn.Module, options: Mapping[str, Any]) -> int | None:
    """The number of layers in the configuration, without loading weights; None if it cannot be read.

    What stands in the way of the configuration alone (a folder with an adapter has none) is left for loading to say.
    """
    from transformers import AutoConfig

    config: Any = options.get("config", model) if isinstance(model, str) else model.config
    if isinstance(config, str):
        try:
            config = AutoConfig.from_pretrained(config, **{key: options[key] for key in options if key != "config"})
        except Exception:  # a dozen kinds, as in `_load`
            return None
    count = getattr(config.get_text_config(), "num_hidden_layers", None)
    return count if isinstance(count, int) else None


def _check_layer(layer: int, count: int | None) -> None:
    if layer < 1 or (count is not None and layer > count):
        known = "at least 1" if count is None else f"between 1 and {count}, the model's layers"
        raise DataError(f"`layer` must be {known} (got {layer}).")


def _layers_of(model: Any) -> Any:
    """The list of a model's layers: the first module list that is as long as its config says."""
    import torch

    count = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    for module in model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == count:
            return module
    raise CheckpointError(f"No list of {count} layers can be found in a {type(model).__name__}.")


def _identify(name: str, model: Any) -> list[object]:
    """What changes when a checkpoint does: the Hub's commit, or names, sizes and times of a folder's weights."""
    commit = getattr(model.config, "_commit_hash", None)
    if commit or not os.path.isdir(name):
        return [name, commit]
    files = [file for file in sorted(Path(name).iterdir()) if file.suffix in (".safetensors", ".bin", ".json")]
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _as_texts(pairs: Any, tokenizer: Any) -> list[dict[str, str]]:
    """Prompts and completions as the trainer's own preparation makes them: templates applied, plain texts ended."""
    from trl import is_conversational, maybe_apply_chat_template, maybe_extract_prompt

    texts, eos = [], tokenizer.eos_token or ""
    for index, row in enumerate(pairs):
        kept = {key: row[key] for key in ("prompt", "chosen", "rejected", "tools") if row.get(key) is not None}
        try:
            made = maybe_apply_chat_template(maybe_extract_prompt(kept), tokenizer)
            end = "" if is_conversational(kept) else eos
            ended = {key: str(made[key]).removesuffix(end) + end for key in ("chosen", "rejected")}
            texts.append({"prompt": str(made["prompt"]), **ended})
        except Exception as error:  # templates are programs of their own and raise anything
            raise DataError(f"pair {index} cannot be read: {type(error).__name__}: {error}") from None
    return texts


def _batches(lengths: Sequence[int]) -> list[list[int]]:
    """Indices of texts of like length, at most `_TOKENS` tokens with padding in a batch."""
    batches: list[list[int]] = []
    for index in np.argsort(lengths, kind="stable"):
        if batches and lengths[index] * (len(batches[-1]) + 1) <= _TOKENS:
            batches[-1].append(int(index))
        else:
            batches.append([int(index)])
    return batches


def _file(cache: Path, identity: str | None, texts: Sequence[Mapping[str, str]]) -> Path | None:
    if identity is None:
        return None
    digest = hashlib.sha256(json.dumps([identity, list(texts)]).encode()).hexdigest()
    return cache / f"{digest[:32]}.safetensors"


def _read(file: Path, pairs: int) -> Array | None:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not file.is_file():
        return None
    try:
        block = load_file(file).get("features")
    except (SafetensorError, OSError):
        return None  # damaged: made anew
    if block is None or block.ndim != 3 or block.shape[:2] != (pairs, 2):
        return None
    restored: Array = block.astype(np.float64)
    return restored


def _save(file: Path, block: Array) -> None:
    from safetensors.numpy import save

    write_atomically(file, save({"features": block.astype(np.float32)}))
