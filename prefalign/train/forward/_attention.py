"""Attention on a packed row: each pair's two logical sequences, and nothing between them.

The functions registered here stand before transformers' own attention functions, under their names with a prefix, and
are those functions where a call comes without a plan. With one they choose how the same library call is made:

    flash_attention_*   one call, with the cumulative lengths of the sequences (FlashAttention, where it is installed)
    flex_attention      one call, with a block mask (PyTorch's FlexAttention)
    sdpa                on CUDA in half precision one call of PyTorch's own varlen attention; on a CPU one of its own
                        kernel per sequence, without copies (`_cpu_attention.py`); else one per sequence
    eager               one call per sequence, of the family's own function

In every case the chosen stream (shared prefix and the rest of chosen) is causal, and the rest of rejected attends to
the prefix and to itself: causal from the lower right.

Shapes: H heads, D channels of a head, T packed tokens, K keys with each shared prefix that rejected needs repeated.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._trl import PREFIX
from . import _cpu_attention
from ._plan import PairPlan

Attention = Callable[..., tuple[Tensor, Any]]

_packed_call = False  # whether masks are being made for a packed row: layers below must then make none


@contextmanager
def no_masks() -> Iterator[None]:
    """Within, transformers makes no attention mask: the plan says it all."""
    global _packed_call
    _packed_call = True
    try:
        yield
    finally:
        _packed_call = False


def supported(base: str) -> bool:
    """Whether a way to call this implementation is known."""
    return base in ("sdpa", "eager", "flex_attention") or base.startswith("flash_attention")


def register(base: str) -> str:
    """Register the attention function and the mask function that stand before `base`, and return their name."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    plain_mask = ALL_MASK_ATTENTION_FUNCTIONS[base]

    def mask(*args: Any, **kwargs: Any) -> Any:
        return None if _packed_call else plain_mask(*args, **kwargs)

    ALL_ATTENTION_FUNCTIONS.register(PREFIX + base, _before(base))
    ALL_MASK_ATTENTION_FUNCTIONS.register(PREFIX + base, mask)
    return PREFIX + base


def way_of(base: str, query: Tensor, kwargs: dict[str, Any]) -> str:
    """How a packed row is attended to: "varlen", "flex", "torch_varlen" or "streams"."""
    if base.startswith("flash_attention"):
        return "varlen"
    if base == "flex_attention":
        return "flex"
    half = query.dtype in (torch.float16, torch.bfloat16)
    plain = not any(kwargs.get(name) is not None for name in ("s_aux", "softcap", "position_bias"))
    if base == "sdpa" and query.device.type == "cuda" and half and plain and _has_torch_varlen(query):
        return "torch_varlen"
    return "streams"


def _has_torch_varlen(query: Tensor) -> bool:
    try:
        from torch.nn.attention.varlen import varlen_attn  # noqa: F401 - asked whether it is there
    except ImportError:
        return False
    # Its kernels need Ampere or newer, and heads of at most 256 channels, a multiple of eight.
    channels = query.shape[-1]
    return torch.cuda.get_device_capability(query.device) >= (8, 0) and channels % 8 == 0 and channels <= 256


@dataclass(frozen=True)
class _Call:
    """One layer's call: the function that stands behind, the batch's plan, and what else the layer passed."""

    function: Attention
    base: str
    plan: PairPlan
    window: int | None
    module: nn.Module
    kwargs: dict[str, Any]

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, mask: Any, **more: Any) -> tuple[Tensor, Any]:
        return self.function(self.module, query, key, value, mask, **self.kwargs, **more)


def _before(base: str) -> Attention:
    def attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
    ) -> tuple[Tensor, Any]:
        plan: PairPlan | None = kwargs.pop("pair_plan", None)
        call = _base_attention(base, module)
        if plan is None:
            return call(module, query, key, value, attention_mask, **kwargs)
        window = kwargs.get("sliding_window") or getattr(module, "sliding_window", None)
        way = _WAYS[way_of(base, query, kwargs)]
        return way(_Call(call, base, plan, window, module, kwargs), query, key, value)

    return attention


def _base_attention(base: str, module: nn.Module) -> Attention:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if base != "eager":
        function: Attention = ALL_ATTENTION_FUNCTIONS[base]
        return function
    # Eager attention is each family's own (soft caps, sinks), beside its attention class.
    for cls in type(module).__mro__:
        own = getattr(sys.modules[cls.__module__], "eager_attention_forward", None)
        if own is not None:
            eager: Attention = own
            return eager
    raise AttributeError(f"{type(module).__module__} has no eager_attention_forward")


def _by_streams(call: _Call, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, None]:
    """One call per logical sequence."""
    if call.base == "sdpa" and _cpu_attention.takes(query, key, value, call.kwargs):
        return _cpu_attention.attend(query, key, value, call.plan, call.window, call.kwargs.get("scaling")), None
    sizes = call.plan.stream_sizes
    # Split, not sliced: the gradient of a split is one concatenation, that of each slice a row of zeros.
    queries, keys, values = (torch.split(tensor, sizes, dim=2) for tensor in (query, key, value))
    outputs = []
    index = 0
    for segment in call.plan.segments:
        outputs.append(_one_stream(call, queries[index], keys[index], values[index]))
        if segment.stop > segment.split:
            k, v = (
                torch.cat([stream[index][:, :, : segment.shared], stream[index + 1]], dim=2)
                for stream in (keys, values)
            )
            index += 1
            outputs.append(_one_stream(call, queries[index], k, v))
        index += 1
    return torch.cat(outputs, dim=1), None


def _one_stream(call: _Call, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    mask = _causal_mask(call.plan, call.base, query, key.shape[2], call.window)
    return call(query, key, value, mask)[0]


def _causal_mask(plan: PairPlan, base: str, query: Tensor, keys: int, window: int | None) -> Tensor | None:
    """Lower-right causal: the last query sees every key (within the window). None where the kernel does it itself."""
    queries = query.shape[2]
    windowed = window is not None and keys > window
    if base == "sdpa" and queries == keys and not windowed:
        return None
    name = (base, queries, keys, window if windowed else None, query.dtype, query.device)
    if name not in plan.kept:  # every layer asks for the same
        places = torch.arange(keys, device=query.device)
        distance = places[keys - queries :, None] - places[None, :]
        allowed = distance >= 0
        if windowed:
            assert window is not None
            allowed &= distance < window
        if base != "sdpa":
            low = torch.finfo(query.dtype).min
            allowed = torch.zeros_like(allowed, dtype=query.dtype).masked_fill(~allowed, low)
        plan.kept[name] = allowed[None, None]
    mask: Tensor = plan.kept[name]
    return mask


def _by_cumulative_lengths(call: _Call, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Any]:
    """One call of a varlen kernel through transformers, whose causal mask is the lower right one."""
    lengths = call.plan.varlen()
    return call(
        query,
        key.index_select(2, lengths.keys),
        value.index_select(2, lengths.keys),
        None,
        cu_seq_lens_q=lengths.queries_up_to,
        cu_seq_lens_k=lengths.keys_up_to,
        max_length_q=lengths.most_queries,
        max_length_k=lengths.most_keys,
    )


def _by_torch_varlen(call: _Call, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, None]:
    """One call of PyTorch's varlen attention."""
    from torch.nn.attention.varlen import varlen_attn

    lengths = call.plan.varlen()
    result = varlen_attn(
        query[0].transpose(0, 1),
        key[0].index_select(1, lengths.keys).transpose(0, 1),
        value[0].index_select(1, lengths.keys).transpose(0, 1),
        lengths.queries_up_to,
        lengths.keys_up_to,
        lengths.most_queries,
        lengths.most_keys,
        scale=call.kwargs.get("scaling"),
        window_size=(-1 if call.window is None else call.window - 1, 0),
        enable_gqa=key.shape[1] != query.shape[1],
    )
    assert isinstance(result, Tensor)
    return result[None], None


def _by_blocks(call: _Call, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Any]:
    """One call of FlexAttention with the plan's block mask, made once a batch."""
    name = ("flex", call.window)
    if name not in call.plan.kept:
        call.plan.kept[name] = _block_mask(call.plan, call.window)
    return call(query, key, value, call.plan.kept[name])


def _block_mask(plan: PairPlan, window: int | None) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    length, position = plan.packed_tokens, plan.position_ids[0]
    pair, rejected, shared = plan.places()

    def sees(batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        distance = position[q] - position[k]
        # A query of the rejected rest sees of the chosen stream the shared prefix only.
        stream = (rejected[q] == rejected[k]) | (rejected[q] & shared[k])
        near = distance >= 0 if window is None else (distance >= 0) & (distance < window)
        return (pair[q] == pair[k]) & stream & near

    return create_block_mask(sees, None, None, length, length, device=position.device)


_WAYS: dict[str, Callable[..., tuple[Tensor, Any]]] = {
    "streams": _by_streams,
    "varlen": _by_cumulative_lengths,
    "torch_varlen": _by_torch_varlen,
    "flex": _by_blocks,
}
