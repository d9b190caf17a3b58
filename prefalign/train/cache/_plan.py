"""Whether the reference's log-probabilities are cached: what is known of it before any weights load."""

from __future__ import annotations

import logging
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..._errors import ConfigError
from ...references import Reference, cache_folder, stores_in
from ..config import WORDS

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CachePlan:
    """What the option `reference_cache` comes to.

    Attributes:
        folder: Where the cache lies; None if there is none.
        forced: It was asked for, so that nothing but an error keeps it from being used.
        thrifty: It is used only where it saves forward passes of this very run.
        epochs: How often the training data are gone through; infinite for a stream.
        stands_alone: The reference's weights are not part of the policy and were not passed as a model: they are loaded
            for the cache, and freed once every row is cached.
    """

    folder: Path | None
    forced: bool = False
    thrifty: bool = True
    epochs: float = 0.0
    stands_alone: bool = False

    @property
    def postpones(self) -> bool:
        """Whether the second model is left out when the trainer is made."""
        return self.folder is not None and self.stands_alone

    def off(self, why: str) -> None:
        """Say that the cache is not used.

        Raises:
            ConfigError: It was asked for.
        """
        if self.forced:
            raise ConfigError(f'`reference_cache` would have no effect: {why}. Leave it out, or write "off".')
        logger.info("Reference cache: off, %s.", why)


def plan_cache(
    args: Any, reference: Reference, data: Any, given: Any, model: Any, peft_config: Any, generates: bool
) -> CachePlan:
    """Settle what can be settled before weights load.

    Args:
        args: The training arguments; TRL's `DPOConfig` has no cache.
        reference: What the policy is compared with.
        data: The training data.
        given: A model that was passed as `ref_model`, if any.
        model: The policy, or its name.
        peft_config: The new adapter, if any.
        generates: Completions are generated during training.

    Raises:
        ConfigError: The cache was asked for, and cannot be used.
    """
    choice = getattr(args, "reference_cache", "off")
    if choice == "off":
        return CachePlan(None)
    folder = cache_folder() if choice in WORDS else Path(choice)
    alone = _stands_alone(model, given, reference, peft_config)
    plan = CachePlan(folder, choice not in ("auto", "shared"), choice == "auto", _epochs(args, data), alone)
    why = _reason_against(plan, args, reference, data, generates)
    if why is None:
        return plan
    plan.off(why)
    return CachePlan(None)


def _reason_against(plan: CachePlan, args: Any, reference: Reference, data: Any, generates: bool) -> str | None:
    if not reference.needs_model:
        return "the loss has no reference"
    if not reference.fixed:
        return f"the reference {reference.expression!r} changes during training"
    if type(reference).logps is not Reference.logps:
        return f"the reference {reference.expression!r} computes its log-probabilities in its own way"
    if args.precompute_ref_log_probs:
        return "`precompute_ref_log_probs=True` has TRL compute them before training"
    if generates:
        return "completions are generated during training"
    if {"image", "images"} & set(getattr(data, "column_names", None) or ()):
        return "texts with images are not found by their tokens"
    assert plan.folder is not None
    problem = _problem(plan.folder)
    if problem is not None:
        return problem
    if plan.thrifty and not stores_in(plan.folder):
        if plan.epochs <= 1:
            return "nothing would be computed twice in one epoch, and nothing is there from an earlier run"
        if math.isinf(plan.epochs):
            return 'how often a stream repeats is not known, and nothing is there from an earlier run; "on" keeps it'
    return None


def _problem(folder: Path) -> str | None:
    """Why the folder cannot be used; a read-only one with something in it can."""
    try:
        if stores_in(folder):
            return None
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"its folder {str(folder)!r} cannot be made ({error.strerror})"
    real = os.access in os.supports_effective_ids
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=real):
        return f"its folder {str(folder)!r} may not be written to"
    return None


def _epochs(args: Any, data: Any) -> float:
    if not hasattr(data, "__len__"):
        return math.inf
    if args.max_steps <= 0:
        return float(args.num_train_epochs)
    per_step = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    return float(args.max_steps * per_step / max(1, len(data)))


def _stands_alone(model: Any, given: Any, reference: Reference, peft_config: Any) -> bool:
    if given is not None:
        return False
    # A model that was passed as an object is copied before the trainer is made: its name may not be what it is now.
    adapters = peft_config is not None or hasattr(model, "peft_config")
    return not reference.is_start or (isinstance(model, str) and not adapters)
