"""Where a reference that follows the policy keeps its weights: a second model, or what it adds to the policy's base."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional

from ..._errors import CheckpointError
from .._sharding import full, reshard


class Slots(ABC):
    """The reference's weights by name, each beside the policy's, in float32 at least."""

    names: tuple[str, ...]

    @abstractmethod
    def policy(self, name: str) -> torch.Tensor:
        """The policy's weight as it is now."""

    @abstractmethod
    def reference(self, name: str) -> torch.Tensor:
        """The reference's weight, to be changed in place; `publish` follows."""

    def publish(self, names: Sequence[str]) -> None:  # noqa: B027 - only what is kept twice needs it
        """Let the reference's forward passes see changes of these weights."""

    @contextmanager
    def active(self) -> Iterator[None]:
        """Within, the policy's model computes as the reference, if there is no other model."""
        yield


class ModelSlots(Slots):
    """Two models of one architecture, parameter by parameter; also sharded ones (DTensors), shard by shard.

    A reference in a 16-bit type is kept in float32 beside it: small steps would vanish in the rounding.

    Args:
        policy: Unwrapped.
        reference: Unwrapped.
    """

    def __init__(self, policy: torch.nn.Module, reference: torch.nn.Module) -> None:
        ours, theirs = dict(policy.named_parameters()), dict(reference.named_parameters())
        if len(ours) != len(theirs):
            raise CheckpointError(
                f"A moving average needs a reference of the policy's architecture: it has {len(theirs)} parameters "
                f"and the policy {len(ours)}."
            )
        if any(hasattr(parameter, "ds_id") for parameter in ours.values()):
            raise CheckpointError(
                "A moving average cannot follow a policy that DeepSpeed ZeRO-3 shards. Use FSDP2, or ZeRO-2."
            )
        self.names = tuple(theirs)
        # By name: FSDP2 puts sharded parameters in the place of those that the policy has now.
        self._policy, self._ours = policy, dict(zip(theirs, ours, strict=True))
        self._model, self._reference = reference, theirs
        self._masters = {
            name: parameter.detach().float() for name, parameter in theirs.items() if parameter.dtype.itemsize < 4
        }

    def policy(self, name: str) -> torch.Tensor:
        value = self._policy.get_parameter(self._ours[name]).detach()
        return value.float() if value.dtype.itemsize < 4 else value

    def reference(self, name: str) -> torch.Tensor:
        return self._masters[name] if name in self._masters else self._reference[name].detach()

    def publish(self, names: Sequence[str]) -> None:
        for name in self._masters.keys() & names:
            self._reference[name].detach().copy_(self._masters[name])
        if names:
            reshard(self._model)


class AdapterSlots(Slots):
    """What the reference adds to the layers that a LoRA policy adapts, as full matrices.

    An average of products B·A is in general no product of that rank, and averages of A and B apart are something else;
    hence the matrices. The base model is shared, and no second model is needed.

    Args:
        model: The policy, a `PeftModel`, unwrapped. Where it has an adapter "ref", the matrices are what comes on top.
    """

    def __init__(self, model: Any) -> None:
        # Imported here: PEFT is an extra.
        from peft.tuners.lora import Embedding, Linear, LoraLayer
        from peft.utils import ModulesToSaveWrapper

        layers = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
        head = model.get_base_model().get_output_embeddings()
        odd = [
            name
            for name, layer in layers.items()
            if not isinstance(layer, Linear | Embedding)
            or any(layer.use_dora.values())
            or layer.get_base_layer() is head
        ]
        odd += [name for name, module in model.named_modules() if isinstance(module, ModulesToSaveWrapper)]
        odd += [] if layers else ["no LoRA layer at all"]
        if odd:
            raise CheckpointError(
                "With adapters, a moving average needs plain LoRA on linear layers or input embeddings, and no "
                f"`modules_to_save` (got {', '.join(odd[:4])}). Train all weights, or another set of layers."
            )
        self._layers = layers
        self._adapter = next(name for name in model.peft_config if name != "ref")
        self._has_ref = "ref" in model.peft_config
        self.names = tuple(layers)
        with torch.no_grad():
            self._added = {name: torch.zeros_like(self.policy(name)) for name in layers}

    @torch.no_grad()
    def policy(self, name: str) -> torch.Tensor:
        product = self._product(name, self._adapter)
        return product - self._product(name, "ref") if self._has_ref else product

    def reference(self, name: str) -> torch.Tensor:
        return self._added[name]

    @contextmanager
    def active(self) -> Iterator[None]:
        hooks = [
            layer.get_base_layer().register_forward_hook(_adding(self._added[name], layer.fan_in_fan_out))
            for name, layer in self._layers.items()
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _product(self, name: str, adapter: str) -> torch.Tensor:
        return full(self._layers[name].get_delta_weight(adapter)).float()


def _adding(added: torch.Tensor, stored_transposed: bool) -> Any:
    """A forward hook of the base layer that adds the matrix's part of the output."""

    def hook(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        if isinstance(module, torch.nn.Embedding):
            return output + functional.embedding(inputs[0], added).to(output.dtype)
        matrix = added.T if stored_transposed else added
        return output + functional.linear(inputs[0], matrix.to(inputs[0].dtype)).to(output.dtype)

    return hook
