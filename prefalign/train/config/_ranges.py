"""The training arguments that are numbers, each with the range in which it means something."""

from __future__ import annotations

import math
from typing import Any

from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from ..._errors import ConfigError, did_you_mean

# Name -> (kind, smallest value, whether it may be the smallest one). None, where TRL allows it, is left alone.
_RANGES: dict[str, tuple[type, float, bool]] = {
    "learning_rate": (float, 0, True),
    "weight_decay": (float, 0, True),
    "max_grad_norm": (float, 0, True),
    "num_train_epochs": (float, 0, False),
    "warmup_steps": (float, 0, True),
    "logging_steps": (float, 0, False),
    "save_steps": (float, 0, False),
    "eval_steps": (float, 0, False),
    "per_device_train_batch_size": (int, 1, True),
    "per_device_eval_batch_size": (int, 1, True),
    "gradient_accumulation_steps": (int, 1, True),
    "max_length": (int, 1, True),
    "tokens_per_batch": (int, 1, True),
    "save_total_limit": (int, 1, True),
    "dataloader_num_workers": (int, 0, True),
    "seed": (int, 0, True),
}
# Beyond it a counter or a seed does not fit where torch and NumPy keep it.
_LARGEST = 2**31


def check_ranges(args: Any) -> None:
    """Refuse numbers that are none, infinite, or out of range.

    Args:
        args: Training arguments.

    Raises:
        ConfigError: The first such number.
    """
    for name, (kind, least, inclusive) in _RANGES.items():
        value = getattr(args, name, None)
        if value is not None:
            _check(name, value, kind, least, inclusive)
    _check_reports(args.report_to)
    steps = args.max_steps
    if steps != -1:
        _check("max_steps", steps, int, 1, True)


def _check_reports(names: object) -> None:
    """transformers would look for them once the weights are loaded."""
    given = [names] if isinstance(names, str) else names if isinstance(names, list | tuple) else []
    for name in given:
        if name not in ("none", "all", *INTEGRATION_TO_CALLBACK):
            near = did_you_mean(str(name), INTEGRATION_TO_CALLBACK)
            known = ", ".join(INTEGRATION_TO_CALLBACK)
            raise ConfigError(f"`report_to` must be among none, all, {known} (got {name!r:.60}).{near}")


def _check(name: str, value: object, kind: type, least: float, inclusive: bool) -> None:
    number = isinstance(value, int | kind) and not isinstance(value, bool)
    fits = number and math.isfinite(value) and abs(value) < _LARGEST  # type: ignore[arg-type]
    if not fits or not (value >= least if inclusive else value > least):  # type: ignore[operator]
        what = "a whole number" if kind is int else "a finite number"
        sign = ">=" if inclusive else ">"
        raise ConfigError(f"`{name}` must be {what} {sign} {least:g} (got {value!r:.60}).")
