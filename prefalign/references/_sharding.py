"""Weights that are sharded over processes: gathered, copied, put back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def reshard(model: torch.nn.Module) -> None:
    """Drop the whole weights that FSDP2 may leave behind a forward pass: what changes is the shards."""
    for module in model.modules():
        if hasattr(module, "set_reshard_after_forward"):  # FSDP2's modules are of a class made for each of them
            module.reshard()  # type: ignore[operator]


def full(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor put together from its shards; every process must take part."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def copy_full(target: Any, source: torch.Tensor) -> None:
    """Copy a whole tensor into one that may be sharded."""
    if hasattr(target, "device_mesh"):
        from torch.distributed.tensor import distribute_tensor

        source = distribute_tensor(source.to(target.device), target.device_mesh, target.placements)
    target.copy_(source)


def sharded_like(tensor: torch.Tensor, like: Any) -> torch.Tensor:
    """A whole tensor with the shards of another one, if that has any; every process must take part."""
    if not hasattr(like, "device_mesh") or hasattr(tensor, "device_mesh"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)


def trained_weights(model: torch.nn.Module) -> dict[str, Any]:
    """The parameters that are trained, by their names in the plain model: wrappers put words of their own into them."""
    reshard(model)
    return {
        name.replace("_checkpoint_wrapped_module.", "").replace("_orig_mod.", ""): parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def is_sharded(weights: Mapping[str, Any]) -> bool:
    """Whether each process holds only its share of the weights."""
    return any(hasattr(weight, "to_local") for weight in weights.values())


def local(weight: Any) -> torch.Tensor:
    """This process's share of a weight: the storage itself, so that a copy into it changes the weight."""
    tensor: torch.Tensor = weight.detach()
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
