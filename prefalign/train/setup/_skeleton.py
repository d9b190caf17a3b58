"""The policy without its weights: whether it can be built, and what an adapter's configuration finds in it."""

from __future__ import annotations

import copy
import re
from typing import Any

import torch
from torch import nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM

from ..._deadline import time_limit
from ..._errors import ConfigError, did_you_mean

# Deeper than any published model; building one that is deeper takes hours.
_MOST_LAYERS = 10_000
# Wider than any published model's layers; beyond that a rank cannot add anything.
_HIGHEST_RANK = 65_536
_PATTERN_SECONDS = 1.0


def module_names(model: Any, config: Any) -> list[str] | None:
    """The names of the policy's modules; None for a kind of model whose modules are not known before it loads.

    Args:
        model: The policy: a model, or a name.
        config: Its configuration.

    Raises:
        ConfigError: No model can be built of the configuration.
    """
    if isinstance(model, nn.Module):
        return [name for name, _ in model.named_modules() if name]
    _check_layers(config)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return None
    try:
        with torch.device("meta"):  # takes no memory
            built = AutoModelForCausalLM.from_config(copy.deepcopy(config))
    except Exception as error:  # what a wrong value makes a model's code raise
        raise ConfigError(
            f"`config.json` of {str(model)[:200]!r} describes no model that can be built: {type(error).__name__}: "
            f"{str(error)[:300]}"
        ) from error
    return [name for name, _ in built.named_modules() if name]


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


def check_adapter(peft_config: Any, names: list[str] | None) -> None:
    """Refuse an adapter's configuration that finds no modules, or never ends looking for them.

    Args:
        peft_config: The configuration, or None.
        names: The names of the policy's modules, if they are known.

    Raises:
        ConfigError: The rank is out of range, a pattern is none or takes too long, or a name is no module's.
    """
    check_rank(peft_config)
    for option, pattern in _patterns(peft_config):
        _check_pattern(option, pattern, names or [])
    for each in getattr(peft_config, "modules_to_save", None) or ():
        if names is not None and not any(name.endswith(each) for name in names):  # PEFT ignores it
            ends = sorted({name.rpartition(".")[2] for name in names})
            raise ConfigError(
                f"`modules_to_save` names {each!r}, which the model does not have.{did_you_mean(each, ends)}"
            )


def check_rank(peft_config: Any) -> None:
    """Refuse a rank that no memory holds.

    Raises:
        ConfigError: It is out of range.
    """
    rank = getattr(peft_config, "r", 1)
    if isinstance(rank, int) and not 1 <= rank <= _HIGHEST_RANK:
        raise ConfigError(f"`r`, an adapter's rank, must be at least 1 and at most {_HIGHEST_RANK} (got {rank}).")


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
