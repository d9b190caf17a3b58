"""The training arguments that are numbers, each with the range in which it means something."""

from __future__ import annotations

from typing import Any

from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from ..._errors import ConfigError, did_you_mean
from ..._numbers import check_number

# Name -> the range, as `check_number` takes it. None, where TRL allows it, is left alone.
_FROM_0: dict[str, Any] = {"low": 0}
_ABOVE_0: dict[str, Any] = {"low": 0, "ends": "(]"}
_COUNT: dict[str, Any] = {"low": 1, "whole": True}
_RANGES: dict[str, dict[str, Any]] = {
    "learning_rate": _FROM_0,
    "weight_decay": _FROM_0,
    "max_grad_norm": _FROM_0,
    "num_train_epochs": _ABOVE_0,
    "warmup_steps": _FROM_0,
    "logging_steps": _ABOVE_0,
    "save_steps": _ABOVE_0,
    "eval_steps": _ABOVE_0,
    "per_device_train_batch_size": _COUNT,
    "per_device_eval_batch_size": _COUNT,
    "gradient_accumulation_steps": _COUNT,
    "max_length": _COUNT,
    "tokens_per_batch": _COUNT,
    "save_total_limit": _COUNT,
    "dataloader_num_workers": {"low": 0, "whole": True},
    "seed": {"low": 0, "whole": True},
}
# Beyond it a counter or a seed does not fit where torch and NumPy keep it.
_LARGEST = 2**31


def check_ranges(args: Any) -> None:
    """Refuse values that are not finite numbers, or out of range.

    Args:
        args: Training arguments.

    Raises:
        ConfigError: The first such number.
    """
    for name, limits in _RANGES.items():
        _check(name, getattr(args, name, None), limits)
    _check_reports(args.report_to)
    if args.max_steps != -1:
        _check("max_steps", args.max_steps, _COUNT)


def _check_reports(names: object) -> None:
    """transformers would look for them once the weights are loaded."""
    given = [names] if isinstance(names, str) else names if isinstance(names, list | tuple) else []
    for name in given:
        if name not in ("none", "all", *INTEGRATION_TO_CALLBACK):
            near = did_you_mean(str(name), INTEGRATION_TO_CALLBACK)
            known = ", ".join(INTEGRATION_TO_CALLBACK)
            raise ConfigError(f"`report_to` must be among none, all, {known} (got {name!r:.60}).{near}")


def _check(name: str, value: Any, limits: dict[str, Any]) -> None:
    if value is not None:
        check_number(name, value, ConfigError, **limits)
        if value >= _LARGEST:
            raise ConfigError(f"`{name}` must be less than 2^31 (got {value!r:.60}).")
