"""The data of a run: checked, flipped, numbered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..._errors import ConfigError
from ...data import DataReport, check_pairs, drop_bad
from ...references import Policy
from .. import _trl
from .._rows import BY_LENGTH, SPLIT, number_rows
from ..config import check_format, check_images
from ..generation import as_pairs


@dataclass(frozen=True)
class Data:
    """The data sets, checked and numbered.

    Attributes:
        train: The training pairs.
        eval: The evaluation pairs: None, one data set, or a dict of them.
        reports: What the check of each found, by its name.
        splits: The names, in the order of the numbers that `pair_index` has them under.
        noise_rate: Share of the training labels that were flipped on purpose; None if that is not known.
        winners: Numbers of the data sets that held winners alone, and have placeholders now.
    """

    train: Any
    eval: Any
    reports: dict[str, DataReport]
    splits: tuple[str, ...]
    noise_rate: float | None
    winners: frozenset[int]


def prepare_data(train: Any, evaluation: Any, policy: Policy, args: Any, winners: bool) -> Data:
    """Number the rows, check them, and drop or refuse those that cannot be trained on.

    Args:
        train, evaluation: As the trainer takes them.
        policy: The policy.
        args: The training arguments.
        winners: Data may hold winners alone.

    Raises:
        ConfigError: There is no training data.
        DataError: The data cannot be trained on.
    """
    if train is None:
        raise ConfigError("`train_dataset` must be a data set of pairs (got None).")
    named = {"train": train}
    if isinstance(evaluation, Mapping):
        named |= {f"eval_{name}": dataset for name, dataset in evaluation.items()}
    elif evaluation is not None:
        named["eval"] = evaluation
    for name, dataset in named.items():
        check_format(name, dataset)
    _check_sampling(args, named)
    reports: dict[str, DataReport] = {}
    ready = {}
    for split, (name, dataset) in enumerate(named.items()):
        ready[name] = _prepare(name, number_rows(dataset, split * SPLIT), policy, args, reports, winners)
    alone = {split for split, name in enumerate(named) if name in reports and reports[name].layout == "winners"}
    if isinstance(evaluation, Mapping):
        evaluation = {name: ready[f"eval_{name}"] for name in evaluation}
    elif evaluation is not None:
        evaluation = ready["eval"]
    return Data(ready["train"], evaluation, reports, tuple(named), _flipped(ready["train"]), frozenset(alone))


def _check_sampling(args: Any, datasets: Mapping[str, Any]) -> None:
    """Refuse to sample by length without lengths: pairs have two, and transformers finds none by itself.

    Args:
        args: The training arguments.
        datasets: Training and evaluation data, by name.

    Raises:
        ConfigError: A data set has no column of lengths.
    """
    strategy, column = args.train_sampling_strategy, args.length_column_name
    if strategy not in BY_LENGTH:
        return
    for name, dataset in datasets.items():
        if column not in (getattr(dataset, "column_names", None) or ()) or not hasattr(dataset, "__len__"):
            raise ConfigError(
                f"`train_sampling_strategy={strategy!r}` needs a column `{column}` (`length_column_name`) with a "
                f"number for each pair, and the {name} data have none. Add it, or use `tokens_per_batch`, which sorts "
                "a step's own pairs by length."
            )


def _prepare(name: str, dataset: Any, policy: Policy, args: Any, reports: dict[str, DataReport], winners: bool) -> Any:
    columns = getattr(dataset, "column_names", None)
    if columns is None and hasattr(dataset, "take"):  # a stream says what its columns are with its first row
        columns = list(next(iter(dataset), {}))
    if columns is None:
        return dataset  # TRL refuses what is no data set
    if {"image", "images"} & set(columns):
        check_images(args, policy.processing_class)
    streamed = not hasattr(dataset, "__len__")
    report = check_pairs(
        dataset,
        policy.processing_class,
        max_length=args.max_length,
        truncation_mode=args.truncation_mode,
        winners_only=None if winners else False,
        limit=1000 if streamed else None,
        progress=args.process_index == 0,
    )
    reports[name] = report
    if args.process_index == 0 and not report.clean:
        print(f"Check of the {name} data\n{report}\n", flush=True)
    report.raise_if_unusable()
    kept = dataset if streamed else drop_bad(dataset, report, getattr(args, "on_bad_pairs", "drop"))
    if report.layout == "winners":
        kept = as_pairs(kept, columns)
    if streamed:
        return kept
    return _trl.share(kept, args) if args.precompute_ref_log_probs and args.world_size > 1 else kept


def _flipped(dataset: Any) -> float | None:
    if "flipped" not in (getattr(dataset, "column_names", None) or ()) or not hasattr(dataset, "__len__"):
        return None
    return sum(map(bool, dataset["flipped"])) / len(dataset)
