"""Recipes of Axolotl with `rl: dpo`, `ipo`, `simpo` or `orpo`, as its builder of RL trainers reads them."""

from __future__ import annotations

from typing import Any

from ..._errors import ConfigError
from ._shared import COLUMNS, HOLD_OUT, NO_MATTER, name_dataset, no_evaluation, translate_warmup, without_effect
from ._translation import Translation, as_number, shown, written
from ._trl_recipes import likelihood

_RENAMED = {
    "base_model": "model_name_or_path",
    "revision_of_model": "model_revision",
    "sequence_len": "max_length",
    "micro_batch_size": "per_device_train_batch_size",
    "eval_batch_size": "per_device_eval_batch_size",
    "optimizer": "optim",
    "lr_scheduler": "lr_scheduler_type",
    "num_epochs": "num_train_epochs",
    "peft_use_dora": "use_dora",
    "peft_use_rslora": "use_rslora",
    "lora_r": "lora_r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "lora_target_modules": "lora_target_modules",
    "lora_modules_to_save": "lora_modules_to_save",
    "dpo_use_weighting": "use_weighting",
}
_NO_MATTER = (
    *("strict", "model_type", "tokenizer_type", "base_model_config", "dataset_prepared_path", "train_on_inputs"),
    *("sample_packing", "eval_sample_packing", "pad_to_sequence_len", "pad_to_multiple_of", "dataset_processes"),
    *("is_llama_derived_model", "is_mistral_derived_model", "is_falcon_derived_model", "wandb_watch", "use_wandb"),
    *("wandb_log_model", "wandb_run_id", "dpo_use_logits_to_keep", "dpo_padding_free", "dpo_generate_during_eval"),
    *("remove_unused_columns", "rl_adapter_ref_model", "eval_table_size", "eval_max_new_tokens", "logging_first_step"),
)
_ATTENTION = {"flash_attention": "flash_attention_2", "sdp_attention": "sdpa", "eager_attention": "eager"}
_OWN_SCHEDULES = ("one_cycle", "rex")


def from_axolotl(recipe: Translation) -> None:
    """Translate a recipe, with Axolotl's defaults written out where they are others than here."""
    _loss(recipe)
    recipe.drop((*NO_MATTER, *_NO_MATTER))
    recipe.rename(_RENAMED)
    values = recipe.values
    _precision(recipe)
    _adapter(recipe)
    for name, implementation in _ATTENTION.items():
        if recipe.take(name):
            values["attn_implementation"] = implementation
    if str(values.get("lr_scheduler_type")) in _OWN_SCHEDULES:
        recipe.left.append(f"`lr_scheduler: {values.pop('lr_scheduler_type')}` is Axolotl's own; cosine stands for it.")
    values.setdefault("lr_scheduler_type", "cosine")
    values.setdefault("num_train_epochs", 1)
    values["gradient_checkpointing"] = recipe.peek("gradient_checkpointing", False) is not False
    if isinstance(recipe.take("gradient_checkpointing"), str):
        recipe.left.append("`gradient_checkpointing` with offloading: it is on, without.")
    translate_warmup(recipe)
    if "warmup_steps" not in values and "warmup_steps" not in recipe:
        values["warmup_steps"] = 0.03
        recipe.notes.append("Axolotl warms up for 3 % of the steps, 100 at most, unless it is told otherwise.")
    _data(recipe)
    _moments(recipe)
    _tokens(recipe)
    _reporting(recipe)
    without_effect(recipe)


def _loss(recipe: Translation) -> None:
    kind = recipe.take("rl")
    if kind is True:
        kind = "dpo"
    if kind not in ("dpo", "ipo", "simpo", "orpo"):
        raise ConfigError(
            f"`rl` in the recipe must be dpo, ipo, simpo or orpo (got {shown(kind)}): others do not train on pairs."
        )
    ours = recipe.take("trl") if isinstance(recipe.peek("trl"), dict) else {}
    default = recipe.number("rl_beta", recipe.number("orpo_alpha", 0.1))
    beta = written(ours["beta"] if isinstance(ours.get("beta"), int | float) else default)
    recipe.left.extend(f"`trl.{name}`." for name in ours if name != "beta")
    smoothing = recipe.number("dpo_label_smoothing", 0.0)
    if kind == "simpo":
        gamma, alpha = recipe.number("simpo_gamma", 0.5), recipe.number("cpo_alpha", 1.0)
        loss = f"simpo(beta={beta}, gamma={written(gamma)})"
        if alpha:
            loss += f" + {written(alpha)}*sft(reduction='token_mean')"
            recipe.notes.append(
                "Axolotl's `simpo` runs TRL's CPO trainer, which adds the likelihood of the chosen answers with "
                "`cpo_alpha`, 1 unless it is set; `cpo_alpha: 0` is the paper's loss."
            )
    elif kind == "dpo" and recipe.peek("dpo_use_weighting"):
        recipe.values |= {"loss_type": "sigmoid", "beta": float(beta)}
        if smoothing or recipe.take("rpo_alpha"):
            recipe.left.append("`dpo_label_smoothing` and `rpo_alpha` beside `dpo_use_weighting`.")
        return
    elif kind == "dpo":
        loss = f"dpo(beta={beta})"
        loss = f"smoothed({loss}, flip_rate={written(smoothing)})" if smoothing else loss
        loss += likelihood(recipe)
    else:
        loss = f"{kind}(beta={beta})"
        if kind == "orpo":
            recipe.left.append("TRL's ORPO takes the prompt into the likelihood; here it is of the answer alone.")
    recipe.values["loss"] = loss


def _precision(recipe: Translation) -> None:
    bf16 = recipe.take("bf16", recipe.take("bfloat16", "auto"))
    half = bool(recipe.take("fp16", recipe.take("float16", False))) and not (bf16 and bf16 != "auto")
    recipe.values["bf16"] = bool(bf16) and not half
    if half:
        recipe.values["fp16"] = True
    recipe.values["dtype"] = "float16" if half else "bfloat16" if bf16 else "float32"
    recipe.notes.append(f"Axolotl loads the weights in the precision of training: `dtype: {recipe.values['dtype']}`.")
    if bf16 == "full":
        recipe.left.append("`bf16: full`: sums are taken under autocast here, with weights in bfloat16.")


def _adapter(recipe: Translation) -> None:
    values, kind = recipe.values, recipe.take("adapter")
    if kind in ("lora", "qlora"):
        values["use_peft"] = True
    elif kind:
        recipe.left.append(f"`adapter: {shown(kind)}`. LoRA, with `use_peft: true`, is what the command line makes.")
    if recipe.take("lora_target_linear"):
        values["lora_target_modules"] = "all-linear"
    if recipe.take("load_in_4bit") or kind == "qlora":
        values |= {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "use_bnb_nested_quant": True}
    folder = recipe.take("lora_model_dir")
    if folder:
        values["model_name_or_path"] = folder
        recipe.drop(list(values.keys() & {"use_peft"}))
        values.pop("use_peft", None)
        recipe.notes.append("`lora_model_dir`: the adapter's folder is the model, and is trained further.")


def _data(recipe: Translation) -> None:
    entries = recipe.take("datasets")
    entries = entries if isinstance(entries, list) else []
    name_dataset(recipe, entries, "path", "name")
    kinds = {shown(e["type"]) for e in entries if isinstance(e, dict) and e.get("type")}
    for kind in sorted(kinds):
        recipe.left.append(f"`type: {kind}` says how rows are read. {COLUMNS}")
    template = recipe.take("chat_template")
    if template and template != "tokenizer_default":
        recipe.left.append(
            f"`chat_template: {shown(template)}`. The tokenizer's own template is used: save that one with it."
        )
    tests, share = recipe.take("test_datasets"), recipe.take("val_set_size")
    if isinstance(tests, list) and len(tests) == 1 and isinstance(tests[0], dict):
        recipe.values["eval_dataset_name"] = tests[0].get("path")
        recipe.values["dataset_test_split"] = tests[0].get("split", "train")
        return
    if tests:
        recipe.left.append("`test_datasets`: one is taken. Name it as `eval_dataset_name`.")
    if share:
        recipe.left.append(f"`val_set_size: {shown(share)}` holds out rows at random. {HOLD_OUT}")
    no_evaluation(recipe, "as there is nothing to evaluate on")


def _moments(recipe: Translation) -> None:
    """When to save and to evaluate; a number of times per epoch becomes a share of all steps."""
    values, epochs = recipe.values, as_number("num_epochs", recipe.values["num_train_epochs"])
    for name, kind in (("saves_per_epoch", "save"), ("evals_per_epoch", "eval")):
        times = recipe.number(name, 0.0)
        if f"{kind}_steps" in recipe:
            values[f"{kind}_strategy"] = "steps"
        elif times == 1:
            values[f"{kind}_strategy"] = "epoch"
        elif times:
            values |= {f"{kind}_strategy": "steps", f"{kind}_steps": 1 / (times * epochs)}
    given = [*values, *(name for name in ("save_strategy", "save_steps") if name in recipe)]
    if not {"save_strategy", "save_steps"} & set(given):
        values["save_strategy"] = "epoch"
    if "save_total_limit" not in recipe:
        values["save_total_limit"] = 4


def _tokens(recipe: Translation) -> None:
    special: Any = recipe.take("special_tokens", {})
    if isinstance(special, dict) and special.get("pad_token"):
        recipe.values["pad_token"] = special["pad_token"]
    others = [name for name in special if name != "pad_token"] if isinstance(special, dict) else []
    if others or recipe.peek("tokens"):
        recipe.take("tokens")
        recipe.left.append(
            f"Tokens that are added or changed ({', '.join(others) or 'tokens'}). Save the tokenizer with them, and "
            "the model with as many embeddings."
        )


def _reporting(recipe: Translation) -> None:
    project = recipe.take("wandb_project")
    recipe.rename({"wandb_name": "run_name"})
    variables = {"WANDB_PROJECT": project, "WANDB_ENTITY": recipe.take("wandb_entity"), "WANDB_MODE": None}
    variables["WANDB_MODE"] = recipe.take("wandb_mode")
    recipe.values["report_to"] = "wandb" if project else "none"
    if project:
        recipe.values["env"] = {name: value for name, value in variables.items() if value}
