"""What the trainer does before any weights load."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftConfig
from safetensors import SafetensorError
from transformers import AutoConfig, AutoProcessor

from ..._errors import CheckpointError, ConfigError, PrefalignError
from ...references import Policy, check_files
from .. import _trl


def default_output_dir(model: Any) -> str:
    """TRL's own: the model's name and `-DPO`."""
    name = model if isinstance(model, str) else _trl.model_id(model.config) or "model"
    return f"{os.path.basename(os.path.normpath(name))}-DPO"


def check_model_options(model: Any, args: Any) -> None:
    """Refuse loading options for a model that is loaded already.

    Raises:
        ConfigError: There are some.
    """
    if not isinstance(model, str) and args.model_init_kwargs is not None:
        raise ConfigError(
            f"`model_init_kwargs={args.model_init_kwargs!r}` would have no effect: the model is loaded already. Leave "
            "it out, or pass the model's name."
        )


def describe_policy(model: Any, processing_class: Any, args: Any) -> Policy:
    """What is known of the policy without its weights; its tokenizer is loaded if none was given.

    Raises:
        ConfigError: The model cannot be found, or there is no tokenizer.
    """
    options = {"trust_remote_code": args.trust_remote_code}
    path = model if isinstance(model, str) else _trl.model_id(model.config)
    if isinstance(model, str):
        options["revision"] = (args.model_init_kwargs or {}).get("revision")
        check_files(model)
        try:
            config = AutoConfig.from_pretrained(model, **{k: v for k, v in options.items() if v is not None})
        except Exception as error:  # a dozen kinds, by what is missing or damaged
            raise ConfigError(
                f"`model` must be a directory with a model, or a hub id that can be read (got {model!r}): {error}"
            ) from error
    else:
        config = model.config
    if processing_class is None:
        if not path:
            raise ConfigError(
                "`processing_class` must be given for a model that was built in memory, which no tokenizer is saved "
                "with. Pass its tokenizer."
            )
        try:
            processing_class = AutoProcessor.from_pretrained(path, **options)
        except Exception as error:  # a dozen kinds, by what is missing or damaged
            raise ConfigError(
                f"`processing_class` must be given: no tokenizer can be loaded from {path!r}: {error}"
            ) from error
    return Policy(path, config, processing_class)


def embedding_rows(model: Any, config: Any) -> int | None:
    """How many tokens the model has an embedding for; None where that is not known."""
    if isinstance(model, str):
        text = config.get_text_config() if hasattr(config, "get_text_config") else config
        rows = getattr(text, "vocab_size", None)
        return rows if isinstance(rows, int) else None
    try:
        return int(model.get_input_embeddings().weight.shape[0])
    except (AttributeError, NotImplementedError, IndexError):
        return None


def base_of_adapter(model: Any) -> str | None:
    """The base model that a folder with an adapter alone names; None for anything else.

    Raises:
        CheckpointError: A file of it is damaged, a pickle or a pipe.
        ConfigError: The adapter names none, or cannot be read.
    """
    if not isinstance(model, str) or not os.path.isfile(os.path.join(model, "adapter_config.json")):
        return None
    if os.path.exists(os.path.join(model, "config.json")):
        return None
    check_files(model)
    base: str | None = read_adapter(model).base_model_name_or_path
    if not base or not isinstance(base, str):
        raise ConfigError(
            f"`model` holds an adapter alone, and its configuration names no base model ({model!r}). Pass "
            f"`PeftModel.from_pretrained(base, {model!r}, is_trainable=True)`."
        )
    return base


def read_adapter(model: str) -> PeftConfig:
    """The configuration of the adapter in a folder.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        return PeftConfig.from_pretrained(model)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"`model` holds an adapter whose configuration cannot be read ({model!r}): {error}"
        ) from error


def load_adapter(model: str, args: Any, peft_config: Any, quantization: Any) -> Any:
    """The adapter of a folder on its base model, to be trained further; `args.model_init_kwargs` are used up by it.

    Raises:
        ConfigError: Another adapter was asked for, or the weights do not load.
    """
    if peft_config is not None:
        raise ConfigError(
            f"`peft_config` would put a new adapter on {model!r}, which is an adapter itself. Leave it out to train "
            "that one further, or merge it into its base model first."
        )
    from peft import AutoPeftModelForCausalLM

    options: dict[str, Any] = {"dtype": torch.float32, **(args.model_init_kwargs or {})}  # TRL's default
    options.setdefault("trust_remote_code", args.trust_remote_code)
    args.model_init_kwargs = None
    if quantization is not None:
        options["quantization_config"] = quantization
    with loading_errors(model):
        return AutoPeftModelForCausalLM.from_pretrained(model, is_trainable=True, **options)


@contextmanager
def loading_errors(model: object) -> Iterator[None]:
    """Turns what is found wrong while weights are loaded into errors of ours, with what was found.

    Raises:
        CheckpointError: The weights do not fit the model's configuration.
        ConfigError: Anything else that an option or a file has caused.
    """
    name = repr(model)[:200] if isinstance(model, str) else type(model).__name__
    try:
        with _trl.every_weight_found():
            yield
    except PrefalignError:
        raise
    except (ValueError, ImportError, OSError, SafetensorError) as error:
        raise ConfigError(f"The trainer of {name} cannot be made: {error}") from error
    except RuntimeError as error:
        if "mismatch" not in str(error):
            raise
        raise CheckpointError(
            f"The weights of {name} do not fit the shapes that its config.json says. {error}"
        ) from error
