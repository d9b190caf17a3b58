"""The shared-prefix forward: a pair's common prefix is computed once, padding never, and the head only where it counts.

TRL gives its models a fused forward, `model(..., labels=..., fused_lm_head=True)`, that returns per-token
log-probabilities of a batch of pairs. `install` puts a layer in front of it: the batch is packed by a plan
(`_packing.py`), the backbone runs on the packed row with an attention that keeps the logical sequences apart, its
hidden states are gathered where a scored token is predicted, TRL's own head runs on just those rows, and the results go
back to the padded layout. Losses, references and metrics see what they always saw.

The first packed batch is compared with the plain forward. Where the numbers differ, and where the architecture is known
not to allow packing, the plain forward stays and one warning says why.
"""

from __future__ import annotations

import logging
import sys
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ._packing import PairPlan, Segment, plan_pairs

logger = logging.getLogger(__name__)

PREFIX = "prefalign_"  # of the attention implementations registered here; the rest is the one they stand on
BASES = ("sdpa", "eager")

# Layers that carry state along the row, or whose positions cannot be reset inside it.
REFUSED = {
    **dict.fromkeys(
        ("bamba", "falcon_h1", "falcon_mamba", "granitemoehybrid", "jamba", "lfm2", "lfm2_moe", "mamba", "mamba2",
         "nemotron_h", "qwen3_next", "recurrent_gemma", "rwkv", "xlstm", "zamba", "zamba2", "minimax", "kimi_linear",
         "olmo_hybrid", "qwen3_5", "qwen3_5_moe", "qwen3_5_text", "qwen3_5_moe_text"),
        "its recurrent layers would carry one sequence into the next",
    ),
    **dict.fromkeys(("llama4", "llama4_text"), "its attention works in chunks"),
    **dict.fromkeys(("bloom", "mpt", "falcon"), "its ALiBi positions cannot restart within a row"),
    **dict.fromkeys(("opt", "biogpt", "xglm"), "its learned positions are counted from the attention mask"),
}  # fmt: skip
# Families whose sliding window reaches the attention function, seen in tests with texts longer than the window.
WINDOWED = {"mistral", "gemma2", "gemma3_text", "olmo3", "cohere2", "gpt_oss", "qwen2", "qwen3", "phi3"}

_packed_call = False  # whether masks are being made for a packed row: layers below must then make none


def reason_against(model: nn.Module) -> str | None:
    """Why `model` (a causal language model, PEFT or not) cannot take the shared-prefix forward; None if it may."""
    inner = _inner(model)
    config = inner.config
    text = config.get_text_config()
    if text is not config or hasattr(config, "vision_config"):
        return "models with other inputs than text are not packed"
    if text.model_type in REFUSED:
        return f"{text.model_type}: {REFUSED[text.model_type]}"
    if _base(config._attn_implementation) not in BASES:
        return f"its attention implementation is {config._attn_implementation!r}; only {' and '.join(BASES)} are packed"
    if not getattr(inner, "_can_set_attn_implementation", lambda: False)():
        return f"{text.model_type} does not call transformers' attention interface"
    if _window(text) and text.model_type not in WINDOWED:
        return f"{text.model_type} has a sliding window that was not tested"
    if any(p > 0 for p in _dropouts(model)):
        return "dropout would differ between a shared prefix and its two copies"
    if any(getattr(c, "is_prompt_learning", False) for c in getattr(model, "peft_config", {}).values()):
        return "prompt-learning adapters put virtual tokens before every row"
    if getattr(text, "output_router_logits", False):
        return "the router's auxiliary loss counts every copy of a token"
    return None


class SharedPrefix:
    """The shared-prefix forward of one model; made by `install`.

    Attributes:
        active: Whether batches are packed; false once a self-check failed.
        packed_tokens, padded_tokens: What was computed and what the plain forward would have computed, so far.
    """

    def __init__(self, model: nn.Module, name: str) -> None:
        self.name = name
        self.active = True
        self.checked = False
        self.packed_tokens = 0
        self.padded_tokens = 0
        self._plan: tuple[Tensor, PairPlan | None] | None = None
        inner = _inner(model)
        self._weights_dtype: torch.dtype = inner.dtype
        self._plain: Callable[..., Any] = inner.forward
        base = _base(inner.config._attn_implementation)
        _register(base)
        # Left in place after the call: gradient checkpointing runs the layers again in the backward pass.
        inner.config._attn_implementation = PREFIX + base
        inner.base_model.register_forward_hook(_gather_predictors, with_kwargs=True)
        inner.forward = types.MethodType(self._make_forward(), inner)

    def _make_forward(self) -> Callable[..., Any]:
        plain = self._plain

        def forward(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if not (self.active and kwargs.get("fused_lm_head") and _packable(args, kwargs)):
                return plain(*args, **kwargs)
            plan = self._plan_for(kwargs["input_ids"], kwargs["attention_mask"], kwargs["labels"])
            if plan is None:
                return plain(*args, **kwargs)
            if not self.checked and not self._check(plan, kwargs):
                return plain(*args, **kwargs)
            self.packed_tokens += plan.packed_tokens
            self.padded_tokens += plan.padded_tokens
            return self._packed(plan, kwargs)

        # `generate` validates its keyword arguments against the signature of the model's own forward.
        forward.__wrapped__ = getattr(plain, "__wrapped__", plain)  # type: ignore[attr-defined]
        return forward

    def _plan_for(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> PairPlan | None:
        # The reference's forward on the same batch, where it is the same module, uses the same plan.
        if self._plan is None or self._plan[0] is not input_ids:
            self._plan = (input_ids, plan_pairs(input_ids, attention_mask, labels))
        return self._plan[1]

    def _packed(self, plan: PairPlan, kwargs: dict[str, Any]) -> Any:
        global _packed_call
        rest = {key: value for key, value in kwargs.items() if key not in ("input_ids", "attention_mask", "labels")}
        # TRL's forward shifts labels and hidden states by one: a leading label and a trailing state are lost there.
        labels = torch.cat([plan.targets[:1], plan.targets])[None]
        _packed_call = True
        try:
            output = self._plain(
                input_ids=plan.input_ids, position_ids=plan.position_ids, labels=labels, pair_plan=plan, **rest
            )
        finally:
            _packed_call = False
        for field in ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1", "label_mask"):
            value = getattr(output, field)
            if value is not None:
                setattr(output, field, plan.unpack(value.reshape(-1)))
        return output

    @torch.no_grad()
    def _check(self, plan: PairPlan, kwargs: dict[str, Any]) -> bool:
        """Compare one batch with the plain forward; turn packing off where a log-probability differs."""
        self.checked = True
        try:
            packed = self._packed(plan, kwargs).log_probs
        except (RuntimeError, TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            self._turn_off(f"its packed forward raised {type(error).__name__}: {error}")
            return False
        plain = self._plain(**kwargs).log_probs
        gap = (packed - plain).abs().max().item()
        tolerance = _tolerance(self._weights_dtype, plain.device.type)
        if not gap <= tolerance:  # NaN too
            self._turn_off(
                f"on the first batch its log-probabilities differ by {gap:.2g} nats from the plain forward "
                f"(allowed: {tolerance:.2g})"
            )
            return False
        logger.info("shared prefix: %s agrees with the plain forward within %.2g nats", self.name, gap)
        return True

    def _turn_off(self, why: str) -> None:
        self.active = False
        logger.warning("shared prefix: off for %s, %s; training goes on with the plain forward.", self.name, why)


def install(model: nn.Module, name: str = "the policy") -> SharedPrefix | None:
    """Give a model that TRL has prepared the shared-prefix forward.

    Args:
        model: A causal language model, PEFT or not, after TRL's `add_fused_lm_head`.
        name: How messages call it.

    Returns:
        The installed forward, or None where `reason_against` says why not (a warning repeats it).
    """
    why = reason_against(model)
    if why is not None:
        logger.warning("shared prefix: off for %s, %s.", name, why)
        return None
    return SharedPrefix(model, name)


def install_all(policy: nn.Module, reference: nn.Module | None, accelerator: Any) -> None:
    """Give the policy and, where there is a second model, the reference the shared-prefix forward."""
    install(accelerator.unwrap_model(policy), "the policy")
    if reference is not None:
        install(accelerator.unwrap_model(reference), "the reference")


def _attend(base: str) -> Callable[..., tuple[Tensor, None]]:
    """The attention function that keeps the logical sequences of a packed row apart, on top of `base`."""

    def attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, None]:
        call = _base_attention(base, module)
        plan: PairPlan | None = kwargs.pop("pair_plan", None)
        if plan is None:
            result: tuple[Tensor, None] = call(module, query, key, value, attention_mask, **kwargs)
            return result
        window = kwargs.get("sliding_window") or getattr(module, "sliding_window", None)
        outputs = []
        for segment in plan.segments:
            for positions, keys in _streams(segment):
                queries = slice(positions[0], positions[0] + positions[1])
                q = query[:, :, queries]
                k, v = (torch.cat([t[:, :, span] for span in keys], dim=2) for t in (key, value))
                mask = _causal_mask(base, q, k.shape[2], window)
                outputs.append(call(module, q, k, v, mask, **kwargs)[0])
        return torch.cat(outputs, dim=1), None

    return attention


def _streams(segment: Segment) -> list[tuple[tuple[int, int], list[slice]]]:
    """(first query, number of queries) and the spans of keys, for the chosen stream and for the rejected rest."""
    own = slice(segment.split, segment.stop)
    prefix = slice(segment.start, segment.start + segment.shared)
    streams = [((segment.start, segment.split - segment.start), [slice(segment.start, segment.split)])]
    if segment.stop > segment.split:
        streams.append(((segment.split, segment.stop - segment.split), [prefix, own]))
    return streams


def _causal_mask(base: str, query: Tensor, keys: int, window: int | None) -> Tensor | None:
    """Lower-right causal: the last query sees every key (within the window). None where the kernel does it itself."""
    queries = query.shape[2]
    windowed = window is not None and keys > window
    if base == "sdpa" and queries == keys and not windowed:
        return None
    distance = (
        torch.arange(queries, device=query.device)[:, None]
        + (keys - queries)
        - torch.arange(keys, device=query.device)[None, :]
    )
    allowed = distance >= 0
    if windowed:
        assert window is not None
        allowed &= distance < window
    if base == "sdpa":
        return allowed[None, None]
    return torch.zeros_like(allowed, dtype=query.dtype).masked_fill(~allowed, torch.finfo(query.dtype).min)[None, None]


def _base_attention(base: str, module: nn.Module) -> Callable[..., Any]:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if base != "eager":
        function: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS[base]
        return function
    # Eager attention is each family's own (soft caps, sinks), beside its attention class.
    for cls in type(module).__mro__:
        own = getattr(sys.modules[cls.__module__], "eager_attention_forward", None)
        if own is not None:
            eager: Callable[..., Any] = own
            return eager
    raise AttributeError(f"{type(module).__module__} has no eager_attention_forward")


def _register(base: str) -> None:
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    plain_mask = ALL_MASK_ATTENTION_FUNCTIONS[base]

    def mask(*args: Any, **kwargs: Any) -> Tensor | None:
        made: Tensor | None = None if _packed_call else plain_mask(*args, **kwargs)
        return made

    ALL_ATTENTION_FUNCTIONS.register(PREFIX + base, _attend(base))
    ALL_MASK_ATTENTION_FUNCTIONS.register(PREFIX + base, mask)


def _gather_predictors(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
    """Forward hook of the backbone: keep the states that predict a scored token, and one that is shifted off."""
    plan: PairPlan | None = kwargs.get("pair_plan")
    if plan is None:
        return output
    hidden = output.last_hidden_state
    rows = torch.cat([plan.predictors, plan.predictors[-1:]])
    output.last_hidden_state = hidden.index_select(1, rows.to(hidden.device))
    return output


def _packable(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    wanted = ("input_ids", "attention_mask", "labels")
    return (
        not args and all(isinstance(kwargs.get(k), Tensor) for k in wanted) and not kwargs.get("output_router_logits")
    )


def _inner(model: nn.Module) -> Any:
    get_base_model: Callable[[], Any] | None = getattr(model, "get_base_model", None)  # PEFT's
    return get_base_model() if get_base_model is not None else model


def _base(implementation: str | None) -> str:
    return (implementation or "eager").removeprefix(PREFIX)


def _window(config: Any) -> int | None:
    if getattr(config, "use_sliding_window", True) is False:
        return None
    window: int | None = getattr(config, "sliding_window", None)
    return window


def _dropouts(model: nn.Module) -> list[float]:
    found = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    text = _inner(model).config.get_text_config()
    return [*found, *(getattr(text, field, 0.0) or 0.0 for field in ("attention_dropout", "attn_pdrop"))]


def _tolerance(dtype: torch.dtype, device: str) -> float:
    """Largest difference of one token's log-probability, in nats, that rounding explains."""
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    return 1e-4 if dtype == torch.float32 else 0.75
