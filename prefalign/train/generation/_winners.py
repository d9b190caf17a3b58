"""Winners alone: which losses take them, and how their rows go through a trainer of pairs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from transformers import GenerationConfig

from ..._errors import ConfigError
from ...data import check_pairs, drop_bad
from ...losses import SFT, Loss, SePPO
from ...references import Policy
from .._rows import SPLIT, number_rows
from ..config import given_options
from ._sampling import Generator, Sampling, read_sampling

if TYPE_CHECKING:
    from .._host import Host

logger = logging.getLogger(__name__)


def takes_winners(loss: Loss) -> bool:
    """Whether the loss takes data of winners alone: losers are generated for it, or it never looks at them (`SFT`)."""
    return generates(loss) or all(isinstance(term, SFT) for _, term in loss.terms)


def generates(loss: Loss) -> bool:
    """Whether the reference generates the other completion for the loss: one of its terms is `SePPO`."""
    for _, term in loss.terms:
        inner: object = term
        while inner is not None:
            if isinstance(inner, SePPO):
                return True
            inner = getattr(inner, "loss", None)
    return False


def samples_reference(loss: Loss) -> bool:
    """Whether a term is the likelihood of samples of the reference, which the generation options shape too."""
    return any(isinstance(term, SFT) and term.baseline == "reference" for _, term in loss.terms)


def as_pairs(dataset: Any, columns: Sequence[str]) -> Any:
    """Rows of winners as pairs, so that TRL tokenises them: the winner stands where the completion will be.

    Args:
        dataset: With `prompt`, and `chosen` or `completion`.
        columns: Its columns, which a stream does not always know.
    """
    winner = "chosen" if "chosen" in columns else "completion"
    if not hasattr(dataset, "__len__"):
        return dataset.map(lambda row: {"chosen": row[winner], "rejected": row[winner]})
    if winner != "chosen":
        dataset = dataset.rename_column(winner, "chosen")
    features = dataset.features.copy()
    features["rejected"] = features["chosen"]  # a guess from the values would fill in keys that other rows have
    return dataset.with_format(None).map(lambda rows: {"rejected": rows["chosen"]}, batched=True, features=features)


def evaluated(trainer: Host, dataset: Any) -> Any:
    """What `evaluate` is given: rows of winners alone become pairs, whose losers are generated; all else stays.

    Args:
        trainer: The trainer.
        dataset: A data set, a dict of them, a name, or None.

    Raises:
        DataError: The loss needs both completions, or no row can be scored.
    """
    if isinstance(dataset, Mapping):
        return {name: evaluated(trainer, each) for name, each in dataset.items()}
    columns = set(getattr(dataset, "column_names", None) or ())
    alone = "prompt" in columns and columns & {"chosen", "completion"} and not columns & {"rejected", "prompt_ids"}
    if not alone or not hasattr(dataset, "__len__"):
        return dataset
    loss, play, args = trainer.objective.loss, trainer.self_play, trainer.args
    takes = not generates(loss) if play is None else True
    report = check_pairs(
        dataset,
        trainer.processing_class,
        max_length=args.max_length,
        truncation_mode=args.truncation_mode,
        winners_only=None if takes and takes_winners(loss) else False,
    )
    report.raise_if_unusable()
    split = len(trainer.splits)
    trainer.splits += ("evaluation",)
    if play is not None:
        play.splits |= {split}
    numbered = number_rows(dataset, split * SPLIT)
    return as_pairs(drop_bad(numbered, report, getattr(args, "on_bad_pairs", "drop")), numbered.column_names)


def prepare_generation(
    model: Any, policy: Policy, args: Any, loss: Loss, winners: bool, generator: Generator | None
) -> Sampling | None:
    """How completions are sampled; None if none are.

    Args:
        model: The policy or its name.
        policy: What is known of it.
        args: The training arguments.
        loss: The loss.
        winners: Some data hold winners alone.
        generator: The trainer's `generator`, if one was given.

    Raises:
        ConfigError: An option contradicts data of winners alone, or has no effect without them.
    """
    if generates(loss) and not winners and args.process_index == 0:
        logger.warning(
            "The data hold both completions: the pairs are trained on as they are, and nothing is generated. Remove "
            "their column `rejected` to let the reference generate the losers."
        )
    if not (winners and generates(loss)):
        useless = next(iter(given_options(args)), "generator" if generator is not None else None)
        if useless is not None and not samples_reference(loss):
            raise ConfigError(
                f"`{useless}` would have no effect: nothing is generated, because "
                + (
                    "the data hold both completions. Remove their column `rejected`, or leave it out."
                    if generates(loss)
                    else "the loss has no `seppo` term. Leave it out."
                )
            )
        return None
    if args.precompute_ref_log_probs:
        raise ConfigError(
            "`precompute_ref_log_probs=True` contradicts data of winners alone: the other completions are generated "
            "during training. Leave it out."
        )
    return read_sampling(args, policy.processing_class, ends_of(model, policy))


def ends_of(model: Any, policy: Policy) -> Any:
    """What names the model's end tokens."""
    if not isinstance(model, str):
        return model.generation_config
    try:
        return GenerationConfig.from_pretrained(model)
    except OSError:  # a model that was saved without one
        return policy.config
