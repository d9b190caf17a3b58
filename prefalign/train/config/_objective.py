"""What a run minimises and against what, put together from the arguments before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..._errors import ConfigError, LossError
from ...losses import Loss, calibrated_in, from_trl, parse_loss
from ...references import Initial, MovingAverage, NoReference, Reference, parse_reference
from ._checks import check_beside_loss, check_effects


@dataclass(frozen=True)
class Objective:
    """A loss and a reference that fit together.

    Attributes:
        loss: The loss.
        reference: What the policy is compared with.
        own: The loss was given as an object or an expression, not by TRL's options.
        beta: The factor of TRL's metrics `rewards/*`: the first `beta` among the loss's terms, 1 if none has one.
    """

    loss: Loss
    reference: Reference
    own: bool
    beta: float

    @property
    def formula(self) -> str:
        """The composed formula."""
        return str(self.loss)

    @property
    def expression(self) -> str | None:
        """Text that makes the loss again; None for a loss that has no name in expressions."""
        return expression_of(self.loss)

    @property
    def name(self) -> str:
        """What a checkpoint says of its loss: the expression, or the formula of a loss that has none."""
        return self.expression or self.formula


def expression_of(loss: Loss) -> str | None:
    """Text that makes the loss again; None for a loss that has no name in expressions."""
    try:
        return loss.expression
    except LossError:
        return None


def read_loss(loss: object) -> Loss:
    """A loss, given as one or as an expression.

    Raises:
        ConfigError: It is neither.
    """
    if isinstance(loss, Loss):
        return loss
    if isinstance(loss, str):
        return parse_loss(loss)
    raise ConfigError(f"`loss` must be a `Loss` or an expression such as 'dpo(beta=0.1)' (got {loss!r}).")


def read_reference(reference: object) -> Reference:
    """A reference, given as one or as an expression.

    Raises:
        ConfigError: It is neither.
    """
    if isinstance(reference, Reference):
        return reference
    if isinstance(reference, str):
        return parse_reference(reference)
    raise ConfigError(
        f"`reference` must be a `Reference` or an expression such as 'initial', 'none' or 'checkpoint(PATH)' "
        f"(got {reference!r}). A model goes into `ref_model`."
    )


def trl_loss(args: Any) -> Loss:
    """The loss that TRL's own options name."""
    return from_trl(
        args.loss_type,
        beta=args.beta,
        label_smoothing=args.label_smoothing,
        loss_weights=args.loss_weights,
        discopop_tau=args.discopop_tau,
        f_divergence_type=args.f_divergence_type,
        f_alpha_divergence_coef=args.f_alpha_divergence_coef,
        ld_alpha=args.ld_alpha,
        use_weighting=args.use_weighting,
    )


def put_together(args: Any, loss: object = None, reference: object = None) -> Objective:
    """The objective of a run.

    Args:
        args: A `PrefConfig` or a `DPOConfig`.
        loss: The constructor's `loss`, if any.
        reference: The constructor's `reference`, if any.

    Raises:
        ConfigError: Arguments contradict one another, or one would have no effect.
        LossError: A hyperparameter is out of range.
        ParseError: An expression cannot be read.
    """
    own = _one_of("loss", loss, _in_args(args, "loss"), read_loss)
    if own is None:
        check_effects(args)
        made, beta = trl_loss(args), args.beta
    else:
        check_beside_loss(args)
        made, beta = own, scale_of_rewards(own)
    _check_trains(made)
    calibrated_in(made)
    chosen = _one_of("reference", reference, _in_args(args, "reference"), read_reference)
    _check_pair(made, chosen, args)
    if args.sync_ref_model:  # TRL's own loses its reference when a run is resumed, and does not know adapters
        chosen = MovingAverage(alpha=args.ref_model_mixup_alpha, every=args.ref_model_sync_steps)
    elif chosen is None:
        chosen = Initial() if made.needs_reference else NoReference()
    return Objective(made, chosen, own is not None, beta)


def scale_of_rewards(loss: Loss) -> float:
    """The first `beta` among the terms and what they wrap; 1 if none has one."""
    for _, term in loss.terms:
        inner: object = term
        while inner is not None:
            beta = getattr(inner, "beta", None)
            if isinstance(beta, int | float):
                return float(beta)
            inner = getattr(inner, "loss", None)
    return 1.0


def _in_args(args: Any, name: str) -> Any:
    """The object in the training arguments; its text, if the arguments were unpickled; None in a `DPOConfig`."""
    made = getattr(args, f"{name}_object", None)
    return getattr(args, name, None) if made is None else made


def _one_of(name: str, argument: object, option: Any, read: Any) -> Any:
    """The value given to the constructor, or else the one in the training arguments; both only if they are equal."""
    option = None if option is None else read(option)
    if argument is None:
        return option
    value = read(argument)
    if option is not None and option != value:
        raise ConfigError(
            f"`{name}` was given twice: {str(value)!r} to the trainer and {str(option)!r} in its `args`. Leave one out."
        )
    return value


def _check_trains(loss: Loss) -> None:
    """Refuse a sum whose terms cancel, or all have the weight 0, at every time: its gradient is zero."""
    for done in (0.0, 0.5, 1.0):
        weights: dict[Loss, float] = {}
        for weight, term in loss.terms_at(done):
            weights[term] = weights.get(term, 0.0) + weight
        if any(weights.values()):
            return
    raise ConfigError(f"The loss would train nothing: the weights of its terms are 0, or cancel ({loss}).")


def _check_pair(loss: Loss, reference: Reference | None, args: Any) -> None:
    if loss.needs_reference and reference is not None and not reference.needs_model:
        raise ConfigError(
            f"The loss needs a reference ({loss}), and `reference` is {reference.expression!r}. "
            'Use `reference="initial"`, or a loss that needs none, such as `loss="simpo(beta=2.0, gamma=1.0)"`.'
        )
    for name in ("sync_ref_model", "precompute_ref_log_probs"):
        if getattr(args, name) and not loss.needs_reference:
            raise ConfigError(
                f"`{name}=True` would have no effect: the loss needs no reference ({loss}). Leave it out."
            )
    if loss.reads in ("scores", "label"):
        what = "scores" if loss.reads == "scores" else "labels of single answers"
        raise LossError(
            f"`{loss.title}` reads {what}, and this trainer's rows are pairs, which have none. Use a loss of pairs or "
            "of rankings, such as `dpo(beta=0.1)`, or compute it on `GroupLogps` in a loop of your own."
        )
    if {"kl", "log_sum_sq_probs"} <= loss.reads_tokens:
        raise ConfigError(
            f"`wpo` and `tdpo` cannot be trained together ({loss}): the head gives one of what they read. Leave one "
            "out."
        )
    if args.precompute_ref_log_probs and loss.needs_reference and loss.reads_tokens & {"logps", "kl"}:
        raise ConfigError(
            "`precompute_ref_log_probs=True` keeps sums alone, and the loss reads single tokens of the reference "
            f"({loss}). Leave it out: `reference_cache` keeps every token."
        )
    if reference is None:
        return
    if args.precompute_ref_log_probs and not reference.fixed:
        raise ConfigError(
            f"`precompute_ref_log_probs=True` and `reference={reference.expression!r}` contradict each other: that "
            "reference changes during training. Leave one of them out."
        )
    if args.sync_ref_model:
        raise ConfigError(
            f"`sync_ref_model=True` and `reference={reference.expression!r}` contradict each other. Leave one of them "
            'out; `sync_ref_model` is short for `reference="moving_average(alpha=0.6, every=512)"`.'
        )


def mirror(objective: Objective, args: Any) -> None:
    """Let the training arguments, which are logged and saved, say what is trained."""
    args.reference = objective.reference.expression
    args.sync_ref_model = False  # the reference does it
    if objective.own:
        args.loss, args.loss_type, args.beta = objective.expression or objective.formula, [], None
