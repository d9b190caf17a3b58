"""What goes into a soup: folders, Hub ids and adapters, found, read and shown to fit together."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..._errors import CheckpointError
from ..._files import check_regular, exists, explain, read_json
from ._compatible import compare_configs, compare_tokenizers, has_tokenizer
from ._lora import Adapter, check_shapes, is_adapter
from ._safetensors import AVERAGED, Entry, Weights, pieces, weights_fingerprint

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?(@[\w./-]+)?")
_HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.tiktoken", "merges.txt", "vocab.txt", "*.py"]
_SHOWN = 4


@dataclass
class Ingredient:
    """A model to be averaged: a checkpoint, or a base model with an adapter on it.

    Attributes:
        name: As the user gave it.
        folder: Where it lies.
        model: The folder of the whole model: `folder`, or the adapter's base.
        weights: The tensors in `model`.
        adapter: The adapter, if it is one.
    """

    name: str
    folder: Path
    model: Path
    weights: Weights
    adapter: Adapter | None = None
    _fingerprint: str | None = field(default=None, repr=False)

    @property
    def tokenizer(self) -> Path | None:
        """The folder with its tokenizer: its own, else its base's; None if neither has one."""
        return next((folder for folder in (self.folder, self.model) if has_tokenizer(folder)), None)

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of its weights: of the tensors, or of an adapter's tensors and its base's."""
        if self._fingerprint is None:
            own = weights_fingerprint(self.model)
            if self.adapter is not None:
                parts = [own, self.adapter.fingerprint()]
                own = hashlib.sha256("\n".join(parts).encode()).hexdigest()
            self._fingerprint = own
        return self._fingerprint


def find_ingredients(names: Sequence[str | os.PathLike[str]], base: str | None = None) -> list[Ingredient]:
    """Read the headers of all ingredients and show that they can be averaged.

    Args:
        names: Folders, Hub ids (`org/name`, `org/name@revision`), or folders and ids of LoRA adapters.
        base: The model under all adapters, where it is not the one that they name.

    Raises:
        CheckpointError: One cannot be read, or they do not fit together: every difference is listed.
    """
    if isinstance(names, str) or not names:
        raise CheckpointError(f"`ingredients` must be a list of at least one model (got {names!r}).")
    read: dict[Path, Weights] = {}
    found = [_find(os.fspath(name), base, read) for name in names]
    _drop_tied_copies(found)
    differences = list(dict.fromkeys(_differences(found)))
    if differences:
        lines = "".join(f"\n  - {difference}" for difference in differences)
        raise CheckpointError(f"These models cannot be averaged, because they are not of one kind:{lines}")
    return found


def resolve(name: str) -> Path:
    """The folder that a path or a Hub id names; a Hub id is downloaded unless the cache has it.

    Raises:
        CheckpointError: There is no such folder, and no such model on the Hub that can be reached.
    """
    path = Path(name).expanduser()
    if exists(path):
        if not path.is_dir():
            raise CheckpointError(f"An ingredient must be a folder or a Hub id, but `{name}` is a file.")
        check_regular(path)
        return path
    if not _HUB_ID.fullmatch(name):
        raise CheckpointError(f"There is no folder `{name}`.")
    # Imported here: averaging folders needs nothing of the Hub's client.
    from huggingface_hub import snapshot_download

    hub_id, _, revision = name.partition("@")
    try:
        return Path(snapshot_download(hub_id, revision=revision or None, allow_patterns=_HUB_FILES))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(
            f"`{name}` is no folder here, and the Hub did not give a model of that name (are you offline? does it need "
            f"a login?). The Hub's client said: {reason[0]}"
        ) from error


def _find(name: str, base: str | None, read: dict[Path, Weights]) -> Ingredient:
    folder = resolve(name)
    try:
        if not is_adapter(folder):
            return Ingredient(name, folder, folder, _weights(folder, read))
        adapter = Adapter(folder)
        under = adapter.base if base is None else base
        model = resolve(under)
        if is_adapter(model):
            raise CheckpointError(f"The adapter `{name}` lies on another adapter, `{under}`. Merge that one first.")
        weights = _weights(model, read)
        _drop_copies_of_the_base(adapter, weights)
        return Ingredient(name, folder, model, weights, adapter)
    except OSError as error:
        raise CheckpointError(f"Cannot read `{folder}`: {explain(error)}.") from None


def _weights(folder: Path, read: dict[Path, Weights]) -> Weights:
    """The tensors of a whole model, read once however many adapters lie on it."""
    if not exists(folder / "config.json"):
        raise CheckpointError(f"`{folder}` is no checkpoint: it holds no `config.json`.")
    key = Path(os.path.realpath(folder))
    if key not in read:
        if read_json(folder / "config.json").get("quantization_config"):
            raise CheckpointError(
                f"`{folder}` is quantised: its stored numbers are codes, and codes have no average. "
                "Average the models from before the quantisation."
            )
        read[key] = Weights(folder)
    return read[key]


def _differences(found: list[Ingredient]) -> Iterable[str]:
    for one in found:
        if one.adapter is not None:
            shapes = {name: entry.shape for name, entry in one.weights.entries.items()}
            yield from check_shapes(one.adapter, shapes, str(one.model))
    first = found[0]
    for other in found[1:]:
        pair = f"({first.name} | {other.name})"
        if first.model != other.model:
            yield from (f"{line} {pair}" for line in compare_configs(first.model, other.model))
            yield from (f"{line} {pair}" for line in _compare_tensors(first.weights, other.weights))
        left, right = first.tokenizer, other.tokenizer
        if left is not None and right is not None and left != right:
            yield from (f"{line} {pair}" for line in compare_tokenizers(left, right))


def _compare_tensors(left: Weights, right: Weights) -> Iterable[str]:
    ours, theirs = left.entries, right.entries
    for only, side in ((ours.keys() - theirs.keys(), "first"), (theirs.keys() - ours.keys(), "second")):
        if only:
            yield f"tensors that only the {side} has: {_some(only)}"
    shapes = [f"{name} {list(ours[name].shape)} | {list(theirs[name].shape)}" for name in _reshaped(ours, theirs)]
    if shapes:
        yield f"shapes: {_some(shapes)}"
    kinds = [
        f"{name} {ours[name].dtype} | {theirs[name].dtype}"
        for name in sorted(ours.keys() & theirs.keys())
        if (ours[name].dtype in AVERAGED) != (theirs[name].dtype in AVERAGED)
    ]
    if kinds:
        yield f"types: {_some(kinds)}"


def _reshaped(ours: dict[str, Entry], theirs: dict[str, Entry]) -> list[str]:
    return [name for name in sorted(ours.keys() & theirs.keys()) if ours[name].shape != theirs[name].shape]


def _some(items: Iterable[str]) -> str:
    listed = sorted(items)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more


def _drop_tied_copies(found: list[Ingredient]) -> None:
    """Forget tensors that some models store twice because two layers share them, where others store them once.

    A copy is recognised by its bytes, which needs no knowledge of the architecture.
    """
    common = set.intersection(*(set(one.weights.entries) for one in found))
    for weights in {id(one.weights): one.weights for one in found}.values():
        for name in sorted(weights.entries.keys() - common):
            entry = weights.entries[name]
            twins = (weights.entries[other] for other in sorted(common))
            if any(_same(weights, twin, weights, entry) for twin in twins):
                del weights.entries[name]


def _drop_copies_of_the_base(adapter: Adapter, weights: Weights) -> None:
    """Forget whole layers that PEFT saved with an adapter although they were not trained (embeddings, by default)."""
    for name, entry in list(adapter.replaced.items()):
        if name in weights.entries and _same(weights, weights.entries[name], adapter.weights, entry):
            del adapter.replaced[name]


def _same(left: Weights, ours: Entry, right: Weights, theirs: Entry) -> bool:
    if (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
        return False
    other = memoryview(bytearray(min(ours.size, 1 << 20)))
    for number, piece in enumerate(pieces(left, ours)):
        right.read_into(theirs, number << 20, other[: len(piece)])
        if piece != other[: len(piece)]:
            return False
    return True
