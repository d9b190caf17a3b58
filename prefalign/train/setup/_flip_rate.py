"""`flip_rate="estimate"` in a loss: measured on the training pairs before anything is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ..._errors import ConfigError, DataError
from ...losses import waits_for_flip_rate, with_flip_rate
from ...references import Policy
from ..config import Objective


def settle_flip_rate(objective: Objective, model: Any, policy: Policy, pairs: Any, args: Any) -> Objective:
    """The objective with a number for every flip rate that is to be estimated, and a line that says which.

    Args:
        objective: What the arguments say.
        model: The policy, or its name.
        policy: What is known of it.
        pairs: The training pairs, checked.
        args: The training arguments.

    Raises:
        ConfigError: The pairs cannot tell, or are a stream.
    """
    if not waits_for_flip_rate(objective.loss):
        return objective
    remedy = "Give a number, as in `flip_rate=0.1`, or measure on other data or with another model: `prefalign noise`."
    if not hasattr(pairs, "__len__"):
        raise ConfigError(f'`flip_rate="estimate"` needs pairs that can be read twice (got a stream). {remedy}')
    from ...diagnose import measure_noise

    tokenizer = getattr(policy.processing_class, "tokenizer", policy.processing_class)
    try:
        noise = measure_noise(
            pairs,
            model,
            tokenizer,
            max_length=args.max_length or 1024,
            cache=Path(args.output_dir) / "prefalign_cache" / "noise",
            seed=args.seed,
            progress=args.process_index == 0,
            model_init_kwargs=_loading(args) if isinstance(model, str) else None,
        )
    except DataError as error:
        raise ConfigError(f'`flip_rate="estimate"` found no number: {error} {remedy}') from error
    if noise.taken is None:
        raise ConfigError(f'`flip_rate="estimate"` found no number in the training pairs.\n{noise}\n{remedy}')
    rate, low, high, source = noise.taken
    settled = replace(objective, loss=with_flip_rate(objective.loss, round(rate, 4)))
    if args.process_index == 0:
        print(f"Flip rate: {rate:.4f}, 95 % interval [{low:.4f}, {high:.4f}], estimated from {source}.")
        print(f"Loss: {settled.expression or settled.formula}", flush=True)
    return settled


def _loading(args: Any) -> dict[str, Any]:
    """How the policy will be loaded: the margins are to be those of the weights that are trained."""
    options = dict(args.model_init_kwargs or {})
    if args.trust_remote_code:
        options.setdefault("trust_remote_code", True)
    # One process reads the pairs on one device; how the training spreads the weights says nothing here.
    options.pop("device_map", None)
    return options
