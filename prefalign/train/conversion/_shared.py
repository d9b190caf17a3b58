"""What the recipes of all trainers have in common."""

from __future__ import annotations

from typing import Any

from ._translation import Translation, shown

# What transformers has renamed.
RENAMED = {
    "evaluation_strategy": "eval_strategy",
    "torch_dtype": "dtype",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
}
# Of no consequence for what is trained.
NO_MATTER = (
    *("do_train", "do_eval", "do_predict", "overwrite_output_dir", "save_safetensors", "logging_dir", "plot_loss"),
    *("overwrite_cache", "local_rank", "remove_unused_columns", "use_fast_tokenizer", "include_num_input_tokens_seen"),
)


COLUMNS = (
    "Here they need TRL's columns: `prompt`, `chosen` and `rejected`, as texts or as messages. `prefalign check` says "
    "whether they have them."
)
HOLD_OUT = "Save the pairs to evaluate on in a file of their own, and name it as `eval_dataset_name`."


def translate_warmup(recipe: Translation) -> None:
    """`warmup_ratio` is a share of all steps; transformers 5 takes it as a `warmup_steps` below 1."""
    ratio = recipe.number("warmup_ratio", 0.0)
    if ratio and not recipe.peek("warmup_steps"):
        recipe.take("warmup_steps")
        recipe.values["warmup_steps"] = ratio
        recipe.notes.append(f"`warmup_ratio: {ratio:g}` is `warmup_steps: {ratio:g}`: a number below 1 is a share.")


def translate_prompt_length(recipe: Translation) -> None:
    """Prompts and completions have no limits of their own here."""
    for name in ("max_prompt_length", "max_completion_length", "max_target_length"):
        if name in recipe:
            recipe.notes.append(
                f"`{name}: {shown(recipe.take(name))}` is left out: `max_length` is the limit of both together."
            )


def without_effect(recipe: Translation) -> None:
    """Leave out options of an adapter that is not made, and of a quantization that is not done."""
    values = recipe.values
    idle = []
    if not values.get("use_peft"):
        idle += [name for name in values if name.startswith("lora_") or name in ("use_rslora", "use_dora")]
    if not values.get("load_in_4bit"):
        idle += [name for name in values if name.startswith("bnb_4bit_") or name == "use_bnb_nested_quant"]
    for name in idle:
        del values[name]
    if idle:
        recipe.notes.append(f"Left out, for it had no effect: {', '.join(f'`{name}`' for name in idle)}.")


def no_evaluation(recipe: Translation, why: str) -> None:
    """Leave out when to evaluate, where there is nothing to evaluate on."""
    evaluated = ("eval_strategy", "evaluation_strategy", "eval_steps", "evals_per_epoch", "per_device_eval_batch_size")
    asked = [name for name in (*evaluated, "eval_on_start", "load_best_model_at_end") if name in recipe]
    recipe.drop(asked)
    for name in asked:
        recipe.values.pop(name, None)
    if asked:
        recipe.notes.append(f"Left out, {why}: {', '.join(f'`{name}`' for name in asked)}.")


def name_dataset(recipe: Translation, entries: list[Any], path: str, config: str) -> None:
    """One data set of a list of them.

    Args:
        recipe: Takes the name.
        entries: The list: names, or mappings.
        path: The key of a mapping that names the data set.
        config: The key of a mapping that names its configuration.
    """
    found = [entry if isinstance(entry, dict) else {path: entry} for entry in entries]
    if len(found) != 1 or not found[0].get(path):
        names = ", ".join(shown(entry.get(path)) for entry in found) or "none"
        recipe.left.append(
            f"Data sets: {names}. Training takes one: save the pairs together in a file, and name it as `dataset_name`."
        )
        return
    (entry,) = found
    files = entry.get("data_files")
    if isinstance(files, list) and len(files) == 1:
        (files,) = files
    recipe.values["dataset_name"] = files if isinstance(files, str) else entry[path]
    if entry.get(config) and not isinstance(files, str):
        recipe.values["dataset_config"] = entry[config]
    if entry.get("split"):
        recipe.values["dataset_train_split"] = entry["split"]
    share = entry.get("weight", entry.get("fraction"))
    if share not in (None, 1, 1.0):
        recipe.left.append(f"Of {shown(entry[path])} a share of {share} was taken. Take the rows beforehand.")
