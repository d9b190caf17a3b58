"""From the loss options of TRL's DPOConfig to the loss that they compute."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from .._errors import LossError, did_you_mean
from ._loss import Loss, WeightedSum
from ._registry import find_trl, trl_names
from .pairwise import LD, SFT, WPO, FDivergence, Kind

_DEFAULTS = {"beta": 0.1, "label_smoothing": 0.0, "discopop_tau": 0.05, "f_alpha_divergence_coef": 0.5}
# TRL's `f_divergence_type` -> the divergence of `FDivergence`.
_DIVERGENCES: dict[str, Kind] = {"forward_kl": "forward_kl", "js_divergence": "js", "alpha_divergence": "alpha"}
# Argument of a loss -> the option of TRL that gives its value.
_OPTIONS = {"beta": "beta", "flip_rate": "label_smoothing", "label_smoothing": "label_smoothing", "tau": "discopop_tau"}


def from_trl(
    loss_types: str | Sequence[str] = "sigmoid",
    loss_weights: Sequence[float] | None = None,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
    discopop_tau: float = 0.05,
    f_divergence_type: str = "reverse_kl",
    f_alpha_divergence_coef: float = 0.5,
    ld_alpha: float | None = None,
    use_weighting: bool = False,
) -> Loss:
    """The loss that TRL 1.16 computes for these fields of its DPOConfig; an option without effect is an error.

    Args:
        loss_types: TRL's `loss_type`, one or several.
        loss_weights: One for each loss type; None: all 1.
        beta: TRL's `beta`.
        label_smoothing: TRL's `label_smoothing`; `robust` takes it as the flip rate.
        discopop_tau: TRL's `discopop_tau`.
        f_divergence_type: TRL's `f_divergence_type`; all but "reverse_kl" make an `FDivergence`.
        f_alpha_divergence_coef: TRL's, of "alpha_divergence" alone: 1 - alpha of `FDivergence`.
        ld_alpha: TRL's `ld_alpha`; a number makes an `LD`.
        use_weighting: TRL's `use_weighting`; True makes a `WPO`.

    Returns:
        One loss, or the weighted sum of several.

    Raises:
        LossError: A loss type is unknown, an option has no effect, or a value is out of range.

    Example:
        >>> from_trl(["sigmoid", "sft"], [1.0, 0.5], beta=0.2).expression
        "dpo(beta=0.2) + 0.5*sft(reduction='token_mean')"
        >>> from_trl("robust", label_smoothing=0.3).expression
        'robust(dpo(beta=0.1), flip_rate=0.3)'
    """
    types = [loss_types] if isinstance(loss_types, str) else list(loss_types)
    weights = [1.0] * len(types) if loss_weights is None else list(loss_weights)
    if not types or len(weights) != len(types):
        raise LossError(f"`loss_weights` must have one weight for each loss type (got {weights} for {types}).")
    divergence = _divergence(f_divergence_type)
    options = {"beta": beta, "label_smoothing": label_smoothing, "discopop_tau": discopop_tau}
    options["f_alpha_divergence_coef"] = f_alpha_divergence_coef
    used: set[str] = set()
    losses = [_make(loss_type, options, used) for loss_type in types]
    if divergence == "alpha":
        used.add("f_alpha_divergence_coef")
    if divergence is not None and not (divergence == "alpha" and abs(f_alpha_divergence_coef - 1.0) < 1e-6):
        alpha = 1.0 - f_alpha_divergence_coef if divergence == "alpha" else 0.5
        losses = [_with_divergence(loss, divergence, alpha) for loss in losses]
    if ld_alpha is not None:  # the likelihood is of all tokens, as in TRL
        losses = [loss if isinstance(loss, SFT) else LD(loss, ld_alpha) for loss in losses]
    if use_weighting:
        losses = [WPO(loss) for loss in losses]
    for option, value in options.items():
        if option not in used and value != _DEFAULTS[option]:
            raise LossError(_no_effect(option, value, types, beta))
    if len(losses) == 1 and weights[0] == 1.0:
        return losses[0]
    parts = tuple(zip((float(weight) for weight in weights), losses, strict=True))
    return WeightedSum(parts)


def _make(loss_type: str, options: dict[str, float], used: set[str]) -> Loss:
    if loss_type not in trl_names():
        raise LossError(
            f"`loss_type` must be one of {', '.join(trl_names())} (got {loss_type!r})."
            f"{did_you_mean(loss_type, trl_names())} For a loss that TRL does not have, give `loss`."
        )
    make = find_trl(loss_type)
    taken = {name: _OPTIONS[name] for name in inspect.signature(make).parameters if name in _OPTIONS}
    used.update(taken.values())
    values: dict[str, object] = {name: options[option] for name, option in taken.items()}
    if loss_type == "sft":
        values["reduction"] = "token_mean"
    try:
        made: Loss = make(**values)
    except LossError as error:
        raise LossError(f"`loss_type` {loss_type!r}: {error}") from error
    return made


def _no_effect(option: str, value: float, types: list[str], beta: float) -> str:
    message = f"`{option}` has no effect on {types} (got {value!r}); leave it out."
    if option == "label_smoothing":
        message += (
            f" TRL ignores it there. For conservative DPO use `smoothed(dpo(beta={beta:g}), flip_rate={value:g})`, "
            f"for the unbiased correction `robust(dpo(beta={beta:g}), flip_rate={value:g})`."
        )
    return message


def _divergence(f_divergence_type: str) -> Kind | None:
    """The divergence of `FDivergence`; None for the reverse KL."""
    if f_divergence_type == "reverse_kl":
        return None
    if f_divergence_type not in _DIVERGENCES:
        known = ("reverse_kl", *_DIVERGENCES)
        raise LossError(
            f"`f_divergence_type` must be one of {', '.join(known)} (got {f_divergence_type!r})."
            f"{did_you_mean(f_divergence_type, known)}"
        )
    return _DIVERGENCES[f_divergence_type]


def _with_divergence(loss: Loss, divergence: Kind, alpha: float) -> Loss:
    """The loss on another divergence; the likelihood has none, as in TRL."""
    if isinstance(loss, SFT):
        return loss
    try:
        return FDivergence(loss, divergence, alpha)
    except LossError as error:
        raise LossError(f"`f_divergence_type`: {error}") from error
