"""The second model of a run: the reference's weights, wherever the policy's own cannot serve.

TRL compares a fresh adapter with the model that it lies on, and an adapter that is trained further with a copy of its
parameters. Neither is the policy's start for every method: an initialisation may change the base (PiSSA), a bias of the
base may be trained, and TRL copies parameters of the adapter "default" alone, and of these not all (embeddings, IA3).
"""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from ..._errors import ConfigError
from ...references import Policy, Reference
from .. import _trl

# `init_lora_weights` that leave the base as it is, and a fresh adapter without effect.
_PLAIN = (True, "gaussian", "eva", "orthogonal")
# That take a part out of the base and put it into the adapter: together they are the model as it was.
_SPLIT = ("pissa", "olora", "corda", "lora_ga")


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
    if hasattr(model, "peft_config"):
        if not reference.builds_on_start or _copied_by_trl(model):
            return None
        # The model that the adapter lies in: its layers hold the adapter's weights.
        return _twin(model).get_base_model()  # type: ignore[operator, no-any-return]
    if peft_config is not None:
        if not reference.builds_on_start or not _base_changes(peft_config):
            return None
        return _trl.load_beside(model, None, args, policy.config) if isinstance(model, str) else _twin(model)
    if isinstance(model, str) or args.precompute_ref_log_probs or _trl.is_sharded_at_load(args):
        return None
    return _twin(model)


def check_adapter_start(reference: Reference, peft_config: Any) -> None:
    """Refuse a fresh adapter whose start cannot be compared with.

    Raises:
        ConfigError: Its start is not the model without it, and no other model is.
    """
    if peft_config is None or not reference.needs_model or not reference.builds_on_start:
        return
    name = type(peft_config).__name__
    if getattr(peft_config, "is_prompt_learning", False):
        raise ConfigError(
            f"A policy with {name} does not start as its base model: a prompt that is not learned yet changes it. Say "
            'what it is compared with: `reference="checkpoint(PATH)"`, the base model\'s.'
        )
    init = getattr(peft_config, "init_lora_weights", True)
    known = isinstance(init, bool) or init in _PLAIN or str(init).startswith(_SPLIT)
    if init is False or not known:
        raise ConfigError(
            f"With `init_lora_weights={init!r}` the policy does not start as its base model, which `reference="
            f"{reference.expression!r}` would compare it with. Make the adapter first, save the model with it merged, "
            'and train on that; or name a model: `reference="checkpoint(PATH)"`.'
        )
    if not reference.is_start and _base_changes(peft_config):
        what = f"init_lora_weights={init!r}" if init in _SPLIT or str(init).startswith(_SPLIT) else "a trained bias"
        raise ConfigError(
            f"`reference={reference.expression!r}` keeps what an adapter adds to its base, and with {name}'s {what} "
            "the base is not what it was. Use `init_lora_weights=True` and `bias='none'`, or `reference='initial'`."
        )


def _base_changes(peft_config: Any) -> bool:
    """Whether a fresh adapter of this configuration changes the base, as it is made or as it is trained."""
    split = str(getattr(peft_config, "init_lora_weights", True)).startswith(_SPLIT)
    return split or getattr(peft_config, "bias", "none") != "none"


def _copied_by_trl(model: Any) -> bool:
    """Whether the adapter that TRL copies is a whole one: a LoRA on linear layers, named "default"."""
    if list(model.peft_config) != ["default"]:
        if any(config.is_prompt_learning for config in model.peft_config.values()):
            raise ConfigError(
                f"A learned prompt that is trained further must be an adapter named 'default' (got "
                f"{', '.join(model.peft_config)}). Load it with `adapter_name='default'`."
            )
        return False
    config = model.peft_config["default"]
    if config.is_prompt_learning:
        return True
    plain = getattr(config, "init_lora_weights", None) in _PLAIN or getattr(config, "init_lora_weights", None) is False
    kind = getattr(getattr(config, "peft_type", None), "value", None)
    parameters = [name for name, _ in model.named_parameters() if "default" in name.split(".")]
    whole = all(".default." in name for name in parameters)
    return kind == "LORA" and plain and getattr(config, "bias", "none") == "none" and whole


def _twin(model: Any) -> nn.Module:
    twin = copy.deepcopy(model)
    for module in twin.modules():
        module.__dict__.pop("forward", None)  # the fused head of an earlier trainer
    return twin.requires_grad_(False).eval()  # type: ignore[no-any-return]
