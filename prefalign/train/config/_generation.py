"""The options of generating texts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..._errors import ConfigError
from ..._numbers import check_number


@dataclass
class GenerationOptions:
    """The options of `PrefConfig` for data of winners alone, where the reference generates the other completion.

    Args:
        max_new_tokens: Longest completion that is generated, in tokens, 1 or more; default: 64.
        temperature: 0 or more, dimensionless; 0 takes the likeliest token; default: 1.
        top_p: Sample from the likeliest tokens that together have this probability, above 0 and at most 1; default: 1.
        top_k: Sample from so many likeliest tokens, 0 or more; 0: from all; default: 0.
        stop_tokens: Tokens that end a completion, besides the end tokens of tokenizer and model.
        generate_ahead: For how many optimizer steps completions are generated at once, 1 or more; never beyond the step
            at which the reference changes; default: 4.
        generation_batch_size: Most sequences of one call of the generator, 1 or more; default: all at once.
    """

    max_new_tokens: int | None = field(
        default=None, metadata={"help": "Longest generated completion, in tokens; default: 64."}
    )
    temperature: float | None = field(
        default=None, metadata={"help": "Of generated completions; 0: likeliest token; default: 1."}
    )
    top_p: float | None = field(default=None, metadata={"help": "Nucleus of generated completions; default: 1."})
    top_k: int | None = field(
        default=None, metadata={"help": "Likeliest tokens that are sampled from; 0, the default: all."}
    )
    stop_tokens: list[str] | None = field(
        default=None, metadata={"help": "Tokens that end a generated completion, besides the model's own."}
    )
    generate_ahead: int | None = field(
        default=None, metadata={"help": "Optimizer steps that completions are generated for at once; default: 4."}
    )
    generation_batch_size: int | None = field(
        default=None, metadata={"help": "Most sequences of one call of the generator; default: all at once."}
    )


DEFAULTS = {
    "max_new_tokens": 64,
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "stop_tokens": (),
    "generate_ahead": 4,
    "generation_batch_size": None,
}


_RANGES: dict[str, dict[str, Any]] = {
    "max_new_tokens": {"low": 1, "whole": True},
    "temperature": {"low": 0},
    "top_p": {"low": 0, "high": 1, "ends": "(]"},
    "top_k": {"low": 0, "whole": True},
    "generate_ahead": {"low": 1, "whole": True},
    "generation_batch_size": {"low": 1, "whole": True},
}


def given_options(args: Any) -> dict[str, Any]:
    """The options for generation that were given."""
    return {name: getattr(args, name) for name in DEFAULTS if getattr(args, name, None) is not None}


def check_options(args: Any) -> None:
    """Refuse options for generation that are out of range.

    Raises:
        ConfigError: The first such option.
    """
    for name, value in given_options(args).items():
        if name in _RANGES:
            check_number(name, value, ConfigError, **_RANGES[name])
        elif not isinstance(value, list) or not all(isinstance(token, str) and token for token in value):
            raise ConfigError(f"`stop_tokens` must be a list of tokens (got {value!r}).")
