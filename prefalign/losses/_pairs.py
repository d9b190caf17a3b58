"""What a loss sees: the log-probabilities of a batch of pairs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .._errors import LossError
from ._tokens import TokenLogps

_LOGPS = ("chosen", "rejected", "ref_chosen", "ref_rejected")
_PARTNERS = (("ref_chosen", "ref_rejected"), ("chosen_tokens", "rejected_tokens"))
_HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, eq=False)
class PairLogps:
    """Log-probabilities of a batch of pairs, in nats, summed over the completion's tokens.

    Every tensor has the shape (pairs,), except `chosen_token_logps`. What comes in bfloat16 or float16 becomes
    float32 here, so that every loss computes and returns float32 at least; gradients flow back in the given dtype. What
    half precision lost before is lost: of a sum near -500, bfloat16 keeps steps of 2 nats. Sum in float32.

    Args:
        chosen: log pi(w), of the policy, summed over tokens.
        rejected: log pi(l), of the policy, summed over tokens.
        ref_chosen: log ref(w), of the reference, summed over tokens.
        ref_rejected: log ref(l), of the reference, summed over tokens.
        chosen_tokens: Completion tokens in w, for means over tokens.
        rejected_tokens: Completion tokens in l.
        chosen_token_logps: The policy's log-probability of every single token of the chosen completions, one after the
            other, shape (tokens,). No loss needs it. `SFT(reduction="token_mean")` averages it if it is there, which
            differs from the quotient of the sums by a rounding error only, and equals TRL's `sft` to the last bit.
        baseline: log pi of a completion of the baseline distribution, one for each pair, summed over tokens; for `SFT`
            and `RPO` with a `baseline` other than "chosen".
        baseline_tokens: Completion tokens in it.
        calibration: What `Calibrated` multiplies the chosen gradient by, > 0; None: 1.
        single: Log-probabilities of single tokens, for the losses that read them (`Loss.reads_tokens`).

    Raises:
        LossError: A shape or a dtype is wrong, or one of two partners (such as the two reference tensors) is missing.

    Example:
        >>> pairs = PairLogps(torch.tensor([-3.0]), torch.tensor([-5.0]))
        >>> pairs.swapped().chosen
        tensor([-5.])
    """

    chosen: Tensor
    rejected: Tensor
    ref_chosen: Tensor | None = None
    ref_rejected: Tensor | None = None
    chosen_tokens: Tensor | None = None
    rejected_tokens: Tensor | None = None
    chosen_token_logps: Tensor | None = None
    baseline: Tensor | None = None
    baseline_tokens: Tensor | None = None
    single: TokenLogps | None = None
    calibration: float | None = None

    def __post_init__(self) -> None:
        for name in _LOGPS:
            _check_logps(name, getattr(self, name), required=not name.startswith("ref_"))
        for name in ("chosen_tokens", "rejected_tokens", "baseline_tokens"):
            _check_is_tensor(name, getattr(self, name))
        for name in ("chosen_token_logps", "baseline"):
            _check_logps(name, getattr(self, name), required=False)
        self._check_partners()
        self._check_shapes()
        for name in (*_LOGPS, "chosen_tokens", "rejected_tokens", "chosen_token_logps", "baseline", "baseline_tokens"):
            value: object = getattr(self, name)
            if isinstance(value, Tensor) and value.dtype in _HALF:
                object.__setattr__(self, name, value.float())

    def _check_partners(self) -> None:
        for first, second in _PARTNERS:
            if (getattr(self, first) is None) != (getattr(self, second) is None):
                missing = first if getattr(self, first) is None else second
                raise LossError(f"`{first}` and `{second}` must be given together (`{missing}` is missing).")

    def _check_shapes(self) -> None:
        chosen: object = self.chosen
        if not isinstance(chosen, Tensor):
            return  # a symbolic stand-in, which has no shape to check
        shape = chosen.shape
        if len(shape) != 1 or shape[0] == 0:
            raise LossError(
                f"`chosen` must have the shape (pairs,) with at least one pair (got {tuple(shape)}): "
                "sum the log-probabilities over the tokens first."
            )
        per_pair = ("rejected", "ref_chosen", "ref_rejected", "chosen_tokens", "rejected_tokens")
        for name in (*per_pair, "baseline", "baseline_tokens"):
            value = getattr(self, name)
            if value is not None and value.shape != shape:
                raise LossError(
                    f"`{name}` must have the shape of `chosen`, {tuple(shape)} (got {tuple(value.shape)}): "
                    "one value per pair."
                )

    def __len__(self) -> int:
        return len(self.chosen)

    def swapped(self) -> PairLogps:
        """The same pairs with their labels flipped: chosen and rejected change places."""
        return PairLogps(
            chosen=self.rejected,
            rejected=self.chosen,
            ref_chosen=self.ref_rejected,
            ref_rejected=self.ref_chosen,
            chosen_tokens=self.rejected_tokens,
            rejected_tokens=self.chosen_tokens,
            baseline=self.baseline,
            baseline_tokens=self.baseline_tokens,
            single=None if self.single is None else self.single.swapped(),
        )

    def single_tokens(self) -> TokenLogps:
        """Log-probabilities of single tokens.

        Raises:
            LossError: The pairs carry none.
        """
        if self.single is None:
            raise LossError("this loss reads single tokens: give `single`, a `TokenLogps`. `PrefTrainer` does so.")
        return self.single

    def reference(self) -> tuple[Tensor, Tensor]:
        """log ref(w) and log ref(l), in nats, summed over tokens.

        Raises:
            LossError: The pairs carry no reference.
        """
        if self.ref_chosen is None or self.ref_rejected is None:
            raise LossError(
                "this loss needs the log-probabilities of a reference: give `ref_chosen` and `ref_rejected`. "
                "For a loss without a reference use `SimPO`."
            )
        return self.ref_chosen, self.ref_rejected

    def tokens(self) -> tuple[Tensor, Tensor]:
        """Numbers of tokens in w and l, at least 1.

        Raises:
            LossError: The pairs carry no token counts.
        """
        if self.chosen_tokens is None or self.rejected_tokens is None:
            raise LossError(
                "this loss takes means over tokens and needs their numbers: give `chosen_tokens` and "
                "`rejected_tokens`. For sums over tokens, where the loss has them, use `mean=False`."
            )
        return self.chosen_tokens.clamp(min=1.0), self.rejected_tokens.clamp(min=1.0)

    def logps(self, mean: bool = False) -> tuple[Tensor, Tensor]:
        """log pi(w) and log pi(l), in nats, summed over tokens, or their means over tokens.

        Raises:
            LossError: `mean` is asked for and the pairs carry no token counts.
        """
        if not mean:
            return self.chosen, self.rejected
        chosen_tokens, rejected_tokens = self.tokens()
        return self.chosen / chosen_tokens, self.rejected / rejected_tokens

    def ratios(self, mean: bool = False) -> tuple[Tensor, Tensor]:
        """log pi(w) - log ref(w) and log pi(l) - log ref(l), in nats, summed over tokens, or their means over tokens.

        Raises:
            LossError: The pairs carry no reference, or `mean` is asked for and they carry no token counts.
        """
        ref_chosen, ref_rejected = self.reference()
        chosen, rejected = self.chosen - ref_chosen, self.rejected - ref_rejected
        if not mean:
            return chosen, rejected
        chosen_tokens, rejected_tokens = self.tokens()
        return chosen / chosen_tokens, rejected / rejected_tokens


def _check_is_tensor(name: str, value: object) -> None:
    # The compiler reads losses by calling them with symbolic stand-ins, which speak torch's protocol.
    if value is not None and not hasattr(type(value), "__torch_function__"):
        raise LossError(f"`{name}` must be a tensor of the shape (pairs,) (got {type(value).__name__}).")


def _check_logps(name: str, value: object, required: bool) -> None:
    if required and value is None:
        raise LossError(f"`{name}` must be a tensor of the shape (pairs,) (got None).")
    _check_is_tensor(name, value)
    if isinstance(value, Tensor) and not value.dtype.is_floating_point:
        raise LossError(
            f"`{name}` must be a tensor of floats (got {value.dtype}): log-probabilities in nats, float32 or float64; "
            "bfloat16 and float16 are read as float32."
        )
