"""The links that a structure can be compiled with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, sigmoid
from torch.nn import functional

from ..._errors import LossError, did_you_mean


@dataclass(frozen=True)
class TensorLink:
    """f(ρ, β) on tensors.

    Args:
        apply: The function of ρ (nats) and β.
        formula: How it prints; `{beta}` and `{rho}` are filled in.
        uses_beta: Whether β does anything.
    """

    apply: Callable[[Tensor, float], Tensor]
    formula: str
    uses_beta: bool = True


TENSOR_LINKS: Mapping[str, TensorLink] = {
    "logistic": TensorLink(lambda rho, beta: -functional.logsigmoid(beta * rho), "-log sigmoid({beta}*{rho})"),
    "hinge": TensorLink(lambda rho, beta: (beta - rho).relu(), "max(0, {beta} - {rho})"),
    "scaled_hinge": TensorLink(lambda rho, beta: (1 - beta * rho).relu(), "max(0, 1 - {beta}*{rho})"),
    "perceptron": TensorLink(lambda rho, beta: (-rho).relu(), "max(0, -{rho})", uses_beta=False),
    "square": TensorLink(lambda rho, beta: (rho - 1 / (2 * beta)) ** 2, "({rho} - 1/(2*{beta}))**2"),
    "sigmoid": TensorLink(lambda rho, beta: sigmoid(-beta * rho), "sigmoid(-{beta}*{rho})"),
    "exponential": TensorLink(lambda rho, beta: (-beta * rho).exp(), "exp(-{beta}*{rho})"),
}


def find_link(name: str) -> TensorLink:
    """The link of that name.

    Raises:
        LossError: There is no link of that name.
    """
    if name not in TENSOR_LINKS:
        known = ", ".join(f"'{each}'" for each in TENSOR_LINKS)
        raise LossError(
            f"`link` must be one of {known} (got {name!r}).{did_you_mean(str(name), TENSOR_LINKS)} "
            "For label smoothing wrap the loss: smoothed(logic(...), flip_rate=0.1)."
        )
    return TENSOR_LINKS[name]
