"""Whose recipe it is, and what becomes of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..._errors import ConfigError, PrefalignError
from ...losses import parse_loss
from ..config import FOREIGN, REMOVED
from ._axolotl import from_axolotl
from ._llama_factory import from_llama_factory
from ._translation import Translation
from ._trl_recipes import from_trl_recipe

DIALECTS = {
    "trl": "TRL",
    "alignment-handbook": "the alignment handbook",
    "axolotl": "Axolotl",
    "llama-factory": "LLaMA-Factory",
}
# Options by which a recipe is known.
_SIGNS = {
    "axolotl": ("base_model",),
    "llama-factory": ("stage", "finetuning_type", "pref_loss", "pref_beta", "cutoff_len", "lora_rank", "dataset_dir"),
    "alignment-handbook": ("dataset_mixer", "dataset_mixture", "dataset_splits", "trainer_type"),
    "trl": ("model_name_or_path",),
}


def convert_recipe(
    recipe: Mapping[str, Any], known: Collection[str], dialect: str | None = None, folder: Path = Path()
) -> tuple[str, Translation]:
    """Translate a recipe for `prefalign train`.

    Args:
        recipe: The options of another trainer.
        known: The options of `prefalign train`.
        dialect: One of `DIALECTS`; None to tell it by the options' names.
        folder: Where the recipe lies.

    Returns:
        The dialect, and what has become of the options.

    Raises:
        ConfigError: It is no recipe for pairs, or a value makes no sense.
    """
    if dialect is None:
        dialect = next((name for name, signs in _SIGNS.items() if any(sign in recipe for sign in signs)), None)
    if dialect is None:
        raise ConfigError(
            f"The recipe is of none of {', '.join(DIALECTS.values())}: it has no option like `model_name_or_path` or "
            "`base_model`. Say whose it is with `--from`."
        )
    made = Translation(recipe)
    if dialect == "axolotl":
        from_axolotl(made)
    elif dialect == "llama-factory":
        from_llama_factory(made, folder)
    else:
        from_trl_recipe(made)
    made.rest(known, {**FOREIGN, **REMOVED})
    _check(made)
    return dialect, made


def _check(made: Translation) -> None:
    loss = made.values.get("loss")
    if loss is not None:
        try:
            parse_loss(loss)
        except PrefalignError as error:
            raise ConfigError(f"The recipe's loss, `{loss}`, cannot be made: {error}") from None
    for name, needed in (("model_name_or_path", "a folder or a hub id"), ("dataset_name", "a file or a hub id")):
        if not made.values.get(name) and not any(f"`{name}`" in text for text in made.left):
            made.left.append(f"The recipe names no `{name}`. Add it: {needed}.")
