"""Soups: averages of models, as a checkpoint on disk and as a reference for training (SALSA)."""

from __future__ import annotations

import fcntl
import hashlib
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from .._errors import CheckpointError, did_you_mean
from ._base import Policy
from ._fixed import _Fixed, check_tokenizer
from ._ingredients import Ingredient, find_ingredients
from ._recipe import Recipe, SoupReport, Way, check_weights, write_soup
from ._shard_writer import MAX_SHARD
from ._shards import read_json

if TYPE_CHECKING:
    from ._held_out import Row
    from ._path import Landscape

WAYS = ("average", "greedy", "slerp", "learned")


def soup(
    ingredients: Sequence[str | os.PathLike[str]],
    *,
    out: str | os.PathLike[str],
    weights: Sequence[float] | None = None,
    way: Way = "average",
    data: Iterable[Row] | None = None,
    base: str | None = None,
    merge: bool = False,
    max_shard_size: int = MAX_SHARD,
    progress: bool = True,
) -> SoupReport:
    """Average models and write a standard checkpoint.

    Tensors are streamed from safetensors files and summed in float64, in memory that does not grow with the model
    (with `data`, the models are also loaded, to be measured). Tensors of integers and buffers are copied from the
    first ingredient, like the configuration; each tensor keeps the type that it has there. `out` appears when it is
    complete, or not at all.

    LoRA adapters count as the products B·A that they add to their base. Adapters of one base become one adapter, of
    the sum of their ranks, unless `merge`; where whole models are among the ingredients, everything is merged.

    Args:
        ingredients: Folders with checkpoints or LoRA adapters, or Hub ids (`org/name`, `org/name@revision`).
        out: The folder to write; it must not exist, or be empty.
        weights: One number from 0 on per ingredient, summing to 1. Default: equal. For "average" and "slerp".
        way: "average"; "greedy": an ingredient is added only where the held-out loss falls; "slerp": along the arc
            between two, tensor by tensor; "learned": weights by gradient steps on the held-out loss.
        data: Held-out rows with `prompt` and `chosen` (or `completion`, `text`, `messages`). "greedy" and "learned"
            need them; for the others they show whether the average is worse than its ingredients, with a warning.
        base: The model under all adapters, where it is not the one that they name.
        merge: Write a whole model even where an adapter would do.
        max_shard_size: Bytes of tensors in one file at most.
        progress: Whether to show bars.

    Returns:
        What the soup is made of, where it lies (`out`), and what was measured.

    Raises:
        CheckpointError: An ingredient cannot be read, or they do not fit together (every difference is listed), or an
            argument makes no sense, or `out` cannot be written.
        DataError: `data` has nothing to score.

    Example:
        >>> soup(["sft-a", "sft-b"], out="soup")  # doctest: +SKIP
        SoupReport(out=PosixPath('soup'), way='average', ingredients=('sft-a', 'sft-b'), weights=(0.5, 0.5), ...)

    Source: Wortsman et al. 2022, arXiv:2203.05482; as a reference: Chegini et al. 2024, arXiv:2411.01798 (SALSA).
    """
    _check_way(way, weights, data is not None, len(ingredients))
    checked = check_weights(weights, len(ingredients)) if ingredients else ()
    found = find_ingredients(ingredients, base)
    recipe = Recipe(checked)
    if way == "slerp":
        from ._ways import slerp

        recipe = slerp(found, checked, progress)
    if data is not None:
        recipe = _with_data(found, recipe, way, data, progress)
    return write_soup(found, recipe, out, way, merge, max_shard_size, progress)


def _check_way(way: str, weights: Sequence[float] | None, with_data: bool, count: int) -> None:
    if way not in WAYS:
        raise CheckpointError(f"`way` must be one of {', '.join(WAYS)} (got {way!r}).{did_you_mean(way, WAYS)}")
    if way in ("greedy", "learned"):
        if not with_data:
            raise CheckpointError(f"`way={way!r}` chooses by the loss on held-out rows: pass `data`.")
        if weights is not None:
            raise CheckpointError(f"`way={way!r}` chooses the weights: leave `weights` out.")
    if way == "slerp" and count != 2:
        raise CheckpointError(f"`way='slerp'` is for two ingredients (got {count}). Average more of them in pairs.")


def _with_data(found: Sequence[Ingredient], recipe: Recipe, way: Way, data: Iterable[Row], progress: bool) -> Recipe:
    """Choose the weights where the way does, and measure the result against its ingredients."""
    from ._held_out import HeldOut
    from ._mixture import Mixture
    from ._path import measure, simplex
    from ._ways import greedy, learned

    mixture = Mixture(found)
    held_out = HeldOut(data, mixture.tokenizer)
    if way == "greedy":
        recipe = greedy(found, mixture, held_out, progress)
    elif way == "learned":
        recipe = learned(found, mixture, held_out, progress=progress)
    corners = simplex(len(found), 2)
    inner = [weights for weights in simplex(2, 5) if max(weights) < 1] if len(found) == 2 else []
    grid = dict.fromkeys([*corners, *inner, recipe.weights])
    names = tuple(one.name for one in found)
    landscape = measure(mixture, held_out, names, list(grid), progress=progress)
    notes = [*recipe.notes, _losses(landscape, recipe.weights)]
    if any(max(point.weights) < 1 for point in landscape.points):
        notes.append(landscape.verdict)
        if not landscape.connected:
            warnings.warn(landscape.verdict, stacklevel=3)
    return replace(recipe, notes=tuple(notes))


def _losses(landscape: Landscape, weights: tuple[float, ...]) -> str:
    own = [f"{name} {landscape.corner(number).nll:.4f}" for number, name in enumerate(landscape.names)]
    result = next(point.nll for point in landscape.points if point.weights == weights)
    return f"Held-out NLL in nats per token: {', '.join(own)}; the straight average {result:.4f}."


@dataclass
class Soup(_Fixed):
    """The average of several models as the reference, while the policy starts where it starts (SALSA).

    The average is written once, under `folder`, and loaded like any checkpoint, in the policy's dtype and sharding.
    With LoRA, too, it is a second whole model: adapters are merged into their base, the policy keeps its own adapter.

    Args:
        ingredients: Folders with checkpoints or LoRA adapters, or Hub ids.
        weights: One number from 0 on per ingredient, summing to 1; equal by default.
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
        lock = os.open(target.with_name(f"{target.name}.lock"), os.O_CREAT | os.O_RDWR, 0o644)
    except OSError as error:
        raise CheckpointError(
            f"Soups are kept in `{target.parent}`, which cannot be written: {error.strerror}. "
            "Set PREFALIGN_CACHE, or pass `folder`."
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
