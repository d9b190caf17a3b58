"""The policy without its weights: whether it can be built, and what an adapter's configuration finds in it."""

from __future__ import annotations

import copy
import math
import re
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM

from ..._deadline import time_limit
from ..._errors import ConfigError, did_you_mean

# Deeper than any published model; building one that is deeper takes hours.
_MOST_LAYERS = 10_000
# Wider than any published model's layers; beyond that a rank cannot add anything.
_HIGHEST_RANK = 65_536
_PATTERN_SECONDS = 1.0


def build_skeleton(model: Any, config: Any) -> nn.Module | None:
    """The policy without its weights; None for a kind of model that is not known before it loads.

    Args:
        model: The policy: a model, or a name.
        config: Its configuration.

    Raises:
        ConfigError: No model can be built of the configuration.
    """
    if isinstance(model, nn.Module):
        return model
    _check_layers(config)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return None
    try:
        with torch.device("meta"):  # takes no memory
            built: nn.Module = AutoModelForCausalLM.from_config(copy.deepcopy(config))
    except Exception as error:  # what a wrong value makes a model's code raise
        raise ConfigError(
            f"`config.json` of {str(model)[:200]!r} describes no model that can be built: {type(error).__name__}: "
            f"{str(error)[:300]}"
        ) from error
    return built


def _check_layers(config: Any) -> None:
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    layers = getattr(text, "num_hidden_layers", None)
    if isinstance(layers, int) and not 1 <= layers <= _MOST_LAYERS:
        raise ConfigError(
            f"`num_hidden_layers` in the model's configuration must be at least 1 and at most {_MOST_LAYERS} (got "
            f"{layers})."
        )
    classes = getattr(config, "architectures", None)
    if classes is not None and not (isinstance(classes, list) and all(isinstance(name, str) for name in classes)):
        raise ConfigError(
            f"`architectures` in the model's configuration must be a list of names (got {classes!a:.60})."
        )


def check_adapter(peft_config: Any, skeleton: nn.Module | None) -> None:
    """Refuse an adapter's configuration that finds no modules, or never ends looking for them.

    Args:
        peft_config: The configuration, or None.
        skeleton: The policy, with or without its weights, if it is known.

    Raises:
        ConfigError: A number is out of range, a pattern is none or takes too long, a name is no module's, or PEFT can
            make nothing of a value.
    """
    if peft_config is None:
        return
    names = None if skeleton is None else [name for name, _ in skeleton.named_modules() if name]
    _check_numbers(peft_config)
    for option, pattern in _patterns(peft_config):
        _check_pattern(option, pattern, names or [])
    for each in getattr(peft_config, "modules_to_save", None) or ():
        if names is not None and not any(name.endswith(each) for name in names):  # PEFT ignores it
            ends = sorted({name.rpartition(".")[2] for name in names})
            raise ConfigError(
                f"`modules_to_save` names {each!r}, which the model does not have.{did_you_mean(each, ends)}"
            )
    weightless = skeleton is not None and all(one.is_meta for one in skeleton.parameters())
    if weightless and isinstance(peft_config, LoraConfig) and not peft_config.use_dora:
        assert skeleton is not None
        _check_tokens(peft_config, skeleton)
        _try_adapter(peft_config, skeleton)


def _check_tokens(peft_config: LoraConfig, skeleton: nn.Module) -> None:
    asked = peft_config.trainable_token_indices
    rows = len(skeleton.get_input_embeddings().weight)  # type: ignore[operator]
    for numbers in asked.values() if isinstance(asked, dict) else [asked or []]:
        if not all(isinstance(number, int) and 0 <= number < rows for number in numbers):
            raise ConfigError(
                f"The adapter's `trainable_token_indices` must be at least 0 and below {rows}, the tokens."
            )


def _try_adapter(peft_config: LoraConfig, skeleton: nn.Module) -> None:
    """Put a LoRA adapter on a model without weights, as PEFT does later on the one with them."""
    tried = copy.deepcopy(peft_config)
    tried.init_lora_weights = False  # there are no weights to begin with
    try:
        with torch.device("meta"):
            inject_adapter_in_model(tried, skeleton)
    except Exception as error:  # what a wrong value makes PEFT's code raise
        raise ConfigError(
            f"The adapter's configuration cannot be used on this model: {type(error).__name__}: {str(error)[:300]}"
        ) from error


def _check_numbers(peft_config: Any) -> None:
    rank, alpha = getattr(peft_config, "r", 1), getattr(peft_config, "lora_alpha", 1)
    if not isinstance(rank, int) or not 1 <= rank <= _HIGHEST_RANK:
        raise ConfigError(f"`r`, an adapter's rank, must be at least 1 and at most {_HIGHEST_RANK} (got {rank!a:.60}).")
    if not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise ConfigError(f"`lora_alpha` must be a finite number (got {alpha!a:.60}).")
    saved = getattr(peft_config, "modules_to_save", None)
    if saved is not None and not isinstance(saved, list | tuple | set):
        raise ConfigError(f"`modules_to_save` must be a list of names (got {saved!a:.60}).")


def _patterns(peft_config: Any) -> list[tuple[str, str]]:
    """The regular expressions of an adapter's configuration, as PEFT matches them against the names of modules."""
    found = []
    for option in ("target_modules", "exclude_modules"):
        value = getattr(peft_config, option, None)
        if isinstance(value, str) and value != "all-linear":
            found.append((option, value))
    for option in ("rank_pattern", "alpha_pattern"):
        value = getattr(peft_config, option, None)
        found += [(option, rf"(.*\.)?({key})$") for key in (value if isinstance(value, dict) else {})]
    layers = getattr(peft_config, "layers_pattern", None) or ()
    layers = [layers] if isinstance(layers, str) else layers
    return found + [("layers_pattern", rf".*\.{each}\.(\d+)\.") for each in layers]


def _check_pattern(option: str, pattern: str, names: list[str]) -> None:
    overtime = ConfigError(
        f"`{option}` holds a regular expression that takes more than a second for the model's "
        f"modules (got {pattern!a:.99}): it tries too many ways to match. Write it without repetitions in repetitions."
    )
    try:
        with time_limit(_PATTERN_SECONDS, overtime):
            expression = re.compile(pattern)
            for name in names:
                expression.fullmatch(name)
                expression.match(name)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(
            f"`{option}` must hold names of modules, or a regular expression (got {pattern!a:.99}: {error})."
        ) from None
