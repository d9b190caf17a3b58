"""Recipes of LLaMA-Factory with `stage: dpo`, as its DPO trainer reads them."""

from __future__ import annotations

from pathlib import Path

from ..._errors import CheckpointError, ConfigError
from ..._files import read_json
from ._shared import COLUMNS, HOLD_OUT, NO_MATTER, RENAMED, no_evaluation, translate_warmup, without_effect
from ._translation import Translation, shown, words, written

_RENAMED = {
    "cutoff_len": "max_length",
    "preprocessing_num_workers": "dataset_num_proc",
    "enable_liger_kernel": "use_liger_kernel",
    "run_name": "run_name",
    "lora_dropout": "lora_dropout",
    "use_dora": "use_dora",
    "use_rslora": "use_rslora",
}
_NO_MATTER = ("save_only_best", "ray_run_name", "ray_storage_path", "ray_num_workers", "print_param_status")
_ATTENTION = {"fa2": "flash_attention_2", "sdpa": "sdpa", "disabled": "eager"}
_WITH_REFERENCE = {"sigmoid": "dpo", "hinge": "slic", "ipo": "ipo"}


def from_llama_factory(recipe: Translation, folder: Path) -> None:
    """Translate a recipe, with LLaMA-Factory's defaults written out where they are others than here.

    Args:
        recipe: The recipe.
        folder: Where it lies; its data sets may be described nearby.
    """
    stage = recipe.take("stage", "sft")
    if stage != "dpo":
        raise ConfigError(f"`stage` in the recipe must be dpo (got {shown(stage)}): others do not train on pairs.")
    values = recipe.values
    recipe.drop((*NO_MATTER, *_NO_MATTER))
    recipe.rename(RENAMED | _RENAMED)
    _loss(recipe)
    values.setdefault("max_length", 2048)
    if "learning_rate" not in recipe:
        values["learning_rate"] = 5e-5
    _adapter(recipe)
    _precision(recipe)
    values["gradient_checkpointing"] = not recipe.take("disable_gradient_checkpointing", False)
    if recipe.take("disable_shuffling"):
        values["train_sampling_strategy"] = "sequential"
    attention = str(recipe.take("flash_attn", "auto"))
    if attention in _ATTENTION:
        values["attn_implementation"] = _ATTENTION[attention]
    translate_warmup(recipe)
    _data(recipe, folder)
    without_effect(recipe)


def _loss(recipe: Translation) -> None:
    values, kind = recipe.values, str(recipe.take("pref_loss", "sigmoid"))
    beta, ftx = written(recipe.number("pref_beta", 0.1)), recipe.number("pref_ftx", 0.0)
    smoothing, gamma = recipe.number("dpo_label_smoothing", 0.0), recipe.number("simpo_gamma", 0.5)
    bco = recipe.number("pref_bco_weight", 0.0)
    if kind not in (*_WITH_REFERENCE, "simpo", "orpo") or (bco and kind in _WITH_REFERENCE):
        what = f"`pref_loss: {shown(kind)}`" + (f" with `pref_bco_weight: {bco:g}`" if bco else "")
        recipe.left.append(f"{what} has no equal here. Write a `loss`, such as `dpo(beta={beta})`.")
        return
    if kind == "simpo":
        loss = f"simpo(beta={beta}, gamma={written(gamma)})"
    elif kind == "orpo":
        loss = f"orpo(beta={beta}, reduction='sequence_mean')"
    else:
        loss = f"{_WITH_REFERENCE[kind]}(beta={beta})"
        if smoothing and kind == "sigmoid":
            loss = f"smoothed({loss}, flip_rate={written(smoothing)})"
        elif smoothing:
            recipe.notes.append(f"`dpo_label_smoothing` is left out: `{kind}` does not read it.")
    if ftx > 1e-6:  # as LLaMA-Factory asks
        loss += f" + {written(ftx)}*sft(reduction='sequence_mean')"
    values["loss"] = loss
    reference = recipe.take("ref_model")
    if reference and kind in _WITH_REFERENCE:
        values["reference"] = f"checkpoint({str(reference)!r})"
    if "ld_alpha" in recipe:
        recipe.left.append(
            f"`ld_alpha: {shown(recipe.take('ld_alpha'))}` acts on the policy alone there. Here `ld(...)` in the loss "
            "acts on policy and reference, as in TRL."
        )


def _adapter(recipe: Translation) -> None:
    values, kind = recipe.values, recipe.take("finetuning_type", "lora")
    rank, alpha = int(recipe.number("lora_rank", 8)), recipe.take("lora_alpha")
    target, more = recipe.take("lora_target", "all"), recipe.take("additional_target")
    bits = recipe.take("quantization_bit")
    if bits in (4, 8):
        values[f"load_in_{bits}bit"] = True
        if bits == 4:
            values |= {"bnb_4bit_quant_type": "nf4", "use_bnb_nested_quant": True}
    elif bits:
        recipe.left.append(f"`quantization_bit: {shown(bits)}`. 4 and 8 are known here.")
    adapter = recipe.take("adapter_name_or_path")
    if adapter and kind == "lora":
        values["model_name_or_path"] = adapter
        recipe.take("model_name_or_path")
        values.pop("lora_dropout", None)
        recipe.notes.append("`adapter_name_or_path`: the adapter's folder is the model, and is trained further.")
    elif kind == "lora":
        values |= {"use_peft": True, "lora_r": rank, "lora_alpha": 2 * rank if alpha is None else alpha}
        values.setdefault("lora_dropout", 0.0)
        values["lora_target_modules"] = "all-linear" if target == "all" else words("lora_target", target)
        if more:
            values["lora_modules_to_save"] = words("additional_target", more)
    elif kind != "full":
        recipe.left.append(f"`finetuning_type: {shown(kind)}`. LoRA and all weights are what the command line trains.")


def _precision(recipe: Translation) -> None:
    values = recipe.values
    pure, bf16 = bool(recipe.take("pure_bf16", False)), bool(recipe.take("bf16", False))
    values["bf16"] = pure or bf16
    if pure or (bf16 and "use_peft" in values):
        values.setdefault("dtype", "bfloat16")
        recipe.notes.append("`dtype: bfloat16`: LLaMA-Factory holds frozen weights so, and all with `pure_bf16`.")


def _data(recipe: Translation, folder: Path) -> None:
    place = recipe.take("dataset_dir", "data")
    for theirs, ours in (("dataset", "dataset_name"), ("eval_dataset", "eval_dataset_name")):
        if theirs in recipe:
            _name(recipe, words(theirs, recipe.take(theirs)), ours, [Path(str(place)), folder / str(place)])
    if recipe.take("val_size"):
        recipe.left.append(f"`val_size` holds out rows at random. {HOLD_OUT}")
    if "eval_dataset_name" not in recipe.values:
        no_evaluation(recipe, "as there is nothing to evaluate on")
    template = recipe.take("template")
    if template:
        recipe.left.append(
            f"`template: {shown(template)}` is LLaMA-Factory's. The template that is saved with the tokenizer is used: "
            "see that they agree."
        )


def _name(recipe: Translation, names: list[str], option: str, places: list[Path]) -> None:
    """Look a name up in `dataset_info.json`, if that can be read, and say what its rows need."""
    if len(names) != 1:
        recipe.left.append(f"Data sets: {', '.join(names)}. Save the pairs together, and name the file as `{option}`.")
        return
    (name,) = names
    for place in places:
        try:
            entry = read_json(place / "dataset_info.json").get(name)
        except CheckpointError:
            continue
        if not isinstance(entry, dict):
            continue
        file, hub = entry.get("file_name"), entry.get("hf_hub_url")
        if not isinstance(file, str) and not isinstance(hub, str):
            continue
        recipe.values[option] = str(place / file) if isinstance(file, str) else hub
        recipe.left.append(f"The columns of {shown(name)} are read as `dataset_info.json` says. {COLUMNS}")
        return
    recipe.left.append(
        f"{shown(name)} is a name of `dataset_info.json`, which was not found. Write a file or a hub id as `{option}`."
    )
