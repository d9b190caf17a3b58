"""Loads the reference model on a cache miss and frees it once every row is cached."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from torch import nn
from trl.models import prepare_deepspeed, prepare_fsdp
from trl.trainer.utils import add_fused_lm_head, create_model_from_path, disable_dropout_in_model

from ..._errors import TrainingError
from ...references import GivenModel, fingerprint, reference_key
from .. import _trl
from .._trl import base_of
from ..forward import Setup, dropouts, install
from ._plan import CachePlan

Load = Callable[[], nn.Module | None]


class ReferenceWeights:
    """How the reference's weights are had.

    They are part of the policy (under an adapter), a model that the trainer holds, or, where they "stand alone", loaded
    from a folder when they are needed. The policy itself serves as the reference as long as it has not been trained.

    Args:
        trainer: The trainer, made, with the reference set up.
        plan: What was settled before.
        load: Loads what the reference's `source` names; None where that is the policy's own folder.
        quantization: The policy's quantization, for its copy.
    """

    def __init__(self, trainer: Any, plan: CachePlan, load: Load, quantization: Any) -> None:
        self.trainer, self.plan, self._load, self._quantization = trainer, plan, load, quantization
        self.sharded: bool = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
        self._raw: nn.Module | None = None
        self._parked: nn.Module | None = None

    @property
    def under_adapter(self) -> bool:
        """Whether the policy without its adapter, or with a frozen copy of it, is the reference."""
        return not self.plan.stands_alone and hasattr(self.trainer.model, "peft_config") and not self._held

    @property
    def late(self) -> bool:
        """Whether no forward pass can be made before training: the policy is sharded as training starts."""
        return self.under_adapter and self.sharded

    @property
    def _held(self) -> bool:
        return self.trainer.ref_model is not None or self._parked is not None

    def reason_against(self) -> str | None:
        """Why the reference cannot be told from others, or has no fixed values."""
        plugin = self.trainer.args.deepspeed_plugin
        if plugin is not None and plugin.zero_stage == 3:
            return "ZeRO-3 shards the weights while they load, so that they cannot be told from others"
        if self.sharded and isinstance(self.trainer.reference, GivenModel):
            return "a model passed as `ref_model` is sharded by now; name its folder, `reference=checkpoint(PATH)`"
        # What `disable_dropout` leaves, such as that of attention, acts where the policy itself is the reference.
        random = not self.trainer.args.disable_dropout or self.under_adapter
        if random and any(p > 0 for p in dropouts(self.trainer.model)):
            return (
                "dropout makes its values random (`disable_dropout=False`, or that of attention in the configuration)"
            )
        return None

    def key(self) -> str:
        """The reference's hash, the same on all processes."""
        trainer = self.trainer
        model = self._whole()
        policy = getattr(model, "peft_config", {}) if self.under_adapter else {}
        mixed = trainer.accelerator.mixed_precision
        precision = "float32" if mixed == "no" else f"{mixed} autocast"
        found: list[Any] = [None]
        if trainer.accelerator.is_main_process:
            found = [reference_key(model, precision, "ref" if "ref" in policy else None)]
        if not self.under_adapter and hasattr(trainer.reference, "kept_fingerprint"):
            trainer.reference.kept_fingerprint = fingerprint(model)  # held against the weights of a resumed run
        broadcast_object_list(found, from_process=0)
        key: str = found[0]
        return key

    def about(self) -> dict[str, Any]:
        """What people are told of the reference."""
        trainer = self.trainer
        return {
            "reference": trainer.reference.identity,
            "model_type": trainer.model.config.model_type,
            "dtype": str(self._whole().dtype).removeprefix("torch."),
            "autocast": trainer.accelerator.mixed_precision,
        }

    def computing(self) -> nn.Module:
        """The module that computes as the reference, before training, for `compute_ref_log_probs`."""
        trainer = self.trainer
        if not (self.plan.stands_alone and trainer.reference.is_start and not self.sharded):
            self.hold()
        if trainer.ref_model is not None:
            return trainer.ref_model  # type: ignore[no-any-return]
        policy: nn.Module = trainer.model
        device = trainer.accelerator.device
        if not hasattr(policy, "hf_device_map") and next(policy.parameters()).device.type != device.type:
            policy.to(device)  # transformers leaves it where it is until training, with `bf16_full_eval`
        return policy

    def hold(self) -> None:
        """Have the trainer hold the weights, so that the reference can compute at any time.

        Raises:
            TrainingError: They cannot be had again.
        """
        trainer = self.trainer
        if trainer.ref_model is not None or self.under_adapter:
            return
        if self._parked is not None:
            trainer.ref_model, self._parked = self._parked.to(trainer.accelerator.device), None
            return
        trainer.ref_model = self._prepared(self._raw if self._raw is not None else self._loaded())
        self._raw = None

    def release(self) -> None:
        """Let go of what training with the cache does not need."""
        trainer = self.trainer
        self._raw = None
        if self.plan.stands_alone:
            trainer.ref_model = None
        elif self._may_park():
            self._parked, trainer.ref_model = trainer.ref_model.to("cpu"), None
        gc.collect()
        if torch.accelerator.is_available():
            torch.accelerator.memory.empty_cache()

    def _may_park(self) -> bool:
        trainer = self.trainer
        own = trainer.ref_model is not None and not isinstance(trainer.reference, GivenModel)
        return own and not self.sharded and trainer.accelerator.device.type != "cpu"

    def _whole(self) -> nn.Module:
        """The reference's weights, not sharded; names as the policy's."""
        trainer = self.trainer
        if self.plan.stands_alone and not trainer.reference.is_start:
            if self._raw is None:
                self._raw = self._loaded()
            return self._raw
        if trainer.ref_model is not None and not self.sharded:
            model: nn.Module = trainer.accelerator.unwrap_model(trainer.ref_model)
            return model
        return trainer.model  # type: ignore[no-any-return]

    def _loaded(self) -> nn.Module:
        model = self._load()
        if model is not None:
            return model
        trainer = self.trainer
        # As TRL loads a reference of its own.
        options = dict(trainer.args.model_init_kwargs or {})
        if self._quantization is not None:
            options["quantization_config"] = self._quantization
        if trainer.args.distributed_state.distributed_type in ["MULTI_GPU", "DEEPSPEED"]:
            options["device_map"] = None
        options.setdefault("trust_remote_code", trainer.args.trust_remote_code)
        options.setdefault("dtype", trainer.model.dtype)
        options.setdefault("attn_implementation", base_of(trainer.model.config._attn_implementation))
        path = _trl.model_id(trainer.model.config)
        if path is None:
            raise TrainingError(
                "The reference is needed for texts that its cache does not hold, and cannot be loaded again. Pass them "
                'as `eval_dataset`, or train with `reference_cache="off"`.'
            )
        return create_model_from_path(path, **options)  # type: ignore[no-any-return]

    def _prepared(self, model: nn.Module) -> nn.Module:
        """As TRL prepares a reference."""
        trainer = self.trainer
        if trainer.args.disable_dropout:
            disable_dropout_in_model(model)
        add_fused_lm_head(model)
        if trainer.is_deepspeed_enabled:
            model = prepare_deepspeed(model, trainer.accelerator)
        elif trainer.is_fsdp_enabled:
            model = prepare_fsdp(model, trainer.accelerator)
        else:
            model = trainer.accelerator.prepare_model(model, evaluation_mode=True)
        if trainer.shared_prefix is not None:
            setup = Setup(half=trainer.accelerator.mixed_precision in ("bf16", "fp16"), sharded=self.sharded)
            install(trainer.accelerator.unwrap_model(model), "the reference", setup)
        return model
