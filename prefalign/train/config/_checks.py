"""Options that are unknown, removed, contradictory or without effect: each is an error before anything is loaded."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, get_args

from trl import DPOConfig

from ..._errors import ConfigError, did_you_mean
from ._foreign import FOREIGN

# What older releases of TRL and transformers took, and what to write now.
REMOVED = {
    "rpo_alpha": 'Use `loss_type=["sigmoid", "sft"], loss_weights=[1.0, RPO_ALPHA]`, or write the loss as a sum, '
    "`loss=\"dpo(beta=0.1) + RPO_ALPHA*sft(reduction='sequence_mean')\"`, as older releases computed it.",
    "max_prompt_length": "Use `max_length`, the limit of prompt and completion together; rows whose prompt alone fills "
    "it are dropped with a count.",
    "max_completion_length": "Use `max_length`, the limit of prompt and completion together.",
    "max_target_length": "Use `max_length`, the limit of prompt and completion together.",
    "reference_free": 'Use `reference="none"` with a loss that needs no reference, such as '
    '`loss="simpo(beta=2.0, gamma=1.0)"`.',
    "tokenizer": "Use `processing_class=tokenizer`; `prefalign train` takes the one that is saved with the model.",
    "label_pad_token_id": "It is not needed any more: leave it out.",
    "padding_value": "It is not needed any more: the tokenizer's `pad_token` is used.",
    "is_encoder_decoder": "Encoder-decoder models are not supported: leave it out.",
    "generate_during_eval": "Leave it out; `prefalign report` shows samples before and after.",
    "force_use_ref_model": 'Leave it out; pass the reference as `reference="checkpoint(PATH)"` or as `ref_model`.',
    "ref_model_init_kwargs": "Leave it out: a reference is loaded in the policy's dtype and attention implementation.",
    "model_adapter_name": "Leave it out: the active adapter is trained.",
    "ref_adapter_name": "Leave it out: an adapter that is trained further is compared with a frozen copy of itself.",
    "use_logits_to_keep": "Leave it out: only completion tokens are scored.",
    "use_liger_loss": "Leave it out: the fused head of TRL is always used.",
    "use_num_logits_to_keep": "Leave it out: only completion tokens are scored.",
    "evaluation_strategy": "Use `eval_strategy`.",
    "no_cuda": "Use `use_cpu=True`.",
    "dpo_alpha": 'Write the loss as a sum of terms with weights, `loss="1.0*dpo(beta=0.1) + ..."`.',
    "gamma_beta_ratio": 'Write it into the loss, `loss="simpo(beta=2.0, gamma=1.0)"`.',
    "simpo_gamma": 'Write it into the loss, `loss="simpo(beta=2.0, gamma=1.0)"`.',
    "cpo_alpha": 'Write the loss as a sum, `loss="cpo(beta=0.1)"` has the term already.',
    "gamma": 'Write it into the loss, `loss="simpo(beta=2.0, gamma=1.0)"`.',
}

# Option, its default, whether it has an effect, and what to do if not. `args` are the training arguments.
_Rule = tuple[str, object, Callable[[Any], bool], str]
_RULES: tuple[_Rule, ...] = (
    (
        "f_alpha_divergence_coef",
        0.5,
        lambda a: a.f_divergence_type == "alpha_divergence",
        'Only `f_divergence_type="alpha_divergence"` reads it.',
    ),
    ("ref_model_mixup_alpha", 0.6, lambda a: a.sync_ref_model, "It needs `sync_ref_model=True`."),
    ("ref_model_sync_steps", 512, lambda a: a.sync_ref_model, "It needs `sync_ref_model=True`."),
    (
        "precompute_ref_batch_size",
        None,
        lambda a: a.precompute_ref_log_probs,
        "It needs `precompute_ref_log_probs=True`.",
    ),
    ("padding_free", False, lambda a: False, "TRL has disabled it: leave it out."),
    (
        "length_column_name",
        "length",
        lambda a: a.train_sampling_strategy in ("group_by_length", "batch_rebalance"),
        'It needs `train_sampling_strategy="group_by_length"`.',
    ),
)
# The options of TRL's loss types, with their defaults in `DPOConfig`.
_LOSS_OPTIONS: dict[str, object] = {
    "loss_type": ["sigmoid"],
    "loss_weights": None,
    "label_smoothing": 0.0,
    "beta": 0.1,
    "discopop_tau": 0.05,
    "f_divergence_type": "reverse_kl",
    "f_alpha_divergence_coef": 0.5,
    "ld_alpha": None,
    "use_weighting": False,
}
# Their values in a `PrefConfig` that was not given them, or whose loss has replaced them.
_NOT_GIVEN: dict[str, tuple[object, ...]] = {"loss_type": (None, []), "beta": (None,)}


def check_names(given: Iterable[str], known: Iterable[str], what: str) -> None:
    """Refuse names that are not known.

    Args:
        given: What the user wrote.
        known: What there is.
        what: What has these names, for the message: "`PrefConfig`", "the config file".

    Raises:
        ConfigError: Names were removed from TRL, are another trainer's, or are unknown; the message has all of them,
            each with what to write instead, or with the nearest name.
    """
    names = list(known)
    wrong = [name for name in given if name not in names]
    if not wrong:
        return
    if len(wrong) > 1:
        each = [f"  `{name}`: {REMOVED.get(name) or FOREIGN.get(name) or _nearest(name, names)}" for name in wrong]
        if any(name in FOREIGN for name in wrong):
            each.append("`prefalign convert FILE` translates recipes of other trainers.")
        raise ConfigError("\n".join([f"{what} has {len(wrong)} options that are not known here.", *each]))
    (name,) = wrong
    if name in REMOVED:
        raise ConfigError(f"`{name}` is no option any more. {REMOVED[name]}")
    raise ConfigError(f"{what} has no option `{name}`. {FOREIGN.get(name) or _nearest(name, names)}".rstrip())


def _nearest(name: str, names: list[str]) -> str:
    return did_you_mean(name, names).strip()


def given_loss_options(args: Any, own: bool = False) -> dict[str, Any]:
    """The options of TRL's loss types that were given, with their values.

    Args:
        args: Training arguments.
        own: They are a `PrefConfig` that is being made: not-given options have not been filled in yet.
    """
    kept = getattr(args, "given_loss_options", None)
    if kept is not None:
        return dict(kept)
    unset = {name: (default,) for name, default in _LOSS_OPTIONS.items()} | (_NOT_GIVEN if own else {})
    return {name: getattr(args, name) for name in _LOSS_OPTIONS if getattr(args, name) not in unset[name]}


def check_effects(args: Any) -> None:
    """Refuse options that would have no effect, or that contradict one another.

    Args:
        args: Training arguments whose `loss_type` is a list, empty if the loss is given as an object or an expression.

    Raises:
        ConfigError: The first such option.
    """
    for name, default, used, remedy in _RULES:
        if getattr(args, name) != default and not used(args):
            raise ConfigError(f"`{name}={getattr(args, name)!r}` would have no effect. {remedy}")
    if args.precompute_ref_log_probs and args.ld_alpha is not None:
        raise ConfigError(
            "`precompute_ref_log_probs` and `ld_alpha` cannot be combined: TRL would reuse log-probabilities that were "
            "cached for another `ld_alpha`. Leave one of them out."
        )
    if args.sync_ref_model and args.precompute_ref_log_probs:
        raise ConfigError(
            "`sync_ref_model` and `precompute_ref_log_probs` contradict each other: a reference that changes cannot be "
            "computed before training. Leave one of them out."
        )


def check_beside_loss(args: Any) -> None:
    """Refuse the options of TRL's loss types beside a loss that carries its own hyperparameters.

    Raises:
        ConfigError: The first such option.
    """
    for name, value in given_loss_options(args).items():
        raise ConfigError(
            f"`{name}={value!r}` and `loss` were both given, and a loss carries its own hyperparameters. "
            f"Leave out `{name}`, and write its value into the loss."
        )


WORDS = ("auto", "shared", "on", "off")


def read_choice(choice: object) -> str:
    """A value of `reference_cache`; YAML takes `on` and `off` for truth values.

    Raises:
        ConfigError: The value is not one of those.
    """
    if isinstance(choice, bool):
        return "on" if choice else "off"
    if not isinstance(choice, str) or not choice.strip() or "\0" in choice:
        raise ConfigError(f'`reference_cache` must be "auto", "shared", "on", "off" or a folder (got {choice!r:.200}).')
    return choice


StatisticsSteps = Literal["logged_steps", "every_step"]


def check_statistics(value: object) -> None:
    """Refuse an unknown value of the option `statistics`.

    Raises:
        ConfigError: The value is not one of those.
    """
    if value not in get_args(StatisticsSteps):
        raise ConfigError(f"`statistics` must be 'logged_steps' or 'every_step' (got {value!r:.60}).")


def check_arguments(trainer: type, unknown: Mapping[str, object]) -> None:
    """Refuse arguments that the trainer does not have, with the nearest name or the way to migrate.

    Raises:
        ConfigError: There is one.
    """
    known = [name for name in inspect.signature(trainer).parameters if name not in ("self", "unknown")]
    check_names(unknown, known, f"`{trainer.__name__}`")


def check_args(args: object) -> None:
    """Refuse what is no configuration of preference training, such as transformers' own `TrainingArguments`.

    Raises:
        ConfigError: `args` is not a `DPOConfig`.
    """
    if not isinstance(args, DPOConfig):
        raise ConfigError(f"`args` must be a `PrefConfig` or TRL's `DPOConfig` (got {type(args).__name__}).")
    if args.fp16 and args.device.type == "cpu":
        raise ConfigError(
            "`fp16=True` would have no effect on a CPU, where everything is computed in float32. Leave it out, or use "
            "`bf16=True`."
        )
