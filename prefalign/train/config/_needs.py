"""What arguments need of the machine, and of the evaluation: asked before any weights load."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from ..._errors import ConfigError, DataError, did_you_mean

# A part of an optimizer's name -> the package that has it.
_OPTIMIZERS = {
    "bnb": "bitsandbytes",
    "8bit": "bitsandbytes",
    "paged": "bitsandbytes",
    "galore": "galore-torch",
    "lomo": "lomo-optim",
    "grokadamw": "grokadamw",
    "schedule_free": "schedulefree",
    "apollo": "apollo-torch",
    "torchao": "torchao",
    "apex": "apex",
}
_MODULES = {"galore-torch": "galore_torch", "lomo-optim": "lomo_optim", "apollo-torch": "apollo_torch"}
_METRICS = (
    *("loss", "runtime", "samples_per_second", "steps_per_second", "entropy", "num_tokens", "mean_token_accuracy"),
    *("rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen", "logps/rejected"),
    *("logits/chosen", "logits/rejected", "logps/chosen_change", "logps/rejected_change", "displacement", "kl"),
    *("anchor/flip_rate", "anchor/margin", "logps/baseline", "aux_loss"),
)


def check_packages(args: Any) -> None:
    """Refuse a reporter or an optimizer whose package is not installed.

    Raises:
        ConfigError: A package is missing.
    """
    from transformers.integrations import get_available_reporting_integrations

    asked = args.report_to if isinstance(args.report_to, list) else [args.report_to]
    for name in asked:
        if name not in ("all", "none", None, *get_available_reporting_integrations()):
            raise ConfigError(f"`report_to` needs the package {name!r}, which is not installed: `pip install {name}`.")
    optim = str(getattr(args.optim, "value", args.optim))
    for part, package in _OPTIMIZERS.items():
        if part in optim and importlib.util.find_spec(_MODULES.get(package, package)) is None:
            raise ConfigError(f"`optim={optim!r}` needs the package {package!r}: `pip install {package}`.")


def check_best_model(args: Any, evaluation: Any, measures_more: bool) -> None:
    """Refuse a choice of the best checkpoint that nothing could be chosen by.

    Args:
        args: The training arguments.
        evaluation: The evaluation data: None, a data set, or a dict of them.
        measures_more: `compute_metrics` was given, whose names are not known here.

    Raises:
        ConfigError: There is no evaluation, or it has no such metric.
    """
    strategy = str(getattr(args.eval_strategy, "value", args.eval_strategy))
    if args.load_best_model_at_end and (evaluation is None or strategy == "no"):
        raise ConfigError(
            "`load_best_model_at_end=True` would have no effect: nothing is evaluated. Give `eval_dataset` and "
            "`eval_strategy`, or leave it out."
        )
    metric = args.metric_for_best_model
    if metric is None or measures_more or evaluation is None:
        return
    sets = list(evaluation) if isinstance(evaluation, Mapping) else []
    known = [f"eval_{name}_{known}" for name in sets for known in _METRICS] or [f"eval_{known}" for known in _METRICS]
    asked = metric if metric.startswith("eval_") else f"eval_{metric}"
    if asked not in known and "loss/" not in asked:  # of a composed loss each term is measured
        which = f" (the sets are {', '.join(sets)})" if sets else ""
        raise ConfigError(
            f"`metric_for_best_model={metric!r}` is no metric of the evaluation{which}.{did_you_mean(asked, known)}"
        )


def check_is_dataset(name: str, dataset: Any) -> None:
    """Refuse several splits where one data set is needed.

    Raises:
        DataError: It is a dict of data sets.
    """
    if isinstance(dataset, Mapping):
        raise DataError(
            f"`{name}` must be one data set (got several: {', '.join(map(str, dataset))}). Take one, as in "
            f"`{name}=data[{next(iter(dataset), 'train')!r}]`."
        )


def check_format(name: str, dataset: Any) -> None:
    """Refuse a data set that gives its rows as tensors or arrays: texts would reach the template as something else.

    Raises:
        DataError: It has a format.
    """
    streamed = getattr(getattr(dataset, "_formatting", None), "format_type", None)
    kind = (getattr(dataset, "format", None) or {}).get("type") or streamed
    if kind is not None:
        raise DataError(
            f"The {name} data have the format {kind!r}, which is no format for texts. Pass `dataset.with_format(None)`."
        )


def check_images(args: Any, processor: Any) -> None:
    """Refuse options and models that pairs with images cannot be trained with.

    Raises:
        ConfigError: The model has no processor of images, or an option has no meaning for them.
    """
    if not hasattr(processor, "image_processor"):
        raise ConfigError(
            "The data have images (a column `image` or `images`), and the model reads texts alone. Take a "
            "vision-language model with its processor, or remove the column."
        )
    for name, value in (("truncation_mode", "keep_end"), ("precompute_ref_log_probs", True)):
        if getattr(args, name) == value and (name != "truncation_mode" or args.max_length is not None):
            raise ConfigError(f"`{name}={value!r}` cannot be combined with images. Leave it out.")


def check_vocabulary(tokenizer: Any, rows: int | None) -> None:
    """Refuse a tokenizer with tokens that the model has no embedding for.

    Args:
        tokenizer: The tokenizer.
        rows: Rows of the model's embedding; None if they are not known.

    Raises:
        ConfigError: A token has no embedding.
    """
    vocabulary: dict[str, int] = getattr(getattr(tokenizer, "tokenizer", tokenizer), "get_vocab", dict)()
    if rows is None or not vocabulary:
        return
    token, number = max(vocabulary.items(), key=lambda pair: pair[1])
    if number >= rows:
        raise ConfigError(
            f"The tokenizer has tokens without an embedding: {token!r} is number {number}, and the model has {rows} "
            "rows. Use the model's own tokenizer, or resize its embeddings (`model.resize_token_embeddings(len("
            "tokenizer))`) and save both."
        )
