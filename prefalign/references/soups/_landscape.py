"""Loss and reward between checkpoints: along the straight line of two, over the triangle of three."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from tqdm import tqdm

from ..._errors import CheckpointError
from ..._numbers import check_number
from ..weights import find_ingredients
from ._held_out import HeldOut, Row
from ._mixture import Mixture

# Completions, each with its prompt -> a number each, the higher the better.
Reward: TypeAlias = Callable[[Sequence[str], Sequence[str]], Sequence[float]]
# Between a barrier and the rounding of float32 sums over thousands of tokens, in nats per token.
_NOISE = 1e-5


@dataclass(frozen=True)
class Point:
    """One average: its weights, held-out loss (nats, mean over tokens) and mean gold reward, if there is one."""

    weights: tuple[float, ...]
    nll: float
    reward: float | None = None


@dataclass(frozen=True)
class Landscape:
    """What was measured between models.

    Attributes:
        names: The models.
        points: The averages; those with a single weight are the models themselves.
    """

    names: tuple[str, ...]
    points: tuple[Point, ...]

    @property
    def barrier(self) -> float:
        """The largest rise of the loss above the weighted mean of the models' own losses, in nats per token.

        max over averages of L(average) - sum of weights * L(model); at most zero where the loss is convex between them.

        Source: Frankle et al. 2020, arXiv:1912.05671, Sec. 2 (instability of linear interpolation).
        """
        ends = [self.corner(number).nll for number in range(len(self.names))]
        inner = [p for p in self.points if max(p.weights) < 1]
        return max((p.nll - sum(w * e for w, e in zip(p.weights, ends, strict=True)) for p in inner), default=0.0)

    @property
    def connected(self) -> bool:
        """Whether no barrier was seen."""
        return self.barrier <= _NOISE

    @property
    def best(self) -> Point:
        """The average of the lowest loss."""
        return min(self.points, key=lambda point: point.nll)

    def corner(self, number: int) -> Point:
        """The point of one model alone."""
        return next(point for point in self.points if point.weights[number] == 1)

    def __str__(self) -> str:
        with_reward = any(point.reward is not None for point in self.points)
        width = max(8, *(len(name) for name in self.names))
        lines = [" ".join(f"{name:>{width}}" for name in self.names) + "      NLL" + "   reward" * with_reward]
        for point in self.points:
            reward = f" {point.reward:8.4f}" if point.reward is not None else ""
            lines.append(" ".join(f"{w:>{width}.3f}" for w in point.weights) + f" {point.nll:8.4f}{reward}")
        weights = ", ".join(f"{w:.3g}" for w in self.best.weights)
        lines.append(f"Lowest loss {self.best.nll:.4f} nats per token at weights ({weights}).")
        lines.append(self.verdict)
        return "\n".join(lines)

    @property
    def verdict(self) -> str:
        """A sentence about the barrier."""
        if self.connected:
            return f"Barrier {self.barrier:.4f} nats per token: none, the models are linearly connected."
        return (
            f"Barrier {self.barrier:.4f} nats per token: the models are not linearly connected, and an average of them "
            "is worse than what they lose on average. Did they start from one base model?"
        )


def path(
    checkpoints: Sequence[str | os.PathLike[str]],
    data: Iterable[Row],
    *,
    points: int = 11,
    reward: Reward | None = None,
    max_length: int = 1024,
    new_tokens: int = 32,
    base: str | None = None,
    progress: bool = True,
) -> Landscape:
    """Measure the averages of two or three models: a straight line, or a triangle.

    Args:
        checkpoints: Two or three folders, Hub ids or LoRA adapters.
        data: Held-out rows, as for `HeldOut`.
        points: Averages along one edge, the ends included, 3 or more.
        reward: A gold reward of greedy completions of the data's prompts.
        max_length: Tokens of a row that are scored at most.
        new_tokens: Length of the completions that are rewarded, in tokens.
        base: The model under adapters, where it is not the one that they name.
        progress: Whether to show a bar.

    Raises:
        CheckpointError: The models cannot be averaged, or are not two or three.
        DataError: There is nothing to score.
    """
    if len(checkpoints) not in (2, 3):
        raise CheckpointError(f"`checkpoints` must be two or three models (got {len(checkpoints)}).")
    check_number("points", points, CheckpointError, 3, whole=True)
    ingredients = find_ingredients(checkpoints, base)
    mixture = Mixture(ingredients)
    held_out = HeldOut(data, mixture.tokenizer, max_length)
    names = tuple(one.name for one in ingredients)
    return measure(mixture, held_out, names, simplex(len(names), points), reward, new_tokens, progress)


def measure(
    mixture: Mixture,
    held_out: HeldOut,
    names: tuple[str, ...],
    grid: Sequence[tuple[float, ...]],
    reward: Reward | None = None,
    new_tokens: int = 32,
    progress: bool = True,
) -> Landscape:
    """The landscape on a grid of weights."""
    found = []
    for weights in tqdm(grid, desc="Averages", delay=2.0, disable=not progress):
        mixture.set(weights)
        gold = None if reward is None else _mean_reward(mixture, held_out, reward, new_tokens)
        found.append(Point(tuple(weights), held_out.nll(mixture.model, progress), gold))
    return Landscape(names, tuple(found))


def simplex(count: int, points: int) -> list[tuple[float, ...]]:
    """All weights of `count` models that are multiples of 1 / (points - 1), the first model's falling.

    Example:
        >>> simplex(2, 3)
        [(1.0, 0.0), (0.5, 0.5), (0.0, 1.0)]
    """
    steps = points - 1
    grid = itertools.product(range(steps, -1, -1), repeat=count)
    return [tuple(number / steps for number in numbers) for numbers in grid if sum(numbers) == steps]


@torch.no_grad()
def _mean_reward(mixture: Mixture, held_out: HeldOut, reward: Reward, new_tokens: int) -> float:
    tokenizer, model = mixture.tokenizer, mixture.model
    completions = []
    for prompt in held_out.prompts:
        tokens = tokenizer(prompt, return_tensors="pt").to(next(model.parameters()).device)
        made = model.generate(
            **tokens, max_new_tokens=new_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id or 0
        )
        completions.append(tokenizer.decode(made[0, tokens["input_ids"].shape[1] :], skip_special_tokens=True))
    if not completions:
        raise CheckpointError("A gold reward needs held-out rows with a `prompt` to complete.")
    values = list(reward(held_out.prompts, completions))
    return sum(values) / len(values)
