"""The negative log-likelihood of the chosen completions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from ..._errors import LossError
from .._loss import Loss, check_choice
from .._pairs import PairLogps
from .._registry import register_loss

Reduction = Literal["sum", "sequence_mean", "token_mean"]
Baseline = Literal["chosen", "sft_dataset", "reference"]

_FORMULAS = {
    "sum": ("-log pi({y})", "sums over tokens"),
    "sequence_mean": ("-log pi({y})/|{y}|", "means over each sequence's tokens"),
    "token_mean": (
        "-(sum over the batch of log pi({y})) / (sum over the batch of |{y}|)",
        "mean over the batch's tokens",
    ),
}
# What the formula calls the completion, and whose it is.
_COMPLETIONS: dict[Baseline, tuple[str, str]] = {
    "chosen": ("w", ""),
    "sft_dataset": ("y", " with y from the SFT data set"),
    "reference": ("y", " with y sampled from the reference"),
}


@register_loss("sft", trl="sft")
@dataclass(frozen=True)
class SFT(Loss):
    """Negative log-likelihood of the chosen completions, or of those of another baseline distribution.

    Args:
        reduction: "sum": -log pi(w), summed over each completion's tokens. "sequence_mean": that, divided by the number
            of tokens |w|. "token_mean": the mean over all chosen tokens of the micro-batch, the same value for every
            pair, as TRL's `sft`; long completions weigh more, and it depends on how the batch is split.
        baseline: Whose completions. "chosen": the pairs' own. "sft_dataset": those of another data set, which the
            trainer takes as `sft_dataset`. "reference": one sample of the reference for each prompt, which the trainer
            draws before it starts. The two last come one for each pair, as `PairLogps.baseline`.

    Raises:
        LossError: `reduction` or `baseline` is not one of the three; when called, the pairs lack those completions.

    Example:
        >>> pairs = PairLogps(*torch.tensor([[-4.0, -3.0], [0.0, 0.0]]), chosen_tokens=torch.tensor([2.0, 6.0]),
        ...                   rejected_tokens=torch.tensor([1.0, 1.0]))
        >>> SFT(reduction="sum")(pairs), SFT(reduction="sequence_mean")(pairs), SFT(reduction="token_mean")(pairs)
        (tensor([4., 3.]), tensor([2.0000, 0.5000]), tensor([0.8750, 0.8750]))

    Source: the regulariser of Liu et al. 2024, arXiv:2405.16436, Eq. 4.8, whose two codes take "sum" and
    "sequence_mean"; TRL's `sft` is "token_mean".
    """

    reduction: Reduction
    baseline: Baseline = "chosen"

    needs_reference = False

    def __post_init__(self) -> None:
        check_choice(self, "reduction", get_args(Reduction))
        check_choice(self, "baseline", get_args(Baseline))

    @property
    def needs_lengths(self) -> bool:
        """For the two means."""
        return self.reduction != "sum"

    @property
    def couples_pairs(self) -> bool:
        """Where the mean is one over the tokens of the batch."""
        return self.reduction == "token_mean"

    @property
    def swap_obstacle(self) -> str | None:
        """It has no pair to swap."""
        return (
            "`sft` looks at the chosen completion alone and has no pair to swap; wrap the preference term and add "
            "`sft` outside, as in `robust(dpo(beta=0.1), flip_rate=0.2) + 0.005*sft(reduction='sum')`"
        )

    @property
    def aggregation(self) -> str:
        """What the formula's log-probabilities are."""
        return _FORMULAS[self.reduction][1]

    @property
    def formula(self) -> str:
        """The formula."""
        name, whose = _COMPLETIONS[self.baseline]
        return _FORMULAS[self.reduction][0].format(y=name) + whose

    def __call__(self, pair_logps: PairLogps) -> Tensor:
        """The loss of every pair, shape (pairs,)."""
        if self.baseline != "chosen":
            return self._of_baseline(pair_logps)
        if self.reduction == "sum":
            return -pair_logps.chosen
        if self.reduction == "sequence_mean":
            return -pair_logps.logps(mean=True)[0]
        if pair_logps.chosen_token_logps is not None:
            return -pair_logps.chosen_token_logps.mean().expand(len(pair_logps))
        tokens, _ = pair_logps.tokens()
        return (-(pair_logps.chosen.sum() / tokens.sum())).expand(len(pair_logps))

    def _of_baseline(self, pair_logps: PairLogps) -> Tensor:
        logps, tokens = pair_logps.baseline, pair_logps.baseline_tokens
        if logps is None or (tokens is None and self.needs_lengths):
            missing = "baseline" if logps is None else "baseline_tokens"
            raise LossError(
                f"`sft` with baseline={self.baseline!r} needs the log-probabilities of those completions: give "
                f"`{missing}`; `PrefTrainer` does so. For the pairs' own completions use baseline='chosen'."
            )
        if self.reduction == "sum" or tokens is None:
            return -logps
        if self.reduction == "sequence_mean":
            return -logps / tokens.clamp(min=1.0)
        return (-(logps.sum() / tokens.sum())).expand(len(pair_logps))
