"""Running a program on tensors: log-probabilities in, ρ out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..losses import log1mexp
from ._diagram import Chain, Program

# Stands for the log-probability 0 of an impossible answer's probability: sums of it stay finite, and so do gradients.
FLOOR = -1e300


def run(program: Program, logp: Callable[[str], Tensor]) -> Tensor:
    """ρ = log top - log bottom, in nats.

    Args:
        program: From `compile_structure`.
        logp: The log-probability (nats, <= 0) of each atom, and of "" any of them; tensors that broadcast.

    Returns:
        Float64 where 1 - p is needed, else in the inputs' dtype, at least float32.
    """
    literals: dict[tuple[str, str | int], Tensor] = {}

    def literal(slot: tuple[str, str | int]) -> Tensor:
        if slot not in literals:
            x = logp(str(slot[1]))
            if program.complements:
                x = x.double()
                if program.steps:
                    x = x.clamp(min=FLOOR)  # logaddexp of two -inf has a NaN gradient
            elif x.dtype in (torch.float16, torch.bfloat16):
                x = x.float()
            literals[slot] = x if slot[0] == "p" else log1mexp(x)
        return literals[slot]

    def total(chain: Chain) -> Tensor:
        (_, first), *rest = chain
        result = literal(first)
        for sign, slot in rest:
            result = result + literal(slot) if sign > 0 else result - literal(slot)
        return result

    for number, (left, right) in enumerate(program.steps):
        literals[("+", number)] = torch.logaddexp(total(left), total(right))
    groups: Sequence[tuple[int, Chain]] = program.result
    if program.is_constant:  # top and bottom are the same: the gradient is 0, and must exist
        rho = 0.0 * logp("").double().clamp(min=FLOOR)
    else:
        (sign, chain), *groups = program.result
        rho = total(chain) if sign > 0 else -total(chain)
    for sign, chain in groups:
        rho = rho + total(chain) if sign > 0 else rho - total(chain)
    return rho
