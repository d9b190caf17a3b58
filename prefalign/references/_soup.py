"""Soups: averages of models, as a checkpoint on disk and as a reference for training (SALSA)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from filelock import FileLock

from .._errors import CheckpointError
from .._files import read_json
from ._base import Policy
from ._parse import register_reference
from .fixed import Fixed
from .soups import Recipe, check_weights, write_soup
from .weights import Ingredient, check_tokenizer, find_ingredients


@register_reference("soup")
@dataclass
class Soup(Fixed):
    """The average of several models as the reference, while the policy starts where it starts (SALSA).

    The average is written once, under `folder`, and loaded like any checkpoint, in the policy's dtype and sharding.
    With LoRA, too, it is a second whole model: adapters are merged into their base, the policy keeps its own adapter.

    Args:
        ingredients: Folders with checkpoints or LoRA adapters, or Hub ids.
        weights: One non-negative number per ingredient, summing to 1; equal by default.
        folder: Where soups are kept. Default: `$PREFALIGN_CACHE/soups`, or `~/.cache/prefalign/soups`.

    Raises:
        CheckpointError: The weights make no sense; later, before training: the models do not fit together, or not to
            the policy.

    Example:
        >>> Soup(["sft-a", "sft-b"], weights=[0.5, 0.5]).expression
        "soup('sft-a', 'sft-b', weights=[0.5, 0.5])"

    Source: Chegini et al. 2024, arXiv:2411.01798; there with PPO, here with any loss that takes a reference.
    """

    ingredients: Sequence[str | os.PathLike[str]]
    weights: Sequence[float] | None = None
    folder: str | os.PathLike[str] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.ingredients, str | os.PathLike) or not self.ingredients:
            raise CheckpointError(f"`ingredients` must be a list of at least one model (got {self.ingredients!r}).")
        self.ingredients = tuple(os.fspath(name) for name in self.ingredients)
        self.weights = check_weights(self.weights, len(self.ingredients))

    @property
    def identity(self) -> str:
        """The weights, names and fingerprints (SHA-256 of all tensors) of the ingredients."""
        parts = [
            f"{weight:.6g}·{one.name} (sha256 {one.fingerprint[:16]})"
            for weight, one in zip(self._shares, self._found, strict=True)
        ]
        return f"soup: {' + '.join(parts)}"

    @property
    def expression(self) -> str:
        names = ", ".join(map(repr, self.ingredients))
        return f"soup({names}, weights={list(self._shares)!r})"

    def check(self, policy: Policy) -> None:
        for one in self._found:
            theirs = read_json(one.model / "config.json")
            text = theirs.get("text_config")
            size = (text if isinstance(text, dict) else theirs).get("vocab_size")
            ours = policy.config.get_text_config().vocab_size
            if size != ours:
                raise CheckpointError(
                    f"Policy and reference must share a vocabulary: the policy has {ours} tokens, `{one.name}` has "
                    f"{size}. Choose ingredients from the policy's family."
                )
            if one.tokenizer is not None:
                check_tokenizer(str(one.tokenizer), policy.processing_class)

    def source(self, policy: Policy) -> str:
        return str(self.write())

    def write(self) -> Path:
        """The folder with the soup as a whole model; written only where it is not there yet.

        Processes of one machine wait for the one that writes.
        """
        found = self._found
        key = hashlib.sha256(
            "\n".join(f"{w!r} {one.fingerprint}" for w, one in zip(self._shares, found, strict=True)).encode()
        ).hexdigest()[:32]
        target = _cache(self.folder) / key
        with _alone(target):
            if not target.exists():
                write_soup(found, Recipe(self._shares), target, merge=True)
        return target

    @property
    def _shares(self) -> tuple[float, ...]:
        return tuple(self.weights or ())

    @cached_property
    def _found(self) -> list[Ingredient]:
        return find_ingredients(self.ingredients)


def _cache(folder: str | os.PathLike[str] | None) -> Path:
    if folder is not None:
        return Path(folder)
    root = os.environ.get("PREFALIGN_CACHE")
    return (Path(root) if root else Path.home() / ".cache" / "prefalign") / "soups"


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """One process of this machine at a time; the lock goes with its process, however that ends."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target.with_name(f"{target.name}.lock"))
        lock.acquire()
    except OSError as error:
        raise CheckpointError(
            f"Soups are kept in `{target.parent}`, which cannot be written: {error.strerror}. "
            "Set PREFALIGN_CACHE, or pass `folder`."
        ) from error
    try:
        yield
    finally:
        lock.release()
