"""Make a soup: average checkpoints or adapters into one."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..._errors import CheckpointError, did_you_mean
from ..weights import MAX_SHARD, Ingredient, find_ingredients
from ._recipe import Recipe, SoupReport, Way, check_weights, write_soup

if TYPE_CHECKING:
    from ._held_out import Row
    from ._landscape import Landscape


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
        weights: One non-negative number per ingredient, summing to 1. Default: equal. For "average" and "slerp".
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
        from ._methods import slerp

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
    from ._landscape import measure, simplex
    from ._methods import greedy, learned
    from ._mixture import Mixture

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
