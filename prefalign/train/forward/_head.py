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

from .. import _trl

# Elements that are folded at once: they and their exponentials stay in a core's cache.
_FOLD = 2**18
# Bytes of a slice of the vocabulary. Slices that are kept by themselves go back to the system one by one while the
# weight's gradient grows, which the C library does from 32 MiB on; all others stay in a cache.
_KEPT_SLICE = 2**25
_PASSING_SLICE = 2**22
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
        """Project the rows and fold them into statistics, by slices of the vocabulary."""
        ctx.set_materialize_grads(False)
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        ctx.transform = (logit_scale, softcap, 1 / temperature)
        ctx.dtype, ctx.chunk_size = dtype, chunk_size
        # A trainable weight asks for its gradient even where none is computed; hidden states tell the two apart.
        keep = ctx.needs_input_grad[0]
        # No more rows than hidden units: the weight's gradient may overwrite the logits that it is made of.
        rows, units = hidden.shape
        shares = keep and ctx.needs_input_grad[1] and dtype.itemsize >= 4 and rows <= units
        size = _KEPT_SLICE if keep and not shares else _PASSING_SLICE
        ctx.slices = _slices(len(weight), rows * dtype.itemsize, size)
        ctx.room = hidden.new_empty(len(weight) * units, dtype=dtype) if shares else None
        passing = None if keep else hidden.new_empty(rows * ctx.slices[0].stop, dtype=dtype)
        ctx.logits = []
        parts = []
        for part in ctx.slices:
            room = passing if ctx.room is None else ctx.room[rows * part.start :]
            logits = _project(hidden, weight, bias, part, dtype, room)
            parts.append(_fold(logits, targets - part.start, ctx.transform, outputs))
            if keep:
                ctx.logits.append(logits)
        log_z, log_probs, entropy, log_sum_sq, mean_logits, is_top1 = _joined(parts, len(weight))
        ctx.save_for_backward(hidden, weight, bias, targets, log_z, log_z if entropy is None else entropy)
        ctx.mark_non_differentiable(*(x for x in (log_sum_sq, mean_logits, is_top1) if x is not None))
        return log_probs, entropy, log_sum_sq, mean_logits, is_top1

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        """Turn the logits into their gradient, and that into the gradients of hidden states, weight and bias."""
        hidden, weight, bias, targets, log_z, entropy = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        # In float32 where layers compute in half: rounding each product to bfloat16 would bias training.
        full = torch.promote_types(ctx.dtype, torch.float32)
        with _trl.gathered_head(weight, bias):
            into_hidden = hidden.new_zeros(hidden.shape, dtype=full) if wanted[0] else None
            room, ctx.room = ctx.room, None
            kept, ctx.logits = ctx.logits, []
            if wanted[1]:
                into_weight = weight.new_empty(weight.shape, dtype=full) if room is None else room.view(weight.shape)
            else:
                into_weight = None
            into_bias = bias.new_empty(bias.shape, dtype=full) if wanted[2] else None
            states = hidden.to(ctx.dtype).to(full)
            for part in reversed(ctx.slices):
                # Computed again in a second backward pass through the same graph, and where the head alone is trained.
                logits = kept.pop() if kept else _project(hidden, weight, bias, part, ctx.dtype)
                if room is not None:
                    logits = logits.clone()  # this slice's gradient comes to lie over it, and behind those before it
                _to_gradient(logits, targets - part.start, log_z, entropy, gradients[0], gradients[1], ctx.transform)
                step = logits.shape[1] if full == ctx.dtype else ctx.chunk_size
                for start in range(0, logits.shape[1], step):
                    of_logits = logits[:, start : start + step].to(full)
                    columns = slice(part.start + start, part.start + start + of_logits.shape[1])
                    if into_hidden is not None:
                        into_hidden.addmm_(of_logits, weight[columns].to(ctx.dtype).to(full))
                    if into_weight is not None:
                        torch.mm(of_logits.t(), states, out=into_weight[columns])
                    if into_bias is not None:
                        torch.sum(of_logits, 0, out=into_bias[columns])
                del logits, of_logits  # before the next slice of the weight's gradient is written
        inputs = (hidden, weight, bias)
        grads = (into_hidden, into_weight, into_bias)
        cast = (None if g is None else g.to(x.dtype) for g, x in zip(grads, inputs, strict=True))
        return *cast, None, None, None, None, None, None


def _slices(vocabulary: int, bytes_per_column: int, size: int) -> list[slice]:
    """Slices of the vocabulary of at least `size` bytes of logits each, or one of all."""
    count = max(1, vocabulary * bytes_per_column // size)
    step = -(-vocabulary // count)
    return [slice(start, min(start + step, vocabulary)) for start in range(0, vocabulary, step)]


def _project(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    part: slice,
    dtype: torch.dtype,
    room: Tensor | None = None,
) -> Tensor:
    """The logits of a slice of the vocabulary, at the beginning of the room that is given."""
    place = None
    if room is not None:
        columns = part.stop - part.start
        place = room[: len(hidden) * columns].view(len(hidden), columns)
    logits = torch.mm(hidden.to(dtype), weight[part].to(dtype).t(), out=place)
    return logits if bias is None else logits.add_(bias[part].to(dtype))


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
    """What a slice of the vocabulary, in which targets are counted from its start, adds to each row's statistics.

    Its largest logit; the sums of e = exp(z - largest), e (z - largest), e^2 and z; the target's logit, minus infinity
    elsewhere; whether the target is the first of the slice's largest.
    """
    rows: list[tuple[Tensor | None, ...]] = []
    for block in _blocks(*logits.shape):
        z, target = _transformed(logits[block], transform), targets[block]
        top = z.amax(1)
        below = z - top[:, None]
        e = below.exp() if "entropy" in outputs else below.exp_()
        inside = (target >= 0) & (target < z.shape[1])
        at_target = z.gather(1, target.clamp(0, z.shape[1] - 1)[:, None])[:, 0].masked_fill(~inside, -torch.inf)
        of_z = of_squares = mean = first = None
        if "entropy" in outputs:
            of_z = torch.linalg.vecdot(e, below)
        if "log_sum_sq_probs" in outputs:
            of_squares = torch.linalg.vecdot(e, e)
        if "mean_logits" in outputs:
            mean = z.sum(1)
        if "is_top1" in outputs:
            first = at_target >= top
            # Of equal logits only the first counts, as in `argmax`.
            first[first.clone()] = z[first].argmax(1) == target[first]
        rows.append((top, e.sum(1), of_z, of_squares, mean, at_target, first))
    return tuple(None if c[0] is None else torch.cat(c) for c in zip(*rows, strict=True))


def _joined(parts: list[tuple[Tensor | None, ...]], vocabulary: int) -> tuple[Tensor | None, ...]:
    """(log Z, log-probability, entropy, log sum of squares, mean logit, is top 1) of each row, from its slices'."""
    columns = [None if c[0] is None else torch.stack(c) for c in zip(*parts, strict=True)]
    tops, totals, of_z, of_squares, sums, at_targets, firsts = columns
    assert tops is not None
    assert totals is not None
    assert at_targets is not None
    top, at_target = tops.amax(0), at_targets.amax(0)
    scale = (tops - top).exp()
    total = (totals * scale).sum(0)
    log_z = top + total.log()
    entropy = None if of_z is None else total.log() - ((of_z + totals * (tops - top)) * scale).sum(0) / total
    squares = None if of_squares is None else (of_squares * scale.square()).sum(0).log() - 2 * total.log()
    mean = None if sums is None else sums.sum(0) / vocabulary
    first = None
    if firsts is not None:
        earlier = tops.cummax(0).values.roll(1, 0)
        earlier[0] = -torch.inf
        first = (firsts & (earlier < at_target)).any(0) & (at_target >= top)
    return log_z, at_target - log_z, entropy, squares, mean, first


def _to_gradient(
    logits: Tensor,
    targets: Tensor,
    log_z: Tensor,
    entropy: Tensor,
    of_log_probs: Tensor | None,
    of_entropy: Tensor | None,
    transform: tuple[float, float | None, float],
) -> None:
    """Overwrite a slice of the logits, in which targets are counted from its start, with the loss's gradient.

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
        target = targets[block]
        weight = weight.masked_fill((target < 0) | (target >= gradient.shape[1]), 0)  # the target of another slice
        places = target.clamp(0, gradient.shape[1] - 1)[:, None]
        gradient.scatter_add_(1, places, weight[:, None].to(gradient.dtype))
        if softcap is not None:
            gradient.mul_(1 - (z / (softcap * factor)).square())
        if scale * factor != 1.0:
            gradient.mul_(scale * factor)
        if gradient.data_ptr() != place.data_ptr():
            place.copy_(gradient)
