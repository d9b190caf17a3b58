"""How the weights of a soup are chosen: given, greedily, on the sphere, or learned."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from tqdm import tqdm

from ..weights import Ingredient, one_tensor
from ._held_out import HeldOut
from ._mixture import Mixture
from ._recipe import Recipe


def greedy(ingredients: Sequence[Ingredient], mixture: Mixture, held_out: HeldOut, progress: bool = True) -> Recipe:
    """Begin with the best model; add each next best to the equal average only where the held-out loss falls.

    Source: Wortsman et al. 2022, arXiv:2203.05482, Recipe 1 (with loss in place of accuracy).
    """
    count = len(ingredients)
    losses = []
    bar = tqdm(total=2 * count - 1, desc="Greedy soup", delay=2.0, disable=not progress)
    with bar:
        for number in range(count):
            losses.append(_nll(mixture, held_out, _equal([number], count)))
            bar.update()
        order = sorted(range(count), key=losses.__getitem__)
        kept, best = order[:1], losses[order[0]]
        notes = [f"Began with {ingredients[order[0]].name}: held-out NLL {best:.4f} nats per token."]
        for number in order[1:]:
            loss = _nll(mixture, held_out, _equal([*kept, number], count))
            bar.update()
            verdict = "added" if loss < best else "left out"
            notes.append(f"{ingredients[number].name}: {verdict}, NLL {loss:.4f} with it, {best:.4f} without.")
            if loss < best:
                kept, best = [*kept, number], loss
    return Recipe(_equal(kept, count), tuple(notes))


def learned(
    ingredients: Sequence[Ingredient], mixture: Mixture, held_out: HeldOut, steps: int = 30, progress: bool = True
) -> Recipe:
    """Weights that lower the held-out loss, by gradient steps on the logits of a softmax (Adam), from equal weights.

    The derivative of the loss by a weight is the inner product of the gradient with that model's parameters.

    Source: Wortsman et al. 2022, arXiv:2203.05482, Sec. 4 (learned soup); one weight per model.
    """
    logits = torch.zeros(len(ingredients), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.2)
    first = best = math.inf
    chosen: tuple[float, ...] = ()
    for step in tqdm(range(steps), desc="Learned soup", delay=2.0, disable=not progress):
        weights = torch.softmax(logits, dim=0)
        mixture.set(weights.tolist())
        loss = held_out.backward(mixture.model)
        first = loss if step == 0 else first
        if loss < best:
            best, chosen = loss, tuple(weights.tolist())
        optimizer.zero_grad()
        weights.backward(torch.tensor(mixture.pull(), dtype=torch.float64))  # type: ignore[no-untyped-call]
        optimizer.step()
    total = math.fsum(chosen)
    chosen = tuple(weight / total for weight in chosen)
    shown = ", ".join(f"{one.name} {w:.4f}" for one, w in zip(ingredients, chosen, strict=True))
    return Recipe(
        chosen,
        (
            f"Learned weights after {steps} steps: {shown}.",
            f"Held-out NLL {best:.4f} nats per token, {first:.4f} with equal weights; the weights were chosen on these "
            "data, so that new data will be less favourable.",
        ),
    )


def slerp(ingredients: Sequence[Ingredient], weights: tuple[float, ...], progress: bool = True) -> Recipe:
    """Spherical interpolation of two models, tensor by tensor: their mean direction, without the loss of length.

    sin(w1 Ω)/sin Ω · a + sin(w2 Ω)/sin Ω · b, with Ω the angle between a and b; a straight line where Ω vanishes.

    Source: Shoemake 1985; of models, as other merging tools have it, tensors flattened, directly on the weights.
    """
    angles = {}
    entries = ingredients[0].weights.entries
    for name in tqdm(entries, desc="Angles", delay=2.0, disable=not progress):
        angles[name] = _angle(ingredients, name)
    table = {name: _on_the_arc(angle, weights) for name, angle in angles.items()}
    measured = [math.degrees(angle) for angle in angles.values() if angle > 0]
    widest = max(angles, key=angles.__getitem__)
    note = (
        f"SLERP: the angle between the two is {sum(measured) / max(1, len(measured)):.3g}° on average over tensors, "
        f"{math.degrees(angles[widest]):.3g}° at most ({widest})."
    )
    return Recipe(weights, (note,), table.__getitem__)


def _angle(ingredients: Sequence[Ingredient], name: str) -> float:
    """Between the two versions of a tensor, in radians; 0 where one of them vanishes, or is not averaged."""
    dot = left = right = 0.0
    for a, b in zip(*(one_tensor(one, name) for one in ingredients), strict=True):
        dot += float(a @ b)
        left += float(a @ a)
        right += float(b @ b)
    if left == 0 or right == 0:
        return 0.0
    return math.acos(max(-1.0, min(1.0, dot / math.sqrt(left * right))))


def _on_the_arc(angle: float, weights: tuple[float, ...]) -> tuple[float, ...]:
    # Opposite tensors have no shortest arc between them; then, too, the straight line is taken.
    if math.sin(angle) < 1e-6:
        return weights
    return tuple(math.sin(weight * angle) / math.sin(angle) for weight in weights)


def _equal(kept: Sequence[int], count: int) -> tuple[float, ...]:
    return tuple(1.0 / len(kept) if number in kept else 0.0 for number in range(count))


def _nll(mixture: Mixture, held_out: HeldOut, weights: Sequence[float]) -> float:
    mixture.set(weights)
    return held_out.nll(mixture.model)
