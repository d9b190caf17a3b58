"""Several models of one kind in memory, and any weighted average of them in one more: for trying weights out."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..._errors import CheckpointError
from ..weights import Ingredient
from ._recipe import Recipe, write_soup


class Mixture:
    """A model whose parameters are set to weighted averages of several models' parameters.

    It holds all of them in float32: number of models + 1 times the size of one. Averages that are tried in memory
    differ from the checkpoint that is written by the rounding to its type.

    Args:
        ingredients: Of one kind, as `find_ingredients` has shown.
        device: Where to compute.

    Attributes:
        model: The model that is set.
        tokenizer: The first ingredient's tokenizer; None if no ingredient has one.
    """

    def __init__(self, ingredients: Sequence[Ingredient], device: str | torch.device = "cpu") -> None:
        models = [load_model(one).to(device) for one in ingredients]
        self.model: Any = load_model(ingredients[0]).to(device)
        self._sources = [[p.detach() for p in model.parameters()] for model in models]
        self.tokenizer = load_tokenizer(ingredients)

    @torch.no_grad()
    def set(self, weights: Sequence[float]) -> None:
        """Make the model the average with these weights, one per ingredient."""
        for place, parameter in enumerate(self.model.parameters()):
            total = torch.zeros_like(parameter, dtype=torch.float64)
            for weight, source in zip(weights, self._sources, strict=True):
                if weight:
                    total.add_(source[place], alpha=weight)
            parameter.copy_(total)

    def pull(self) -> list[float]:
        """The loss's derivative by each ingredient's weight, from the gradients in the model, which are cleared."""
        slopes = [0.0] * len(self._sources)
        for place, parameter in enumerate(self.model.parameters()):
            if parameter.grad is None:
                continue
            gradient = parameter.grad.double().flatten()
            for number, source in enumerate(self._sources):
                slopes[number] += float(gradient @ source[place].double().flatten())
            parameter.grad = None
        return slopes


def load_model(ingredient: Ingredient) -> Any:
    """An ingredient as a model in float32; an adapter is merged into its base."""
    # Imported here: averaging files needs no models.
    from transformers import AutoModelForCausalLM

    if ingredient.adapter is None:
        return AutoModelForCausalLM.from_pretrained(ingredient.model, dtype=torch.float32)
    with tempfile.TemporaryDirectory() as folder:
        merged = write_soup([ingredient], Recipe((1.0,)), Path(folder) / "merged", merge=True, progress=False)
        return AutoModelForCausalLM.from_pretrained(merged.out, dtype=torch.float32)


def load_tokenizer(ingredients: Sequence[Ingredient]) -> Any:
    """The tokenizer of the first ingredient that has one.

    Raises:
        CheckpointError: None has one.
    """
    from transformers import AutoTokenizer

    folder = next((one.tokenizer for one in ingredients if one.tokenizer is not None), None)
    if folder is None:
        raise CheckpointError(
            "Held-out data need a tokenizer, and none of the ingredients has one. "
            "Save it beside a model: `tokenizer.save_pretrained(folder)`."
        )
    return AutoTokenizer.from_pretrained(folder)
