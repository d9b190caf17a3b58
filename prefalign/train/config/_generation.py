"""The options of generating texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..._errors import ConfigError
from ..._numbers import check_number
from ._help import with_help


@with_help
@dataclass
class GenerationOptions:
    """The options of `PrefConfig` for data of winners alone, where the reference generates the other completion.

    Args:
        max_new_tokens: Longest completion that is generated, in tokens, 1 or more; default: 64.
        temperature: Of the sampling, 0 or more, dimensionless; 0 takes the likeliest token; default: 1.
        top_p: Sample from the likeliest tokens that together have this probability, above 0 and at most 1; default: 1.
        top_k: Sample from so many likeliest tokens, 0 or more; 0: from all; default: 0.
        stop_tokens: Tokens that end a completion, besides the end tokens of tokenizer and model.
        generate_ahead: For how many optimizer steps completions are generated at once, 1 or more; never beyond the step
            at which the reference changes; default: 4.
        generation_batch_size: Most sequences of one call of the generator, 1 or more; default: all at once.
    """

    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_tokens: list[str] | None = None
    generate_ahead: int | None = None
    generation_batch_size: int | None = None


# Name -> its default, and the range of a number as `check_number` takes it. None says "not given" above.
_OPTIONS: dict[str, tuple[Any, dict[str, Any]]] = {
    "max_new_tokens": (64, {"low": 1, "whole": True}),
    "temperature": (1.0, {"low": 0}),
    "top_p": (1.0, {"low": 0, "high": 1, "ends": "(]"}),
    "top_k": (0, {"low": 0, "whole": True}),
    "stop_tokens": ((), {}),
    "generate_ahead": (4, {"low": 1, "whole": True}),
    "generation_batch_size": (None, {"low": 1, "whole": True}),
}
DEFAULTS = {name: default for name, (default, _) in _OPTIONS.items()}


def given_options(args: Any) -> dict[str, Any]:
    """The options for generation that were given."""
    return {name: getattr(args, name) for name in DEFAULTS if getattr(args, name, None) is not None}


def check_options(args: Any) -> None:
    """Refuse options for generation that are out of range.

    Raises:
        ConfigError: The first such option.
    """
    for name, value in given_options(args).items():
        limits = _OPTIONS[name][1]
        if limits:
            check_number(name, value, ConfigError, **limits)
        elif not isinstance(value, list) or not all(isinstance(token, str) and token for token in value):
            raise ConfigError(f"`stop_tokens` must be a list of tokens (got {value!r}).")
