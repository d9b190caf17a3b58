"""What is logged beside the loss: when it is computed, and what it costs.

TRL computes its statistics in every step and logs their means over the steps since the last log. Some of them need
passes over the whole vocabulary: entropy, mean logits, token accuracy. With `statistics="logged_steps"` those are
computed in the steps that log alone, there for all micro-batches. What follows from the pairs' log-probabilities
(rewards, accuracies, margins, log-probabilities) is a few numbers per pair and stays a mean over all steps, as in TRL,
and so does the loss.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers.trainer_utils import IntervalStrategy

from .. import _trl


def will_log(trainer: Any) -> bool:
    """Whether the optimizer step that is under way is one that logs; the last one is, for the summary after it."""
    args, state = trainer.args, trainer.state
    step = state.global_step + 1
    if step >= state.max_steps or trainer.control.should_log or (step == 1 and args.logging_first_step):
        return True
    if args.logging_strategy == IntervalStrategy.EPOCH:
        return bool(trainer.accelerator.gradient_state.end_of_dataloader)
    return bool(args.logging_strategy == IntervalStrategy.STEPS and step % state.logging_steps == 0)


class Statistics:
    """Decides for every batch whether TRL's statistics are computed.

    Args:
        trainer: The trainer.
        every_step: They are, in every step, as in TRL.
    """

    def __init__(self, trainer: Any, every_step: bool) -> None:
        self.trainer = trainer
        self.every_step = every_step
        self._lean = False

    @property
    def wanted(self) -> bool:
        """Whether they are computed for a batch that comes now; always in an evaluation."""
        return self.every_step or not self.trainer.model.training or will_log(self.trainer)

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """Within, the model's head computes log-probabilities alone."""
        before, self._lean = self._lean, True
        try:
            yield
        finally:
            self._lean = before

    def install(self) -> None:
        """Give the model, once TRL has prepared it, a head that can leave them out."""
        trainer = self.trainer
        reads = trainer.objective.loss.reads_tokens
        extra = ("log_sum_sq_probs",) if reads & {"log_sum_sq_probs", "kl"} else ()
        if extra:
            _trl.compute_log_sum_sq(trainer)
        # Under `ld_alpha` TRL's log-probabilities are others than the pairs' own.
        self.every_step |= trainer.ld_alpha is not None or _trl.has_router_loss(trainer)
        if self.every_step:
            return
        model: nn.Module = trainer.accelerator.unwrap_model(trainer.model)
        get_base_model: Callable[[], Any] | None = getattr(model, "get_base_model", None)  # PEFT's
        inner: Any = model if get_base_model is None else get_base_model()
        full, lean = _trl.both_heads(inner, extra)

        def forward(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            return (lean if self._lean and kwargs.get("fused_lm_head") else full)(*args, **kwargs)

        # `generate` validates its keyword arguments against the signature of the model's own forward.
        forward.__wrapped__ = getattr(full, "__wrapped__", full)  # type: ignore[attr-defined]
        inner.forward = types.MethodType(forward, inner)


def pair_statistics(
    inputs: Mapping[str, Any], chosen: Tensor, rejected: Tensor, beta: float, gather: Callable[[Tensor], Tensor]
) -> dict[str, float]:
    """TRL's statistics that follow from the pairs' log-probabilities, under TRL's names, equal to the last bit.

    Args:
        inputs: The batch with the reference's log-probabilities, zero without a reference.
        chosen, rejected: The policy's, (pairs,), sums in nats.
        beta: Scale of the rewards.
        gather: Collects the pairs of all processes.
    """
    logps = chosen.detach(), rejected.detach()
    of_reference = (inputs[key] for key in _trl.REFERENCE_KEYS)
    rewards = [beta * (mine - theirs) for mine, theirs in zip(logps, of_reference, strict=True)]
    columns = {
        "rewards/chosen": rewards[0],
        "rewards/rejected": rewards[1],
        "rewards/accuracies": (rewards[0] > rewards[1]).float(),
        "rewards/margins": rewards[0] - rewards[1],
        "logps/chosen": logps[0],
        "logps/rejected": logps[1],
    }
    return {name: gather(column).mean().item() for name, column in columns.items()}
