"""References that stay as they are: the policy's start, nothing, a checkpoint."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import ClassVar

import torch

from ..._errors import CheckpointError
from .._base import Batch, Policy, Reference, State
from .._parse import register_reference
from ..weights import check_files, check_tokenizer
from ._key import fingerprint


@dataclass
class Fixed(Reference):
    """A reference that never changes: its state is a fingerprint, held against the weights when a run is resumed."""

    # Of weights that are freed before training, because their log-probabilities are cached.
    kept_fingerprint: ClassVar[str | None] = None

    def state_dict(self) -> State:
        return {"identity": self.identity, "fingerprint": self._fingerprint()}

    def load_state_dict(self, state: State) -> None:
        saved, now = state.get("fingerprint"), self._fingerprint()
        if saved is not None and now is not None and saved != now:
            raise CheckpointError(
                f"The reference must be the one that the run began with, {state.get('identity')!r}, but its weights "
                f"differ now ({self.identity!r}). Pass the model that the run started from; "
                "`resume_from_checkpoint` loads the trained weights."
            )

    def _fingerprint(self) -> str | None:
        if self.kept_fingerprint is not None:
            return self.kept_fingerprint
        if self.host.ref_model is not None:
            return fingerprint(self.host.ref_model)
        # With adapters, what is not trained: the base model, and a frozen copy of the adapter.
        return fingerprint(self.host.model, frozen=True) if hasattr(self.host.model, "peft_config") else None


@register_reference("initial")
@dataclass
class Initial(Fixed):
    """The policy as training starts: a frozen copy, or the model without its adapter.

    An adapter that is trained further is compared with a frozen copy of itself, named "ref".

    Example:
        >>> Initial().expression
        'initial'
    """

    is_start: ClassVar[bool] = True

    @property
    def identity(self) -> str:
        if self._host is None:
            return "initial: the policy as training starts"
        if self.host.ref_model is not None:
            how = "a frozen copy"
        elif "ref" in getattr(self.host.model, "peft_config", {}):
            how = "a frozen copy of its adapter"
        elif hasattr(self.host.model, "peft_config"):
            how = "the model without its adapter"
        else:
            how = "log-probabilities computed before training"
        name = getattr(getattr(self.host.model, "config", None), "_name_or_path", "") or "a model built in memory"
        return f"initial: {name} as training starts ({how})"


@register_reference("none")
@dataclass
class NoReference(Reference):
    """Nothing: no second model is loaded, and a step makes one forward pass. For losses such as SimPO, CPO and ORPO.

    Example:
        >>> NoReference().expression
        'none'
    """

    needs_model: ClassVar[bool] = False

    @property
    def identity(self) -> str:
        return "none: log-probabilities are the policy's own"

    def logps(self, inputs: Batch) -> None:
        return None


@register_reference("checkpoint")
@dataclass
class Checkpoint(Fixed):
    """Another model: a checkpoint directory or a hub id, loaded in the policy's dtype and attention implementation.

    Args:
        path: Directory with a saved model, or a hub id.

    Raises:
        CheckpointError: `path` is empty; later, before training: it cannot be read, or its vocabulary is another one.

    Example:
        >>> Checkpoint("sft-a").expression
        "checkpoint('sft-a')"
    """

    path: str

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not self.path.strip():
            raise CheckpointError(f"`path` must be a directory with a model, or a hub id (got {self.path!r}).")

    @property
    def identity(self) -> str:
        return f"checkpoint: {self.path}"

    @property
    def expression(self) -> str:
        return f"checkpoint({self.path!r})"

    def check(self, policy: Policy) -> None:
        from transformers import AutoConfig

        if os.path.isdir(self.path) and not os.path.isfile(os.path.join(self.path, "config.json")):
            hint = " It holds an adapter: merge it into its base model first." * os.path.isfile(
                os.path.join(self.path, "adapter_config.json")
            )
            raise CheckpointError(f"The reference {self.path!r} must hold a model, but has no config.json.{hint}")
        check_files(self.path)
        try:
            config = AutoConfig.from_pretrained(self.path)
        except Exception as error:  # a dozen kinds, by what is missing or damaged
            raise CheckpointError(
                f"The reference {self.path!r} must be a directory with a model, or a hub id that can be read: {error}"
            ) from error
        ours, theirs = (c.get_text_config().vocab_size for c in (policy.config, config))
        if ours != theirs:
            raise CheckpointError(
                f"Policy and reference must share a vocabulary: the policy has {ours} tokens, {self.path!r} has "
                f"{theirs}. Choose a reference from the same model family."
            )
        check_tokenizer(self.path, policy.processing_class)

    def source(self, policy: Policy) -> str | None:
        return self.path


@dataclass
class GivenModel(Fixed):
    """A model that was passed to the trainer as `ref_model`.

    Args:
        model: The model; it is used as it is.
    """

    model: torch.nn.Module

    @property
    def identity(self) -> str:
        name = getattr(getattr(self.model, "config", None), "_name_or_path", "") or "built in memory"
        return f"given as ref_model: {type(self.model).__name__}, {name}"

    @property
    def expression(self) -> str:
        return "given"
