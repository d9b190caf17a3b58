"""Attention of a packed row on a CPU: PyTorch's own kernel once per logical sequence, without copies between them.

`scaled_dot_product_attention` called once per sequence leaves a copy of every sequence's output beside the row that
they are put together into, one of the keys and values that a rejected rest shares with its chosen stream, and, where a
mask forbids the kernel's grouped heads, these again for every head. Here the kernel that it would choose,
`_scaled_dot_product_flash_attention_for_cpu`, reads views of the row and its results are written into one. The kernel's
own backward pass is called the same way, and the gradients of a shared prefix are added up.

Shapes: H heads, G heads of keys and values, D channels of a head, T packed tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._plan import PairPlan


def takes(query: Tensor, key: Tensor, value: Tensor, options: dict[str, Any]) -> bool:
    """Whether `scaled_dot_product_attention` would choose PyTorch's kernel for the CPU."""
    return (
        query.device.type == "cpu"
        and query.shape[0] == 1
        and query.shape[-1] == key.shape[-1] == value.shape[-1]
        and all(tensor.stride(-1) == 1 for tensor in (query, key, value))
        and not any(options.get(name) for name in ("dropout", "softcap", "output_attentions"))
        and not any(options.get(name) is not None for name in ("position_bias", "s_aux", "is_causal", "cache"))
        and torch.backends.cuda.flash_sdp_enabled()  # type: ignore[no-untyped-call] # the switch is the CPU's too
        and hasattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu_backward")
    )


def attend(
    query: Tensor, key: Tensor, value: Tensor, plan: PairPlan, window: int | None, scale: float | None
) -> Tensor:
    """Causal attention within every logical sequence of a packed row: (1, H, T, D) to (1, T, H, D)."""
    if torch.is_autocast_enabled("cpu"):
        query, key, value = (tensor.to(torch.get_autocast_dtype("cpu")) for tensor in (query, key, value))
    output: Tensor = _StreamAttention.apply(query, key, value, plan, window, scale)  # type: ignore[no-untyped-call]
    return output


class _StreamAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, plan: PairPlan, window: int | None, scale: float | None
    ) -> Tensor:
        """One call per sequence; saved are the row itself and one number per query and head."""
        batch, heads, length, channels = query.shape
        output = query.new_empty(batch, length, heads, channels)
        sums = []
        for spans in plan.streams():
            first, last = spans[-1]
            q, k, v = query[:, :, first:last], _spanned(key, spans), _spanned(value, spans)
            mask = _mask(plan, q, k.shape[2], window)
            part, log_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                q, k, v, 0.0, mask is None, attn_mask=mask, scale=scale
            )
            output[:, first:last] = part.transpose(1, 2)
            sums.append(log_sum)
        ctx.save_for_backward(query, key, value, output, *sums)
        ctx.options = plan, window, scale
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """The kernel's backward pass per sequence; keys and values that two sequences read get both gradients."""
        query, key, value, output, *sums = ctx.saved_tensors
        plan, window, scale = ctx.options
        gradient = gradients[0]
        grads = [torch.empty_like(tensor) for tensor in (query, key, value)]
        for spans, log_sum in zip(plan.streams(), sums, strict=True):
            first, last = spans[-1]
            q, k, v = query[:, :, first:last], _spanned(key, spans), _spanned(value, spans)
            mask = _mask(plan, q, k.shape[2], window)
            of_query, *of_others = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                gradient[:, first:last].transpose(1, 2), q, k, v, output[:, first:last].transpose(1, 2), log_sum,
                0.0, mask is None, attn_mask=mask, scale=scale,
            )  # fmt: skip
            grads[0][:, :, first:last] = of_query
            for total, part in zip(grads[1:], of_others, strict=True):
                if len(spans) == 2:  # the prefix has its gradient from the chosen stream by now
                    start, stop = spans[0]
                    total[:, :, start:stop] += part[:, :, : stop - start]
                total[:, :, first:last] = part[:, :, part.shape[2] - (last - first) :]
        return *grads, None, None, None


def _spanned(tensor: Tensor, spans: list[tuple[int, int]]) -> Tensor:
    parts = [tensor[:, :, first:last] for first, last in spans]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _mask(plan: PairPlan, query: Tensor, keys: int, window: int | None) -> Tensor | None:
    """Lower-right causal: the last query sees every key (within the window). To be added to the scores, (1, 1, queries,
    keys); None where it is the kernel's own causal mask.
    """
    queries = query.shape[2]
    near = window if window is not None and window < keys else keys
    if queries == keys == near:
        return None
    name = ("added", queries, keys, near, query.dtype)
    if name not in plan.kept:  # every layer asks for the same
        distance = torch.arange(keys - queries, keys)[:, None] - torch.arange(keys)[None, :]
        hidden = (distance < 0) | (distance >= near)
        mask = torch.zeros(hidden.shape, dtype=query.dtype)
        plan.kept[name] = mask.masked_fill_(hidden, float("-inf"))[None, None]
    kept: Tensor = plan.kept[name]
    return kept
