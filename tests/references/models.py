"""Checkpoints made of given tensors, and adapters on them, for tests of soups."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tests.tiny import save_tiny

CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8, "vocab_size": 16}


def save_tensors(folder: Path, tensors: dict[str, torch.Tensor], shards: int = 1, **config: object) -> Path:
    """A folder with these tensors as a checkpoint, in one file or in several, and a minimal config.json."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    weight_map = {}
    for number in range(shards):
        names = sorted(tensors)[number::shards]
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        save_file({name: tensors[name] for name in names}, folder / file)
        weight_map |= dict.fromkeys(names, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def load_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint, read by the safetensors library."""
    found: dict[str, torch.Tensor] = {}
    for file in sorted(Path(folder).glob("*.safetensors")):
        found |= load_file(file)
    return found


def save_adapter(folder: Path, base: Path, seed: int, rank: int = 2, **options: object) -> Path:
    """A LoRA adapter with random factors on `base`, made and saved by PEFT."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    settings = {"r": rank, "lora_alpha": 3, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"}
    settings |= options
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**settings))
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    embedded = "embed_tokens" in settings["target_modules"]  # what PEFT's "auto" does, with a warning
    model.save_pretrained(folder, save_embedding_layers=embedded)
    return folder


def merged(adapter: Path) -> dict[str, torch.Tensor]:
    """The weights of an adapter's base with the adapter merged into it by PEFT."""
    from peft import AutoPeftModelForCausalLM

    model = AutoPeftModelForCausalLM.from_pretrained(adapter).merge_and_unload()
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def two_models(folder: Path, **overrides: object) -> tuple[Path, Path]:
    """Two tiny models of one architecture with different weights."""
    return save_tiny(folder / "a", 1, **overrides), save_tiny(folder / "b", 2, **overrides)
