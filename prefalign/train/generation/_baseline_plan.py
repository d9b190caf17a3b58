"""Which baseline a loss asks for, and what of it can be made before training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..._errors import ConfigError, DataError
from ...data import DataReport, check_pairs, load_pairs
from ...losses import Loss
from ...references import Policy, Reference
from ._sampling import Sampling, read_sampling
from ._winners import as_pairs, ends_of


@dataclass(frozen=True)
class BaselinePlan:
    """Whose completions the likelihood is of, settled before any weights load.

    Attributes:
        kind: "sft_dataset" or "reference".
        data: The other data set as pairs whose two completions are the same; None for the reference.
        report: What its check found.
        sampling: How the reference is sampled; None for another data set.
    """

    kind: str
    data: Any = None
    report: DataReport | None = None
    sampling: Sampling | None = None


def baselines_of(loss: Loss) -> set[str]:
    """The baselines of a loss's terms besides the chosen completions."""
    found = {str(getattr(term, "baseline", "chosen")) for _, term in loss.terms}
    return found - {"chosen"}


def plan_baseline(
    args: Any, loss: Loss, reference: Reference, given: Any, model: Any, policy: Policy, pairs: Any
) -> BaselinePlan | None:
    """Settle where the baseline's completions come from; None if the loss needs none.

    Args:
        args: The training arguments.
        loss: The loss.
        reference: What the policy is compared with.
        given: The trainer's `sft_dataset`.
        model: The policy or its name.
        policy: What is known of it.
        pairs: The training pairs.

    Raises:
        ConfigError: A data set is missing, given twice or without effect; or the reference cannot be sampled.
        DataError: The data set cannot be trained on.
    """
    kinds = baselines_of(loss)
    if len(kinds) > 1:
        raise ConfigError(f"`loss` must have one baseline besides 'chosen' (got {', '.join(sorted(kinds))}).")
    name = getattr(args, "sft_dataset_name", None)
    if "sft_dataset" not in kinds:
        for option, value in (("sft_dataset", given), ("sft_dataset_name", name)):
            if value is not None:
                raise ConfigError(
                    f"`{option}` would have no effect: no term of the loss has baseline='sft_dataset' ({loss.title}). "
                    "Leave it out, or write that baseline into `rpo` or `sft`."
                )
    if not kinds:
        return None
    if "reference" in kinds:
        return _plan_samples(args, loss, reference, model, policy, pairs)
    if (given is None) == (name is None):
        raise ConfigError(
            "baseline='sft_dataset' needs one data set: `sft_dataset=` of the trainer, or `sft_dataset_name` "
            f"(got {'neither' if name is None else 'both'})."
        )
    data = given
    if name is not None:
        data = load_pairs(name)
    if not hasattr(data, "__len__") or not hasattr(data, "column_names"):
        raise ConfigError(f"`sft_dataset` must be a data set of known length (got {type(data).__name__}).")
    if "rejected" in data.column_names and "prompt" in data.column_names:
        data = data.remove_columns("rejected")
    report = check_pairs(
        data,
        policy.processing_class,
        max_length=args.max_length,
        truncation_mode=args.truncation_mode,
        winners_only=True,
        progress=args.process_index == 0,
    )
    report.raise_if_unusable()
    if report.dropped:
        faults = "; ".join(
            f"{f.count} x {f.kind} (first in row {f.rows[0]}): {f.message}"
            for f in report.findings
            if f.severity == "drop"
        )
        raise DataError(f"`sft_dataset` has {report.dropped} of {report.rows} rows without a completion: {faults}.")
    return BaselinePlan("sft_dataset", as_pairs(data, data.column_names), report)


def _plan_samples(args: Any, loss: Loss, reference: Reference, model: Any, policy: Policy, pairs: Any) -> BaselinePlan:
    why = None
    if not reference.needs_model or not reference.fixed:
        why = (
            f"`reference={reference.expression!r}` {'changes during training' if reference.needs_model else 'is none'}"
        )
    elif args.precompute_ref_log_probs:
        why = "`precompute_ref_log_probs=True` lets the reference go before training"
    elif not hasattr(pairs, "__len__"):
        why = "the pairs are a stream, which is read once"
    if why is not None:
        raise ConfigError(
            f"baseline='reference' samples a fixed reference before training, and {why}. Use baseline='chosen', or a "
            "fixed reference and pairs of known length."
        )
    return BaselinePlan("reference", sampling=read_sampling(args, policy.processing_class, ends_of(model, policy)))
