"""The shared-prefix forward: a pair's common prefix is computed once, padding never, and the head only where it counts.

TRL gives its models a fused forward, `model(..., labels=..., fused_lm_head=True)`, that returns per-token
log-probabilities of a batch of pairs. `install` puts a layer in front of it: the batch is packed by a plan
(`_packing.py`), the backbone runs on the packed row with an attention that keeps the logical sequences apart
(`_attention.py`), its hidden states are gathered where a scored token is predicted, TRL's head runs on just those rows
(with its logits kept where they fit, `_head.py`), and the results go back to the padded layout. Losses, references and
metrics see what they always saw.

The first packed batch in each state of the model (training or not, with which adapters, ...) is compared with the plain
forward. Where the numbers differ, and where the architecture is known not to allow packing, the plain forward stays and
one warning says why.
"""

from __future__ import annotations

import logging
import types
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import DistributedType
from torch import Tensor, nn

from .. import _trl
from .._trl import base_of
from . import _attention
from ._head import KeptLogits, fits
from ._plan import PairPlan, plan_pairs
from ._support import inner_model, reason_against, reason_against_default, reason_against_setup

logger = logging.getLogger(__name__)


class SharedPrefix:
    """The shared-prefix forward of one model; made by `install`.

    Attributes:
        active: Whether batches are packed; false once a self-check failed.
        checked: In which states of the model a batch was compared with the plain forward: with gradients or without,
            in training mode or not, with which adapters.
        packed_tokens, padded_tokens: What was computed and what the plain forward would have computed, so far.
    """

    def __init__(self, model: nn.Module, name: str, setup: Setup) -> None:
        self.name = name
        self.active = True
        self.checked: set[object] = set()
        self.packed_tokens = 0
        self.padded_tokens = 0
        self._setup = setup
        self._plan: tuple[Tensor, PairPlan | None] | None = None
        self._inner = inner = inner_model(model)
        self._adapted = next((m for m in inner.modules() if _is_adapted(m)), None)
        self._said_padding = False
        self._vocabulary: int = inner.config.get_text_config().vocab_size
        self._plain: Callable[..., Any] = inner.forward
        # Left in place after the call: gradient checkpointing runs the layers again in the backward pass.
        inner.config._attn_implementation = _attention.register(base_of(inner.config._attn_implementation))
        backbone = inner.base_model
        if _gather_predictors not in backbone._forward_hooks.values():  # a second trainer's, or a copy of a model
            backbone.register_forward_hook(_gather_predictors, with_kwargs=True)
        inner.forward = types.MethodType(self._make_forward(), inner)

    def _make_forward(self) -> Callable[..., Any]:
        plain = self._plain

        def forward(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if not (self.active and kwargs.get("fused_lm_head") and _packable(args, kwargs)):
                return plain(*args, **kwargs)
            plan = self._plan_for(kwargs["input_ids"], kwargs["attention_mask"], kwargs["labels"])
            if self._state() not in self.checked and (plan is not None or self._setup.sharded):
                return self._first(plan, kwargs)
            if plan is not None:
                return self._packed(plan, kwargs)
            self._say_padding(kwargs["attention_mask"])
            return plain(**kwargs)

        # `generate` validates its keyword arguments against the signature of the model's own forward.
        forward.__wrapped__ = getattr(plain, "__wrapped__", plain)  # type: ignore[attr-defined]
        return forward

    def _state(self) -> object:
        """What of the model may decide how its forward pass is made."""
        adapters = None
        if self._adapted is not None:
            adapters = self._adapted.disable_adapters or tuple(self._adapted.active_adapters)
        return torch.is_grad_enabled(), self._inner.training, adapters

    def _say_padding(self, attention_mask: Tensor) -> None:
        if not self._said_padding and bool((attention_mask[:, 0] == 0).any()):
            self._said_padding = True
            logger.warning("shared prefix: off for batches of %s that are padded on the left, as this one.", self.name)

    def _plan_for(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> PairPlan | None:
        # The reference's forward on the same batch, where it is the same module, uses the same plan.
        if self._plan is None or self._plan[0] is not input_ids:
            self._plan = (input_ids, plan_pairs(input_ids, attention_mask, labels))
        return self._plan[1]

    def _packed(self, plan: PairPlan, kwargs: dict[str, Any]) -> Any:
        rest = {key: value for key, value in kwargs.items() if key not in ("input_ids", "attention_mask", "labels")}
        # TRL's forward shifts labels and hidden states by one: a leading label and a trailing state are lost there.
        labels = torch.cat([plan.targets[:1], plan.targets])[None]
        with _attention.no_masks(), self._head(plan):
            output = self._plain(
                input_ids=plan.input_ids, position_ids=plan.position_ids, labels=labels, pair_plan=plan, **rest
            )
        for field in ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1", "label_mask"):
            value = getattr(output, field)
            if value is not None:
                setattr(output, field, plan.unpack(value.reshape(-1)))
        self.packed_tokens += plan.packed_tokens
        self.padded_tokens += plan.padded_tokens
        return output

    def _head(self, plan: PairPlan) -> Any:
        device = plan.targets.device
        kept = not _trl.head_is_replaced() and fits(len(plan.targets), self._vocabulary, self._inner.dtype, device)
        return _trl.head(KeptLogits) if kept else nullcontext()

    def _first(self, plan: PairPlan | None, kwargs: dict[str, Any]) -> Any:
        """Compute a state's first batch both ways; turn packing off where a log-probability differs.

        Where weights are sharded, every process has to make the same forward passes and come to the same end.
        """
        self.checked.add(self._state())
        with torch.no_grad():
            plain = self._plain(**kwargs).log_probs
        output, why = None, None
        try:
            output = self._plain(**kwargs) if plan is None else self._packed(plan, kwargs)
        except (RuntimeError, TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            why = f"its packed forward raised {type(error).__name__}: {error}"
        if output is not None and plan is not None:
            why = self._difference(output.log_probs.detach(), plain)
        if self._setup.sharded and _any_process(why is not None, plain.device):
            why = why or "another process found a difference from the plain forward"
        if why is None:
            return output
        self.active = False
        logger.warning("shared prefix: off for %s, %s; training goes on with the plain forward.", self.name, why)
        return self._plain(**kwargs)

    def _difference(self, packed: Tensor, plain: Tensor) -> str | None:
        gap = (packed - plain).abs().max().item()
        tolerance = self._setup.tolerance(self._inner.dtype, plain.device.type)
        if not gap <= tolerance:  # NaN too
            return (
                f"on the first batch its log-probabilities differ by {gap:.2g} nats from the plain forward "
                f"(allowed: {tolerance:.2g})"
            )
        logger.info("shared prefix: %s agrees with the plain forward within %.2g nats", self.name, gap)
        return None


@dataclass(frozen=True)
class Setup:
    """What of the way of training matters here.

    Args:
        half: Layers compute in bfloat16 or float16, whatever the weights' dtype.
        sharded: Every forward pass is one of all processes together (FSDP, DeepSpeed).
    """

    half: bool = False
    sharded: bool = False

    def tolerance(self, dtype: torch.dtype, device: str) -> float:
        """Largest difference of one token's log-probability, in nats, that rounding explains."""
        half = self.half or torch.is_autocast_enabled(device) or dtype in (torch.bfloat16, torch.float16)
        return 0.75 if half else 1e-4


def install(model: nn.Module, name: str = "the policy", setup: Setup | None = None) -> SharedPrefix | None:
    """Give a model that TRL has prepared the shared-prefix forward.

    Args:
        model: A causal language model, PEFT or not, after TRL's `add_fused_lm_head`.
        name: How messages call it.
        setup: How it is trained.

    Returns:
        The installed forward, or None where `reason_against` says why not (a warning repeats it).
    """
    why = reason_against(model)
    if why is not None:
        logger.warning("shared prefix: off for %s, %s.", name, why)
        return None
    return SharedPrefix(model, name, setup or Setup())


def install_all(
    policy: nn.Module,
    reference: nn.Module | None,
    accelerator: Any,
    asked: bool | None,
    neftune: float | None = None,
) -> SharedPrefix | None:
    """Give the policy and, where there is a second model, the reference the shared-prefix forward.

    Args:
        policy, reference: The prepared models.
        accelerator: The trainer's.
        asked: The option `shared_prefix`: None puts it on where it is known to be exact, True also where a check of
            the first batch has to tell, False nowhere. Where it is off against the option, one line says why.
        neftune: The option `neftune_noise_alpha`.

    Returns:
        The policy's; None where it is off.
    """
    if asked is False:
        return None
    policy = accelerator.unwrap_model(policy)
    why = reason_against(policy) or reason_against_setup(accelerator, neftune)
    if why is None and asked is None:
        why = reason_against_default(policy)
    if why is not None:
        if accelerator.is_main_process:
            logger.warning("shared prefix: off, %s.", why)
        return None
    setup = Setup(
        half=accelerator.mixed_precision in ("bf16", "fp16"),
        sharded=accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED),
    )
    if reference is not None:
        install(accelerator.unwrap_model(reference), "the reference", setup)
    return SharedPrefix(policy, "the policy", setup)


def _any_process(failed: bool, device: torch.device) -> bool:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return failed
    flag = torch.tensor(float(failed), device=device)
    torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
    return bool(flag.item())


def _gather_predictors(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
    """Forward hook of the backbone: keep the states that predict a scored token, and one that is shifted off."""
    plan: PairPlan | None = kwargs.get("pair_plan")
    if plan is None:
        return output
    hidden = output.last_hidden_state
    rows = torch.cat([plan.predictors, plan.predictors[-1:]])
    output.last_hidden_state = hidden.index_select(1, rows.to(hidden.device))
    return output


def _is_adapted(module: nn.Module) -> bool:
    """Whether it is a layer with PEFT's adapters; a model of transformers has methods of these names."""
    return isinstance(getattr(type(module), "disable_adapters", None), property)


def _packable(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    wanted = ("input_ids", "attention_mask", "labels")
    return (
        not args and all(isinstance(kwargs.get(k), Tensor) for k in wanted) and not kwargs.get("output_router_logits")
    )
