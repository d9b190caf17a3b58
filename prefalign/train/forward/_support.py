"""Which models take the shared-prefix forward: the architectures for which it is exact, and why others do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from accelerate.utils import DynamoBackend
from torch import nn

from .._trl import base_of
from . import _attention

RECURRENT = "its recurrent layers would carry one sequence into the next"
CHUNKED = "its attention works in chunks, which are counted along the row"
# Layers that carry state along the row, or whose positions cannot be reset inside it.
REFUSED = {
    **dict.fromkeys(
        ("bamba", "falcon_h1", "falcon_mamba", "granitemoehybrid", "jamba", "lfm2", "lfm2_moe", "mamba", "mamba2",
         "nemotron_h", "qwen3_next", "recurrent_gemma", "rwkv", "xlstm", "zamba", "zamba2", "minimax", "kimi_linear",
         "olmo_hybrid", "qwen3_5", "qwen3_5_moe", "qwen3_5_text", "qwen3_5_moe_text"),
        RECURRENT,
    ),
    **dict.fromkeys(("llama4", "llama4_text"), CHUNKED),
    **dict.fromkeys(("bloom", "mpt"), "its ALiBi positions cannot restart within a row"),
    **dict.fromkeys(("opt", "biogpt", "xglm"), "its learned positions are counted from the attention mask"),
}  # fmt: skip
# Families that gave the plain forward's numbers in tests, values and gradients; with a sliding window or without.
EXACT = frozenset({
    "cohere2", "deepseek_v3", "gemma", "gemma2", "gemma3_text", "glm4", "gpt2", "gpt_neox", "gpt_oss", "granite",
    "llama", "mistral", "mixtral", "olmo", "olmo2", "olmo3", "olmoe", "phi", "phi3", "qwen2", "qwen2_moe", "qwen3",
    "qwen3_moe", "smollm3", "starcoder2",
})  # fmt: skip
# Families whose sliding window was seen to reach the attention function, with texts longer than the window.
WINDOWED = frozenset(
    {"cohere2", "gemma2", "gemma3_text", "gpt_oss", "mistral", "mixtral", "olmo3", "phi3", "qwen2", "qwen3",
     "starcoder2"}
)  # fmt: skip
_LAYERS = {"full_attention", "sliding_attention"}


def reason_against(model: nn.Module) -> str | None:
    """Why `model` (a causal language model, PEFT or not) cannot take the shared-prefix forward; None if it may."""
    inner = inner_model(model)
    config = inner.config
    text = config.get_text_config()
    base = base_of(config._attn_implementation)
    if text is not config or hasattr(config, "vision_config"):
        return "models with other inputs than text are not packed"
    if text.model_type in REFUSED:
        return f"{text.model_type}: {REFUSED[text.model_type]}"
    if getattr(text, "alibi", False):
        return f"{text.model_type}: its ALiBi positions cannot restart within a row"
    other = sorted(set(getattr(text, "layer_types", None) or ()) - _LAYERS)
    if other:
        return f"{text.model_type} has layers of the kind {other[0]!r}: " + (
            CHUNKED if "chunk" in other[0] else RECURRENT
        )
    if not _attention.supported(base):
        return f"its attention implementation {base!r} is not known here"
    if not getattr(inner, "_can_set_attn_implementation", lambda: False)():
        return f"{text.model_type} does not call transformers' attention interface"
    if _window(text) and text.model_type not in WINDOWED:
        return f"{text.model_type} has a sliding window that was not tested"
    if any(p > 0 for p in dropouts(model)):
        return "dropout would differ between a shared prefix and its two copies"
    if any(getattr(c, "is_prompt_learning", False) for c in getattr(model, "peft_config", {}).values()):
        return "prompt-learning adapters put virtual tokens before every row"
    if any(getattr(c, "alora_invocation_tokens", None) for c in getattr(model, "peft_config", {}).values()):
        return "an activated LoRA looks for its invocation tokens in every row"
    if getattr(text, "output_router_logits", False):
        return "the router's auxiliary loss counts every copy of a token"
    return None


def reason_against_default(model: nn.Module) -> str | None:
    """Why the shared-prefix forward is not on unless it is asked for."""
    family = inner_model(model).config.get_text_config().model_type
    return None if family in EXACT else f"{family} was not tested (`shared_prefix=True` tries it, and checks a batch)"


def reason_against_setup(accelerator: Any, neftune: float | None = None) -> str | None:
    """Why a way of training cannot take the shared-prefix forward; None if it may.

    Args:
        accelerator: The trainer's.
        neftune: The option `neftune_noise_alpha`.
    """
    if neftune:
        return "NEFTune's noise shrinks with the length of a row, and would be the same for both copies of a prefix"
    parallelism = getattr(accelerator, "parallelism_config", None)
    for name in ("cp_size", "sp_size"):
        if getattr(parallelism, name, 1) > 1:
            return "context and sequence parallelism cut rows into pieces"
    if accelerator.state.dynamo_plugin.backend != DynamoBackend.NO:
        return "`torch.compile` would compile the model again for every length"
    return None


def inner_model(model: nn.Module) -> Any:
    """The model itself, without an adapter's wrapper."""
    get_base_model: Callable[[], Any] | None = getattr(model, "get_base_model", None)  # PEFT's
    return get_base_model() if get_base_model is not None else model


def _window(config: Any) -> int | None:
    if getattr(config, "use_sliding_window", True) is False:
        return None
    window: int | None = getattr(config, "sliding_window", None)
    return window


def dropouts(model: nn.Module) -> list[float]:
    """The rates of dropout in training; transformers' attention layers keep theirs as a number of their own."""
    found = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    numbers = [vars(module).get("attention_dropout") for module in model.modules()]
    return [*found, *(float(p) for p in numbers if isinstance(p, float | int))]
