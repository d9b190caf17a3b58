"""The recipe of `prefalign train`: options, data, model, trainer."""

from __future__ import annotations

import argparse
import os
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._errors import ConfigError
from ._texts import Texts

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass
class DataArguments:
    """Which pairs to train on; TRL's names."""

    dataset_name: str | None = field(
        default=None, metadata={"help": "Pairs: a .jsonl, .json, .csv or .parquet file, a saved folder, or a hub id."}
    )
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of a data set on the hub."})
    dataset_train_split: str = field(default="train", metadata={"help": "Split to train on, where there are several."})
    dataset_test_split: str = field(default="test", metadata={"help": "Split to evaluate on, with `eval_strategy`."})
    eval_dataset_name: str | None = field(
        default=None, metadata={"help": "Pairs to evaluate on, if they are not a split of `dataset_name`."}
    )
    samples: int = field(
        default=4,
        metadata={"help": "Prompts that are completed before and after training, for the report; 0: none."},
    )
    sample_tokens: int = field(default=48, metadata={"help": "The most tokens of such a completion."})

    def __post_init__(self) -> None:
        for name, least in (("samples", 0), ("sample_tokens", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"`{name}` must be >= {least} (got {getattr(self, name)}).")


# What a name or a path must be: YAML takes `7` for a number and `[a]` for a list.
_TEXTS = (
    *("dataset_name", "dataset_config", "eval_dataset_name", "model_name_or_path", "model_revision"),
    *("output_dir", "loss", "reference", "dtype", "attn_implementation", "optim", "lr_scheduler_type"),
)
# These take a list or a mapping as well as text.
_STRUCTURED = ("fsdp", "deepspeed", "report_to", "optim_target_modules", "debug")


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments: every field of the data, training and model arguments."""
    from transformers import HfArgumentParser

    options = HfArgumentParser(_dataclasses(), add_help=False, allow_abbrev=False)
    for action in options._actions:
        # What was not given stays apart from a default: the config file fills it in, and some options exclude others.
        action.default, action.required = argparse.SUPPRESS, False
    parser.usage = "prefalign train FILE [--any_field VALUE ...]"
    parser.add_argument("file", nargs="?", metavar="FILE", help="YAML file with any of the fields below")
    parser.add_argument("--config", metavar="FILE", help="the same, as TRL has it")
    parser._add_container_actions(options)  # what argparse does with `parents=`, for a parser that exists already
    parser.set_defaults(actions={action.dest: action for action in options._actions})
    parser.parse_known_args = _strict(parser)  # type: ignore[method-assign, assignment]


def run_training(args: argparse.Namespace) -> int:
    """Train, save, and say where things are."""
    given = {name: value for name, value in vars(args).items() if name in args.actions}
    if args.file is not None and args.config is not None:
        raise ConfigError(f"The config file was given twice: {args.file!r} and {args.config!r}. Leave one out.")
    data, training, model = read_options(args.file or args.config, given, args.actions)
    from .checkpoints import alone_in, check_output_dir, find_checkpoint, last_good

    check_output_dir(training.output_dir)
    resume = find_checkpoint(_resume(training.resume_from_checkpoint), training.output_dir)

    from ._trainer import PrefTrainer

    # TRL 1.16 uses names that transformers 5 has renamed, which nobody who runs this command can change.
    warnings.filterwarnings("ignore", "`(is_)?gradient_checkpointing.* is deprecated", FutureWarning)
    train, evaluation = _load_data(data, training)
    policy, peft_config, quantization = _model(model, training)
    with alone_in(training.output_dir) if training.process_index == 0 else nullcontext():
        trainer = PrefTrainer(
            model=policy,
            args=training,
            train_dataset=train,
            eval_dataset=evaluation,
            peft_config=peft_config,
            quantization_config=quantization,
            callbacks=getattr(args, "callbacks", None),  # of a sweep
        )
        texts = Texts(trainer, data.samples, data.sample_tokens)
        try:
            trainer.train(resume_from_checkpoint=resume)
        except KeyboardInterrupt:
            if trainer.is_world_process_zero():
                print(last_good(training.output_dir), file=sys.stderr)
            raise
        texts.write(Path(training.output_dir))
        trainer.save_model(training.output_dir)
        trainer.save_state()
        on_hub = data.dataset_name is not None and not os.path.exists(data.dataset_name)
        trainer.create_model_card(dataset_name=data.dataset_name if on_hub else None)
        if trainer.is_world_process_zero():
            _say_where(Path(training.output_dir))
        if training.push_to_hub:
            trainer.push_to_hub()
        trainer.end()
        return 0


def read_options(
    config: str | None, given: Mapping[str, Any], actions: Mapping[str, argparse.Action]
) -> tuple[DataArguments, Any, Any]:
    """The data, training and model arguments; what was given on the command line wins over the file.

    Args:
        config: Path of the YAML file.
        given: What was given on the command line.
        actions: How each field is read.

    Raises:
        ConfigError: The file cannot be read, an option is unknown, missing, or would have no effect.
    """
    values = {**_read_file(config, actions), **given}
    for name, needed in (("model_name_or_path", "a directory or a hub id"), ("dataset_name", "a file or a hub id")):
        if not values.get(name):
            raise ConfigError(f"`{name}` must be given: {needed}, in the config file or as `--{name}`.")
    _check_effects(values)
    _check_adapter(values)
    made: list[Any] = []
    for kind in _dataclasses():
        names = {f.name for f in fields(kind) if f.init}
        made.append(kind(**{name: value for name, value in values.items() if name in names}))
    data, training, model = made
    # TRL unwraps a list of one, which PEFT then takes for a pattern of the whole name: `q_proj` would match nothing.
    only = model.lora_target_modules
    if isinstance(only, str) and re.fullmatch(r"\w+", only):
        model.lora_target_modules = [only]
    return data, training, model


def _dataclasses() -> tuple[Any, Any, Any]:
    from trl import ModelConfig

    from .config import PrefConfig

    return DataArguments, PrefConfig, ModelConfig


def _read_file(config: str | None, actions: Mapping[str, argparse.Action]) -> dict[str, Any]:
    if config is None:
        return {}
    from .._yaml import read_mapping
    from .config import check_names

    content = read_mapping(config, "--config", "The config file")
    environment = content.pop("env", None) or {}
    if not isinstance(environment, dict):
        raise ConfigError(f"`env` in {config!r} must hold `NAME: value` lines (got {environment!r}).")
    check_names(content, actions, f"The config file {config!r}")
    values = {name: _read_value(name, value, actions[name]) for name, value in content.items()}
    variables = {str(key): str(value) for key, value in environment.items()}
    for key, value in variables.items():
        if not key or "=" in key or "\0" in key + value:
            raise ConfigError(f"`env` in {config!r} must hold `NAME: value` lines (got {f'{key}: {value}'!a:.60}).")
    os.environ.update(variables)
    return values


def _read_value(name: str, value: Any, action: argparse.Action) -> Any:
    """A value of the file, read as the command line would read it: YAML takes 5e-7 for text."""
    read: Callable[[str], Any] | None = action.type if callable(action.type) else None

    def one(item: Any) -> Any:
        if not isinstance(item, str) or read is None:
            return item
        try:
            return read(item)
        except (ValueError, TypeError, argparse.ArgumentTypeError) as error:
            raise ConfigError(f"`{name}` in the config file cannot be read (got {item!r}): {error}") from error

    plain = not isinstance(value, str | int | float | None) or (name in _TEXTS and not isinstance(value, str | None))
    if action.nargs is None and not _takes_mapping(name) and plain:
        wanted = "text" if name in _TEXTS else "one value"
        raise ConfigError(f"`{name}` in the config file must be {wanted} (got {_excerpt(value)}).")
    result = [one(item) for item in value] if isinstance(value, list) else one(value)
    if action.choices is not None and result is not None and result not in action.choices:
        raise ConfigError(f"`{name}` must be one of {', '.join(map(repr, action.choices))} (got {_excerpt(value)}).")
    return result


def _takes_mapping(name: str) -> bool:
    return name.endswith(("_kwargs", "_config", "_for_metrics", "_args", "_spaces")) or name in _STRUCTURED


def _excerpt(value: object) -> str:
    return f"{value!a:.60}"


def _check_adapter(values: Mapping[str, Any]) -> None:
    """Refuse what PEFT finds wrong only once the model is loaded."""
    rank = values.get("lora_r", 1)
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise ConfigError(f"`lora_r` must be a whole number >= 1 (got {_excerpt(rank)}).")
    targets = values.get("lora_target_modules") or ()
    for pattern in [targets] if isinstance(targets, str) else targets:
        try:
            re.compile(str(pattern))
        except re.error as error:
            raise ConfigError(
                f"`lora_target_modules` must be names of modules, or a regular expression (got {_excerpt(pattern)}: "
                f"{error})."
            ) from None


def _check_effects(values: Mapping[str, Any]) -> None:
    adapter = [name for name in values if name.startswith("lora_") or name in ("use_rslora", "use_dora")]
    if adapter and not values.get("use_peft"):
        raise ConfigError(f"`{adapter[0]}` would have no effect without `use_peft: true`. Add that, or leave it out.")
    quantized = [name for name in values if name.startswith("bnb_4bit_") or name == "use_bnb_nested_quant"]
    if quantized and not values.get("load_in_4bit"):
        raise ConfigError(f"`{quantized[0]}` would have no effect without `load_in_4bit: true`. Leave it out.")
    if values.get("eval_dataset_name") and str(values.get("eval_strategy", "no")) == "no":
        raise ConfigError("`eval_dataset_name` would have no effect: set `eval_strategy` to `steps` or `epoch`.")


def _load_data(data: DataArguments, training: Any) -> tuple[Dataset, Dataset | None]:
    from ..data import load_pairs

    assert data.dataset_name is not None
    train = load_pairs(data.dataset_name, split=data.dataset_train_split, subset=data.dataset_config)
    if str(getattr(training.eval_strategy, "value", training.eval_strategy)) == "no":
        return train, None
    if data.eval_dataset_name is not None:
        return train, load_pairs(data.eval_dataset_name, split=data.dataset_test_split)
    if os.path.isfile(data.dataset_name):
        raise ConfigError(
            f"`eval_strategy` needs pairs to evaluate on, and {data.dataset_name!r} is a single file. "
            "Name another one as `eval_dataset_name`."
        )
    return train, load_pairs(data.dataset_name, split=data.dataset_test_split, subset=data.dataset_config)


def _model(model: Any, training: Any) -> tuple[str, Any, Any]:
    """The name that the trainer loads the policy from; the new adapter; the quantization."""
    from trl import get_peft_config, get_quantization_config

    path = model.model_name_or_path
    if model.use_peft and os.path.isfile(os.path.join(path, "adapter_config.json")):
        raise ConfigError(
            f"`use_peft` would put a new adapter on {path!r}, which is an adapter itself. Leave it out to train that "
            "one further, or merge it into its base model first."
        )
    named = {"revision": model.model_revision, "attn_implementation": model.attn_implementation}
    named = {key: value for key, value in named.items() if value is not None}
    training.model_init_kwargs = {"dtype": model.dtype, **named, **(training.model_init_kwargs or {})}
    return path, get_peft_config(model), get_quantization_config(model)


def _resume(value: str | bool | None) -> str | bool | None:
    words = {"true": True, "false": None}
    return words.get(value.lower(), value) if isinstance(value, str) else value


def _say_where(folder: Path) -> None:
    print(f"Model:   {folder}")
    print(f"Metrics: {folder / 'trainer_state.json'}")
    print(f"Record:  {folder / 'prefalign_run.json'}")
    print(f"Next:    prefalign report {folder}", flush=True)


def _strict(parser: argparse.ArgumentParser) -> Callable[..., tuple[argparse.Namespace, list[str]]]:
    """`parse_known_args` that refuses unknown options with the nearest name, or the way to migrate."""
    lenient = parser.parse_known_args

    def parse(
        args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        from .config import check_names

        known, extra = lenient(args, namespace)
        options = [word.partition("=")[0].lstrip("-").replace("-", "_") for word in extra if word.startswith("--")]
        try:
            check_names(options, known.actions, "`prefalign train`")
        except ConfigError as error:
            parser.error(str(error))
        return known, extra

    return parse
