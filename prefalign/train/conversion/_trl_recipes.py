"""Recipes of `trl dpo` and of the alignment handbook, whose trainer is TRL's."""

from __future__ import annotations

from typing import Any

from ._shared import (
    HOLD_OUT,
    NO_MATTER,
    RENAMED,
    name_dataset,
    translate_prompt_length,
    translate_warmup,
    without_effect,
)
from ._translation import Translation, shown, written

_ADAPTER = (
    *("use_peft", "lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_target_parameters"),
    *("lora_task_type", "lora_modules_to_save", "use_rslora", "use_dora"),
    *("load_in_4bit", "bnb_4bit_quant_type", "bnb_4bit_quant_storage", "use_bnb_nested_quant"),
)


def from_trl_recipe(recipe: Translation) -> None:
    """Translate options of this and earlier releases of TRL, and the handbook's own."""
    recipe.drop(NO_MATTER)
    recipe.rename(RENAMED | {"preprocessing_num_workers": "dataset_num_proc", "model_code_revision": "model_revision"})
    if recipe.take("use_flash_attention_2"):
        recipe.values["attn_implementation"] = "flash_attention_2"
    reentrant = recipe.take("gradient_checkpointing_use_reentrant")
    if reentrant is not None:
        recipe.values["gradient_checkpointing_kwargs"] = {"use_reentrant": reentrant}
    translate_warmup(recipe)
    translate_prompt_length(recipe)
    _data(recipe)
    _loss(recipe)
    recipe.rename({name: name for name in _ADAPTER})
    without_effect(recipe)


def _data(recipe: Translation) -> None:
    mixer, splits = recipe.take("dataset_mixer"), recipe.take("dataset_splits")
    if isinstance(mixer, dict):
        name_dataset(recipe, [{"id": name, "weight": share} for name, share in mixer.items()], "id", "config")
        configs = recipe.take("dataset_configs")
        if configs and "dataset_name" in recipe.values:
            recipe.values["dataset_config"] = configs[0] if isinstance(configs, list) else configs
    for split in splits if isinstance(splits, list) else []:
        side = "train" if "train" in str(split) else "test"
        recipe.values[f"dataset_{side}_split"] = split
    mixture = recipe.take("dataset_mixture")
    entries = mixture.get("datasets") if isinstance(mixture, dict) else recipe.take("datasets")
    if isinstance(entries, list):
        _mixture(recipe, entries)
    size = mixture.get("test_split_size") if isinstance(mixture, dict) else recipe.take("test_split_size")
    if size:
        recipe.left.append(f"`test_split_size: {shown(size)}` holds out rows at random. {HOLD_OUT}")
    recipe.drop(["dataset_seed"])


def _mixture(recipe: Translation, entries: list[Any]) -> None:
    """A list of data sets, whose columns may be selected but not renamed."""
    of_handbook = any(isinstance(entry, dict) and "id" in entry for entry in entries)
    name_dataset(recipe, entries, *(("id", "config") if of_handbook else ("path", "name")))


def _loss(recipe: Translation) -> None:
    """The losses that TRL computes otherwise today, or not at all; others keep their options."""
    beta = recipe.peek("beta", 0.1)
    if recipe.peek("trainer_type") == "simpo" or "gamma_beta_ratio" in recipe:
        recipe.drop(["trainer_type", "loss_type"])
        beta = recipe.number("beta", 2.0)
        gamma = beta * recipe.number("gamma_beta_ratio", 0.25)
        recipe.values["loss"] = f"simpo(beta={written(beta)}, gamma={written(gamma)})"
        return
    kind = recipe.peek("loss_type", "sigmoid")
    given = recipe.peek("label_smoothing") or recipe.peek("rpo_alpha")
    if kind in ("kto_pair", "bco_pair_v1"):
        recipe.left.append(f"`loss_type: {kind}`, which TRL has removed. Write a `loss`, such as `dpo(beta={beta})`.")
        recipe.drop(["loss_type", "beta", "label_smoothing"])
    elif kind == "aot_pair":
        recipe.take("loss_type")
        recipe.values["loss_type"] = "aot"
        recipe.notes.append("`loss_type: aot_pair` is called `aot` today.")
    elif kind == "aot":
        recipe.notes.append(
            "`loss_type: aot` is kept; in early releases of TRL that name was of what is `aot_unpaired` today."
        )
    elif kind in ("sigmoid", ["sigmoid"]) and given:
        recipe.drop(["loss_type", "loss_weights"])
        loss = f"dpo(beta={written(recipe.number('beta', 0.1))})"
        smoothing = recipe.number("label_smoothing", 0.0)
        if smoothing:
            loss = f"smoothed({loss}, flip_rate={written(smoothing)})"
            recipe.notes.append(
                "`label_smoothing` with `sigmoid` is cDPO, as TRL computed it once; it ignores it today."
            )
        recipe.values["loss"] = loss + likelihood(recipe)


def likelihood(recipe: Translation) -> str:
    """The term that `rpo_alpha` adds."""
    alpha = recipe.number("rpo_alpha", 0.0)
    if not alpha:
        return ""
    recipe.notes.append(
        "`rpo_alpha` adds the likelihood of the chosen answers, a mean over the tokens of a batch in most releases of "
        "TRL; the first ones took the mean within each answer, `reduction='sequence_mean'`."
    )
    return f" + {written(alpha)}*sft(reduction='token_mean')"
