"""Logarithms of probabilities and of their complements, without the usual cancellations."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

# The largest log p whose 1 - p is not 0 in float64: 1 - p is then 2**-53.
MAX_LOG_P = -(2.0**-53)
# exp(80) is finite in float32. TRL's bound for its alpha-divergence.
MAX_EXPONENT = 80.0


def log1mexp(log_p: Tensor) -> Tensor:
    """log(1 - p) from log p, in float64, finite in value and gradient for every log p <= 0.

    log(1 - exp(log_p))

    At log p = 0 the true value is minus infinity; it is taken at the largest p below 1 that float64 knows, 1 - 2**-53,
    with gradient 0 (the true one is infinite). Both branches of the case distinction are evaluated at harmless points,
    because a NaN gradient in the branch not taken would survive `torch.where`.

    A stand-in tensor that implements `__torch_function__` receives this function whole, not its branches.

    Args:
        log_p: Log-probabilities in nats, <= 0, any shape.

    Returns:
        A float64 tensor of the same shape.

    Example:
        >>> log1mexp(torch.tensor([-1e-8, -0.6931471805599453, -1e4]))
        tensor([-18.4207,  -0.6931,  -0.0000], dtype=torch.float64)

    Source: Maechler 2012, "Accurately computing log(1 - exp(-|a|))".
    """
    if has_torch_function_unary(log_p):
        result: Tensor = handle_torch_function(log1mexp, (log_p,), log_p)
        return result
    log_p = log_p.double().clamp(max=MAX_LOG_P)
    near = log_p > -math.log(2.0)
    # At -1 both branches are harmless.
    close = torch.log(-torch.expm1(torch.where(near, log_p, -1.0)))
    far = torch.log1p(-torch.exp(torch.where(near, -1.0, log_p)))
    return torch.where(near, close, far)


def log_odds(log_p: Tensor) -> Tensor:
    """log(p / (1 - p)) from log p, in float64; see `log1mexp`."""
    return log_p.double() - log1mexp(log_p)


def exp_capped(exponent: Tensor, cap: float = MAX_EXPONENT) -> Tensor:
    """exp(min(exponent, cap)): finite in float32, with gradient 0 beyond.

    A stand-in tensor that implements `__torch_function__` receives this function whole, not its cap.

    Example:
        >>> exp_capped(torch.tensor([0.0, 1e4]))
        tensor([1.0000e+00, 5.5406e+34])
    """
    if has_torch_function_unary(exponent):
        result: Tensor = handle_torch_function(exp_capped, (exponent,), exponent, cap)
        return result
    return torch.exp(exponent.clamp(max=cap))
