"""The language-model head on the scored rows of a packed batch, with the logits kept for the backward pass.

TRL's head throws its logits away and computes them again in the backward pass: four matrix products. Where rows x
vocabulary numbers fit, they are kept and turned into their own gradient in place: three. Both are one autograd function
with the same arguments and results, so TRL's forward does not know which one it calls.

Shapes: S rows, H hidden units, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import psutil  # type: ignore[import-untyped] # it has no types; accelerate needs it anyway
import torch
from torch import Tensor

from . import _trl

# Elements that are folded at once: they and their exponentials stay in a core's cache.
_FOLD = 2**19
_ROWS_WITHOUT_GRADIENTS = 1024
_SHARE_OF_MEMORY = 0.25


def fits(rows: int, vocabulary: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the logits of this many rows may be kept: on a CPU, in at most a quarter of the free memory.

    On other devices TRL's own head stays, which folds its tiles with a Triton kernel there.
    """
    if device.type != "cpu":
        return False
    free: int = psutil.virtual_memory().available
    return rows * vocabulary * dtype.itemsize <= _SHARE_OF_MEMORY * free


class KeptLogits(torch.autograd.Function):
    """Per-token log-probabilities of `hidden @ weight.T`, with the statistics that TRL logs.

    Arguments and results are those of TRL's own function: log-probability of the target in nats, entropy,
    log(sum p^2), mean logit and whether the target is the first of the largest logits, each (S,) or None.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        chunk_size: int,
        softcap: float | None = None,
        logit_scale: float = 1.0,
        outputs: tuple[str, ...] = _trl.HEAD_OUTPUTS,
    ) -> tuple[Tensor | None, ...]:
        """Project the rows and fold them into statistics."""
        ctx.set_materialize_grads(False)
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        ctx.transform = (logit_scale, softcap, 1 / temperature)
        ctx.dtype, ctx.chunk_size = dtype, chunk_size
        keep = any(ctx.needs_input_grad[:3])
        step = len(hidden) if keep else _ROWS_WITHOUT_GRADIENTS
        parts = []
        logits = None
        for start in range(0, len(hidden), step):
            logits = _project(hidden[start : start + step], weight, bias, dtype)
            parts.append(_fold(logits, targets[start : start + step], ctx.transform, outputs))
        columns = [None if c[0] is None else torch.cat(c) for c in zip(*parts, strict=True)]
        log_z, log_probs, entropy, log_sum_sq, mean_logits, is_top1 = columns
        ctx.logits = logits if keep else None
        if keep:
            ctx.save_for_backward(hidden, weight, bias, targets, log_z, log_z if entropy is None else entropy)
        ctx.mark_non_differentiable(*(x for x in (log_sum_sq, mean_logits, is_top1) if x is not None))
        return log_probs, entropy, log_sum_sq, mean_logits, is_top1

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        """Turn the logits into their gradient, and that into the gradients of hidden states, weight and bias."""
        hidden, weight, bias, targets, log_z, entropy = ctx.saved_tensors
        for_hidden, for_weight, for_bias = ctx.needs_input_grad[:3]
        with _trl.gathered_head(weight, bias):
            logits, ctx.logits = ctx.logits, None
            if logits is None:  # a second backward through the same graph
                logits = _project(hidden, weight, bias, ctx.dtype)
            _to_gradient(logits, targets, log_z, entropy, gradients[0], gradients[1], ctx.transform)
            grads: list[Tensor | None] = [None, None, None]
            if ctx.dtype in (torch.float32, torch.float64):
                grads[0] = logits @ weight.to(ctx.dtype) if for_hidden else None
                grads[1] = logits.t() @ hidden.to(ctx.dtype) if for_weight else None
            else:
                grads[0], grads[1] = _half_products(
                    logits, hidden.to(ctx.dtype), weight, ctx.chunk_size, for_hidden, for_weight
                )
            grads[2] = logits.sum(0, dtype=torch.float32) if for_bias else None
        inputs = (hidden, weight, bias)
        cast = (None if g is None else g.to(x.dtype) for g, x in zip(grads, inputs, strict=True))
        return *cast, None, None, None, None, None, None


def _project(hidden: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    logits = hidden.to(dtype) @ weight.to(dtype).t()
    return logits if bias is None else logits.add_(bias.to(dtype))


def _transformed(logits: Tensor, transform: tuple[float, float | None, float]) -> Tensor:
    """What the softmax sees, in float32 or more; the logits themselves where nothing is done to them."""
    scale, softcap, factor = transform
    z = logits if logits.dtype == torch.float64 else logits.float()
    z = z if scale == 1.0 else z * scale
    z = z if softcap is None else torch.tanh(z / softcap) * softcap
    return z if factor == 1.0 else z * factor


def _blocks(rows: int, vocabulary: int) -> list[slice]:
    step = max(1, _FOLD // vocabulary)
    return [slice(start, start + step) for start in range(0, rows, step)]


def _fold(
    logits: Tensor, targets: Tensor, transform: tuple[float, float | None, float], outputs: tuple[str, ...]
) -> tuple[Tensor | None, ...]:
    """(log Z, log-probability, entropy, log sum of squares, mean logit, is top 1) of each row."""
    rows: list[tuple[Tensor | None, ...]] = []
    for block in _blocks(*logits.shape):
        z, target = _transformed(logits[block], transform), targets[block]
        top = z.amax(1)
        e = (z - top[:, None]).exp_()
        total = e.sum(1)
        log_z = top + total.log()
        at_target = z.gather(1, target[:, None])[:, 0]
        entropy = squares = mean = first = None
        if "entropy" in outputs:
            entropy = log_z - torch.linalg.vecdot(e, z) / total
        if "log_sum_sq_probs" in outputs:
            squares = torch.linalg.vecdot(e, e).log() - 2 * total.log()
        if "mean_logits" in outputs:
            mean = z.mean(1)
        if "is_top1" in outputs:
            first = at_target >= top
            # Of equal logits only the first counts, as in `argmax`.
            first[first.clone()] = z[first].argmax(1) == target[first]
        rows.append((log_z, at_target - log_z, entropy, squares, mean, first))
    return tuple(None if c[0] is None else torch.cat(c) for c in zip(*rows, strict=True))


def _to_gradient(
    logits: Tensor,
    targets: Tensor,
    log_z: Tensor,
    entropy: Tensor,
    of_log_probs: Tensor | None,
    of_entropy: Tensor | None,
    transform: tuple[float, float | None, float],
) -> None:
    """Overwrite the logits with the gradient of the loss with respect to them.

    d log p(target) / dz_j = 1[j = target] - p_j, and d entropy / dz_j = -p_j (log p_j + entropy).
    """
    scale, softcap, factor = transform
    for block in _blocks(*logits.shape):
        place = logits[block]
        z = _transformed(place, transform)
        if of_entropy is None and z.data_ptr() == place.data_ptr():
            gradient = z.sub_(log_z[block, None]).exp_()
        else:
            gradient = (z - log_z[block, None]).exp_()
        if of_entropy is None:
            weight = torch.zeros_like(log_z[block]) if of_log_probs is None else of_log_probs[block]
            gradient.mul_(-weight[:, None])
        else:
            log_p = z - log_z[block, None]
            weight = torch.zeros_like(log_z[block]) if of_log_probs is None else of_log_probs[block]
            gradient.mul_(-weight[:, None] - of_entropy[block, None] * (log_p + entropy[block, None]))
        gradient.scatter_add_(1, targets[block, None], weight[:, None].to(gradient.dtype))
        if softcap is not None:
            gradient.mul_(1 - (z / (softcap * factor)).square())
        if scale * factor != 1.0:
            gradient.mul_(scale * factor)
        if gradient.data_ptr() != place.data_ptr():
            place.copy_(gradient)


def _half_products(
    gradient: Tensor, hidden: Tensor, weight: Tensor, chunk: int, for_hidden: bool, for_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """The two products in float32, by slices of the vocabulary: rounding each to bfloat16 would bias training."""
    into_hidden = torch.zeros(hidden.shape, device=hidden.device) if for_hidden else None
    into_weight = torch.empty(weight.shape, device=weight.device) if for_weight else None
    full = hidden.float()
    for start in range(0, len(weight), chunk):
        part = gradient[:, start : start + chunk].float()
        if into_hidden is not None:
            into_hidden.addmm_(part, weight[start : start + chunk].to(hidden.dtype).float())
        if into_weight is not None:
            torch.mm(part.t(), full, out=into_weight[start : start + chunk])
    return into_hidden, into_weight
