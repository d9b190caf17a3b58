"""The estimate of a run from its trainer, or from a model's configuration; `data.estimate` says what it counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from .._errors import ConfigError
from ..data import SAMPLE, Division, Estimate, ModelShape, PairSizes, Way, estimate, pair_sizes
from .forward import reason_against, reason_against_default


def shape_of(model: nn.Module) -> ModelShape:
    """Read the shape off a model, PEFT or not; weights may be on the meta device."""
    get_base_model: Any = getattr(model, "get_base_model", None)
    inner: Any = model if get_base_model is None else get_base_model()
    config = inner.config.get_text_config()
    weights = {id(value): value for value in model.parameters()}
    ends = {id(end.weight) for end in (inner.get_input_embeddings(), inner.get_output_embeddings()) if end is not None}
    experts = {id(value) for name, value in inner.named_parameters() if ".experts." in name}
    active = getattr(config, "num_experts_per_tok", None) or 1
    share = active / max(active, _first(config, ("num_local_experts", "num_experts", "n_routed_experts")) or active)
    backbone = sum(
        _numbers(value) * (share if key in experts else 1)
        for key, value in weights.items()
        if key not in ends and value.dim() > 1
    )
    hidden, layers = config.hidden_size, config.num_hidden_layers
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or hidden // heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    inner_size = (_first(config, ("intermediate_size", "n_inner", "ffn_dim")) or 4 * hidden) * active
    # Llama's layer: six states, queries and attention's result, keys and values, four inner states, and row sums.
    kept = layers * (6 * hidden + 2 * heads * size + 2 * groups * size + 4 * inner_size + heads)
    return ModelShape(
        weights=sum(_numbers(value) for value in weights.values()),
        trained=sum(_numbers(value) for value in weights.values() if value.requires_grad),
        backbone=int(backbone),
        hidden=hidden,
        vocabulary=config.vocab_size,
        kept=kept,
        layers=layers,
        itemsize=max(value.element_size() for value in weights.values()),
    )


def _numbers(value: Any) -> int:
    return int(getattr(value, "ds_numel", value.numel()))  # ZeRO-3 leaves nothing in its place


def _first(config: Any, names: tuple[str, ...]) -> int | None:
    return next((value for name in names if (value := getattr(config, name, None))), None)


def estimate_training(trainer: Any) -> Estimate | None:
    """The estimate of a trainer that is about to train; None for streamed or image data, which have no sample."""
    args, data = trainer.args, trainer.train_dataset
    columns = ("prompt_ids", "chosen_ids", "rejected_ids")
    names = getattr(data, "column_names", None) or ()
    if not hasattr(data, "__len__") or not len(data) or any(name not in names for name in columns):
        return None
    step = max(1, len(data) // SAMPLE)
    table = data.select(range(0, len(data), step)[:SAMPLE]).select_columns(list(columns)).with_format(None)[:]
    rows = zip(*(table[name] for name in columns), strict=True)
    texts = ((len(prompt), prompt + chosen, prompt + rejected) for prompt, chosen, rejected in rows)
    sizes = pair_sizes(texts, args.max_length, args.truncation_mode)
    packer = trainer.shared_prefix
    packed = packer is not None and packer.active
    budget = getattr(args, "tokens_per_batch", None)
    division = Division(args.per_device_train_batch_size, args.gradient_accumulation_steps, budget, packed)
    second = trainer.ref_model
    known = trainer.precompute_ref_logps or getattr(trainer, "reference_cache", None) is not None
    way = Way(
        division=division,
        packed=packed,
        reference=trainer.reference.needs_model and not known,
        reference_weights=0 if second is None else sum(_numbers(value) for value in second.parameters()),
        checkpointing=bool(getattr(args, "activation_checkpointing", None) or args.gradient_checkpointing),
        half=bool(args.bf16 or args.fp16),
        compact=trainer.accelerator.device.type == "cuda",
        keeps_logits=trainer.accelerator.device.type == "cpu",
        optimizer=str(getattr(args.optim, "value", args.optim)),
    )
    return estimate(len(data), sizes, way, shape_of(trainer.accelerator.unwrap_model(trainer.model)))


def estimate_for_model(name: str, rows: int, sizes: PairSizes, division: Division) -> Estimate:
    """The estimate of a model that only its configuration is read of: all weights trained in float32 with AdamW.

    Args:
        name: A folder or a hub id.
        rows: Pairs of the data set.
        sizes: A sample of them.
        division: How pairs come in micro-batches; whether they are packed is found out here.

    Raises:
        ConfigError: There is no configuration of a causal language model.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(name)
        with torch.device("meta"):
            model: nn.Module = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except Exception as error:  # a dozen kinds, by what is missing or damaged
        first = (str(error).strip().splitlines() or [""])[0]
        raise ConfigError(
            f"`--model` must name a folder with a causal language model, or one on the Hub (got {name!a}): "
            f"{type(error).__name__}: {first}"
        ) from None
    packed = reason_against(model) is None and reason_against_default(model) is None
    shape = shape_of(model)
    way = Way(division=replace(division, packed=packed), packed=packed, reference_weights=shape.weights)
    return estimate(rows, sizes, way, shape)
