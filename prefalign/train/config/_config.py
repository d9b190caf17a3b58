"""The training arguments: TRL's `DPOConfig`, with a loss and a reference, and checked before anything is loaded."""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from transformers.utils import is_torch_bf16_gpu_available
from trl import DPOConfig

from ..._errors import ConfigError
from ...data import Score, check_score
from ...losses import Loss
from ...references import Reference
from ._checks import (
    StatisticsSteps,
    check_beside_loss,
    check_effects,
    check_names,
    check_statistics,
    given_loss_options,
    read_choice,
)
from ._generation import GenerationOptions, check_options
from ._help import with_help
from ._objective import expression_of, read_loss, read_reference, trl_loss
from ._ranges import check_ranges

logger = logging.getLogger(__name__)


class _Checked(type):
    """Answers unknown and removed options with the nearest known name or the way to migrate."""

    def __call__(cls, *args: Any, **options: Any) -> Any:
        known = [f.name for f in fields(cls) if f.init]  # type: ignore[arg-type]
        check_names(options, known, f"`{cls.__name__}`")
        return super().__call__(*args, **options)


@with_help
@dataclass
class PrefConfig(GenerationOptions, DPOConfig, metaclass=_Checked):  # type: ignore[misc]
    """Training arguments: every field of TRL's `DPOConfig` under its own name, and these.

    TRL's `loss_type`, `beta`, `label_smoothing` and `loss_weights` keep their meaning; `loss` replaces them. Where no
    device has bfloat16, `bf16` is off unless it is asked for, and on a CPU so is `gradient_checkpointing`; elsewhere
    both are on, as in TRL.

    Args:
        loss: A loss expression, such as "robust(dpo(beta=0.1), flip_rate=0.2)", or a `Loss`.
        reference: A reference expression, such as "initial", "none" or "checkpoint(PATH)", or a `Reference`. Default:
            "initial", or "none" if the loss needs no reference.
        max_new_tokens, temperature, top_p, top_k, stop_tokens, generate_ahead, generation_batch_size: For data of
            winners alone, see `GenerationOptions`.
        on_bad_pairs: What happens to rows that cannot be trained on: "drop" them with a count, or stop with an "error".
        shared_prefix: Compute what chosen and rejected share once, padding never, and the head only where a token is
            scored (docs/speed.md). Default: on where that is known to be exact; with True also where a check of the
            first batch has to tell. Where it is off, one line says why. Numbers agree with TRL's to rounding (1e-5),
            with False to the last bit.
        reference_cache: Where the log-probabilities of a reference that never changes are kept, so that they are
            computed once for all epochs, runs and processes, and its weights need not be held (docs/cache.md): "auto":
            in a folder of the user's, where that saves this run forward passes; "shared": wherever it can be, for other
            runs to read, as in a sweep; "on": likewise, or an error; a folder: there; "off".
        sft_dataset_name: Prompts and completions for a term of the loss with baseline="sft_dataset": a file, a folder
            or a hub id.
        score: Which tokens of a completion count: all of the "completion", as in TRL; what the "assistant" wrote, not
            what a user or a tool answered in between; or the assistant's "last_turn" alone (docs/tokens.md).
        statistics: When TRL's statistics over the vocabulary (`entropy`, `logits/*`, `mean_token_accuracy`) are
            computed: in the "logged_steps" alone, or, as TRL does, in "every_step", for means over all steps since the
            last log. All else that is logged, the loss too, is a mean over all steps either way (docs/metrics.md).
        tokens_per_batch: Most tokens of a micro-batch: a step keeps its `per_device_train_batch_size *
            gradient_accumulation_steps` pairs per process, and computes them in as many micro-batches as that takes
            (docs/batches.md). Unique tokens where the shared prefix is on, else padded positions. Default: as many
            pairs in each micro-batch as `per_device_train_batch_size` says.
        loss_type: TRL's loss types, combined by `loss_weights`, where there is no `loss`; default: sigmoid.
        beta: Strength of the reference in TRL's loss types; default: 0.1.
        bf16: Mixed precision with bfloat16; default: on where a device supports it.
        gradient_checkpointing: Recompute activations to save memory; default: on, but off on a CPU.

    Raises:
        ConfigError: An option is unknown, was removed, contradicts another one or would have no effect.
        LossError: A hyperparameter of the loss is out of range.
        ParseError: `loss` or `reference` is no expression.

    Example:
        >>> PrefConfig("run", loss="dpo(beta=0.1) + 0.5*sft(reduction='sum')", use_cpu=True).loss
        "dpo(beta=0.1) + 0.5*sft(reduction='sum')"
    """

    loss: str | None = None
    reference: str | None = None
    on_bad_pairs: Literal["drop", "error"] = "drop"
    shared_prefix: bool | None = None
    reference_cache: str = "auto"
    tokens_per_batch: int | None = None
    statistics: StatisticsSteps = "logged_steps"
    sft_dataset_name: str | None = None
    score: Score = "completion"
    # None says "not given", so that `beta=0.1` beside `loss` is seen; TRL's defaults are filled in below.
    loss_type: list[str] | None = None
    beta: float | None = None
    bf16: bool | None = None
    gradient_checkpointing: bool | None = None

    def __post_init__(self) -> None:
        types: object = self.loss_type
        if isinstance(types, str):
            self.loss_type = [types]
        self.given_loss_options = given_loss_options(self, own=True)
        self.loss_object: Loss | None = None
        self.reference_object: Reference | None = None
        check_options(self)
        if self.on_bad_pairs not in ("drop", "error"):
            raise ConfigError(f"`on_bad_pairs` must be 'drop' or 'error' (got {self.on_bad_pairs!r}).")
        check_statistics(self.statistics)
        check_score(self.score)
        self.reference_cache = read_choice(self.reference_cache)
        if self.loss is not None:
            self.loss_object = read_loss(self.loss)
            # What is written to disk is text; a loss without a name in expressions is described by its formula.
            self.loss = expression_of(self.loss_object) or str(self.loss_object)
            self.loss_type = []
            check_beside_loss(self)
            check_effects(self)
        else:
            self.loss_type = ["sigmoid"] if self.loss_type is None else self.loss_type
            self.beta = 0.1 if self.beta is None else self.beta
            check_effects(self)
            trl_loss(self)
        if self.reference is not None:
            self.reference_object = read_reference(self.reference)
            self.reference = self.reference_object.expression
        check_ranges(self)
        self._choose_for_machine()
        try:
            super().__post_init__()
        except ConfigError:
            raise
        except (
            ValueError,
            TypeError,
            OSError,
            ImportError,
        ) as error:  # what transformers finds wrong with its own options
            raise ConfigError(f"The training arguments contradict each other or the machine: {error}") from error

    def __getstate__(self) -> dict[str, Any]:
        # transformers pickles the arguments beside every checkpoint; a reference may hold models.
        return {**self.__dict__, "loss_object": None, "reference_object": None}

    def __copy__(self) -> PrefConfig:
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def _choose_for_machine(self) -> None:
        on_cpu = self.use_cpu or not torch.accelerator.is_available()
        if self.bf16 is None:
            self.bf16 = not self.fp16 and not on_cpu and is_torch_bf16_gpu_available()
            if not self.bf16 and not self.fp16:
                logger.info("Training in float32: no device with bfloat16 is in use (`bf16=True` asks for it).")
        elif self.bf16 and on_cpu:
            self.use_cpu: bool = True  # transformers wants to be told that the missing GPU is no oversight
        # transformers renamed `gradient_checkpointing`; the old name is what TRL's users write, and stays a mirror.
        renamed: bool | None = getattr(self, "activation_checkpointing", None)
        if renamed is None:
            given = self.gradient_checkpointing
            renamed = not on_cpu if given is None else given
        self.activation_checkpointing: bool | None = renamed
        self.gradient_checkpointing = None
