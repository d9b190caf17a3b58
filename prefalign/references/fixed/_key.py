"""What a fixed reference is, in one hash: its weights and what its configuration makes of them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

# Entries of a model's configuration that leave the log-probabilities of given tokens as they are.
_NO_MATTER = {
    *("_name_or_path", "name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype", "use_cache"),
    *("pad_token_id", "bos_token_id", "eos_token_id", "sep_token_id", "decoder_start_token_id", "tokenizer_class"),
    *("_attn_implementation", "_attn_implementation_internal", "attn_implementation", "_experts_implementation"),
    *("id2label", "label2id", "problem_type", "return_dict", "output_attentions", "output_hidden_states"),
    *(
        "output_router_logits",
        "router_aux_loss_coef",
        "chunk_size_feed_forward",
        "finetuning_task",
        "task_specific_params",
    ),
    *("initializer_range", "keys_to_ignore_at_inference", "_commit_hash"),
}
_NO_MATTER_ADAPTER = {
    *("base_model_name_or_path", "revision", "inference_mode", "peft_version", "auto_mapping", "init_lora_weights"),
    *("lora_dropout", "task_type"),
}
_WRAPPER = "base_model.model."


def reference_key(model: nn.Module, precision: str, adapter: str | None = None) -> str:
    """A hash of everything that decides a reference's log-probabilities of given tokens.

    A model under adapters that are off has the key that it has alone.

    Args:
        model: The reference's model, whole (not sharded), PEFT or not.
        precision: What it computes in, such as "float32" or "bf16 autocast".
        adapter: The adapter that is on; None if all are off.

    Returns:
        32 hexadecimal digits.
    """
    inner: Any = model
    get_base: Callable[[], Any] | None = getattr(model, "get_base_model", None)
    if get_base is not None:
        inner = get_base()
    lines = [json.dumps([type(inner).__name__, precision, _plain(inner.config.to_dict(), _NO_MATTER)], sort_keys=True)]
    if adapter is not None:
        described = getattr(model, "peft_config")[adapter].to_dict()  # noqa: B009 - nn.Module has no such attribute
        lines.append(json.dumps(_plain(described, _NO_MATTER_ADAPTER), sort_keys=True, default=str))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # hashing leaves the interpreter to other threads
        lines += sorted(pool.map(_line, *zip(*_tensors(model, adapter), strict=True)))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def _tensors(model: nn.Module, adapter: str | None) -> Iterator[tuple[str, Tensor]]:
    """The reference's own tensors, each once, by the names that they have without PEFT."""
    adapters = list(getattr(model, "peft_config", {}))
    seen: set[tuple[int, tuple[int, ...]]] = set()
    for name, tensor in sorted(model.state_dict().items()):
        owner = next((one for one in adapters if f".{one}." in f"{name}."), None)
        if not isinstance(tensor, Tensor) or (owner is not None and owner != adapter):
            continue
        place = (tensor.data_ptr(), tuple(tensor.shape))
        if place in seen and tensor.numel():
            continue
        seen.add(place)
        yield _bare(name), tensor


def _bare(name: str) -> str:
    name = name.removeprefix("module.").removeprefix(_WRAPPER)
    return name.replace(".base_layer.", ".").replace(".original_module.", ".")


def _line(name: str, tensor: Tensor) -> str:
    values = tensor.detach().cpu().contiguous()
    content = hashlib.sha256(values.reshape(-1).view(torch.uint8).numpy().data)
    return json.dumps([name, str(values.dtype), list(values.shape), content.hexdigest()])


def _plain(value: Any, left_out: set[str]) -> Any:
    """`value` as JSON takes it, without the entries that do not matter, at any depth."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each, left_out) for key, each in value.items() if str(key) not in left_out}
    if isinstance(value, list | tuple):
        return [_plain(each, left_out) for each in value]
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def fingerprint(model: torch.nn.Module, samples: int = 64, frozen: bool = False) -> str | None:
    """A hash of names, shapes and some values of a model's parameters; None if they are sharded.

    Args:
        model: Any module.
        samples: How many evenly spaced values of each parameter count: weights that were trained differ in them.
        frozen: Leave out the parameters that are trained.
    """
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if frozen and parameter.requires_grad:
            continue
        if hasattr(parameter, "full_tensor") or hasattr(parameter, "ds_id"):
            return None
        flat = parameter.detach().reshape(-1)
        values = flat[:: max(1, flat.numel() // samples)][:samples].float().cpu().tolist()
        digest.update(json.dumps([name.removeprefix("module."), list(parameter.shape), values]).encode())
    return digest.hexdigest()
