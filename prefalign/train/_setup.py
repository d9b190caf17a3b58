"""What the trainer does before any weights load, and the second model."""

from __future__ import annotations

import copy
import inspect
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoProcessor
from trl import DPOConfig

from .._errors import CheckpointError, ConfigError, PrefalignError
from ..data import DataReport, check_pairs, drop_bad
from ..references import Policy, Reference, check_files
from . import _trl
from ._guard import SPLIT
from ._objective import Objective
from ._options import check_names
from ._winners import as_pairs


def check_arguments(trainer: type, unknown: Mapping[str, object]) -> None:
    """Refuse arguments that the trainer does not have, with the nearest name or the way to migrate.

    Raises:
        ConfigError: There is one.
    """
    known = [name for name in inspect.signature(trainer).parameters if name not in ("self", "unknown")]
    check_names(unknown, known, f"`{trainer.__name__}`")


def default_output_dir(model: Any) -> str:
    """TRL's own: the model's name and `-DPO`."""
    name = model if isinstance(model, str) else _trl.model_id(model.config) or "model"
    return f"{os.path.basename(os.path.normpath(name))}-DPO"


def check_args(args: object) -> None:
    """Refuse what is no configuration of preference training, such as transformers' own `TrainingArguments`.

    Raises:
        ConfigError: It is none.
    """
    if not isinstance(args, DPOConfig):
        raise ConfigError(f"`args` must be a `PrefConfig` or TRL's `DPOConfig` (got {type(args).__name__}).")


def check_model_options(model: Any, args: Any) -> None:
    """Refuse loading options for a model that is loaded already.

    Raises:
        ConfigError: There are some.
    """
    if not isinstance(model, str) and args.model_init_kwargs is not None:
        raise ConfigError(
            f"`model_init_kwargs={args.model_init_kwargs!r}` would have no effect: the model is loaded already. Leave "
            "it out, or pass the model's name."
        )


def mirror(objective: Objective, args: Any) -> None:
    """Let the training arguments, which are logged and saved, say what is trained."""
    args.reference = objective.reference.expression
    args.sync_ref_model = False  # the reference does it
    if objective.own:
        args.loss, args.loss_type, args.beta = objective.expression or objective.formula, [], None


def describe_policy(model: Any, processing_class: Any, args: Any) -> Policy:
    """What is known of the policy without its weights; its tokenizer is loaded if none was given.

    Raises:
        ConfigError: The model cannot be found, or there is no tokenizer.
    """
    options = {"trust_remote_code": args.trust_remote_code}
    path = model if isinstance(model, str) else _trl.model_id(model.config)
    if isinstance(model, str):
        options["revision"] = (args.model_init_kwargs or {}).get("revision")
        check_files(model)
        try:
            config = AutoConfig.from_pretrained(model, **{k: v for k, v in options.items() if v is not None})
        except Exception as error:  # a dozen kinds, by what is missing or damaged
            raise ConfigError(
                f"`model` must be a directory with a model, or a hub id that can be read (got {model!r}): {error}"
            ) from error
    else:
        config = model.config
    if processing_class is None:
        if not path:
            raise ConfigError(
                "`processing_class` must be given for a model that was built in memory, which no tokenizer is saved "
                "with. Pass its tokenizer."
            )
        try:
            processing_class = AutoProcessor.from_pretrained(path, **options)
        except Exception as error:  # a dozen kinds, by what is missing or damaged
            raise ConfigError(
                f"`processing_class` must be given: no tokenizer can be loaded from {path!r}: {error}"
            ) from error
    return Policy(path, config, processing_class)


def base_of_adapter(model: Any) -> str | None:
    """The base model that a folder with an adapter alone names; None for anything else.

    Raises:
        ConfigError: The adapter names none, or cannot be read.
    """
    if not isinstance(model, str) or not os.path.isfile(os.path.join(model, "adapter_config.json")):
        return None
    if os.path.exists(os.path.join(model, "config.json")):
        return None
    from peft import PeftConfig

    try:
        base: str | None = PeftConfig.from_pretrained(model).base_model_name_or_path
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"`model` holds an adapter whose configuration cannot be read ({model!r}): {error}"
        ) from error
    if not base:
        raise ConfigError(
            f"`model` holds an adapter alone, and its configuration names no base model ({model!r}). Pass "
            f"`PeftModel.from_pretrained(base, {model!r}, is_trainable=True)`."
        )
    return base


def load_adapter(model: str, args: Any, peft_config: Any, quantization: Any) -> Any:
    """The adapter of a folder on its base model, to be trained further; `args.model_init_kwargs` are used up by it.

    Raises:
        ConfigError: Another adapter was asked for, or the weights do not load.
    """
    if peft_config is not None:
        raise ConfigError(
            f"`peft_config` would put a new adapter on {model!r}, which is an adapter itself. Leave it out to train "
            "that one further, or merge it into its base model first."
        )
    from peft import AutoPeftModelForCausalLM

    options: dict[str, Any] = {"dtype": torch.float32, **(args.model_init_kwargs or {})}  # TRL's default
    options.setdefault("trust_remote_code", args.trust_remote_code)
    args.model_init_kwargs = None
    if quantization is not None:
        options["quantization_config"] = quantization
    with loading_errors(model):
        return AutoPeftModelForCausalLM.from_pretrained(model, is_trainable=True, **options)


@contextmanager
def loading_errors(model: object) -> Iterator[None]:
    """Turns what is found wrong while weights are loaded into errors of ours, with what was found.

    Raises:
        CheckpointError: The weights do not fit the model's configuration.
        ConfigError: Anything else that an option or a file has caused.
    """
    name = repr(model)[:200] if isinstance(model, str) else type(model).__name__
    try:
        yield
    except PrefalignError:
        raise
    except (ValueError, ImportError, OSError, SafetensorError) as error:
        raise ConfigError(f"The trainer of {name} cannot be made: {error}") from error
    except RuntimeError as error:
        if "mismatch" not in str(error):
            raise
        raise CheckpointError(
            f"The weights of {name} do not fit the shapes that its config.json says. {error}"
        ) from error


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
    reports: dict[str, DataReport] = {}
    ready = {}
    for split, (name, dataset) in enumerate(named.items()):
        ready[name] = _prepare(name, _trl.number_rows(dataset, split * SPLIT), policy, args, reports, winners)
    alone = {split for split, name in enumerate(named) if name in reports and reports[name].layout == "winners"}
    if isinstance(evaluation, Mapping):
        evaluation = {name: ready[f"eval_{name}"] for name in evaluation}
    elif evaluation is not None:
        evaluation = ready["eval"]
    return Data(ready["train"], evaluation, reports, tuple(named), _flipped(ready["train"]), frozenset(alone))


def _prepare(name: str, dataset: Any, policy: Policy, args: Any, reports: dict[str, DataReport], winners: bool) -> Any:
    columns = getattr(dataset, "column_names", None)
    if columns is None and hasattr(dataset, "take"):  # a stream says what its columns are with its first row
        columns = list(next(iter(dataset), {}))
    if columns is None or {"image", "images"} & set(columns):
        return dataset  # TRL reads these on the fly, and refuses what is no data set
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


def second_model(
    model: Any, given: Any, reference: Reference, policy: Policy, args: Any, peft_config: Any
) -> nn.Module | None:
    """What TRL is given as `ref_model`; None where it loads the model itself, or needs none.

    TRL makes the reference of a model that was passed as an object by loading its name again, which is another model if
    the object was changed since: here it is copied.
    """
    if given is not None:
        return given  # type: ignore[no-any-return]
    if not reference.needs_model:
        return _trl.NoModel()
    source = reference.source(policy)
    if source is not None:
        return _trl.load_beside(source, None if isinstance(model, str) else model, args, policy.config)
    adapters = peft_config is not None or hasattr(model, "peft_config")
    if isinstance(model, str) or adapters or args.precompute_ref_log_probs or _trl.is_sharded_at_load(args):
        return None
    twin = copy.deepcopy(model)
    twin.__dict__.pop("forward", None)  # the fused head of an earlier trainer
    return twin.requires_grad_(False).eval()  # type: ignore[no-any-return]
