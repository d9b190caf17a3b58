"""Whether the files of a checkpoint are what their names say, found out from headers, before anything is loaded."""

from __future__ import annotations

import zipfile
from pathlib import Path

from ..._errors import CheckpointError
from ..._files import check_regular, exists, read_json
from ._lora import WEIGHTS as ADAPTER_WEIGHTS
from ._lora import is_adapter
from ._safetensors import Weights, read_header

_CONFIGS = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")


def check_files(path: str) -> None:
    """Read the headers of a checkpoint's weights, and its JSON files. A Hub id is left to the Hub's client.

    Raises:
        CheckpointError: A file is damaged, cut off, a pickle under another name, or its weights are pickles only.
    """
    folder = Path(path)
    if not exists(folder) or not folder.is_dir():
        return
    check_regular(folder)
    for name in _CONFIGS:
        if exists(folder / name):
            read_json(folder / name)
    if is_adapter(folder):
        if exists(folder / ADAPTER_WEIGHTS):
            read_header(folder / ADAPTER_WEIGHTS)
        elif exists(folder / "adapter_model.bin"):
            raise CheckpointError(
                f"The adapter `{folder}` holds no `{ADAPTER_WEIGHTS}`. Its `adapter_model.bin` is a pickle, which is "
                "never opened because loading one runs code. Save it again with `safe_serialization=True`."
            )
    elif exists(folder / "config.json") and not read_json(folder / "config.json").get("quantization_config"):
        Weights(folder).close()


def check_resumable(folder: Path) -> None:
    """Look at the files that a run is resumed from: weights, log, and what torch wrote (which is always an archive).

    Raises:
        CheckpointError: One is damaged, or not what its name says.
    """
    check_files(str(folder))
    read_json(folder / "trainer_state.json")
    for file in [*folder.glob("*.pt"), *folder.glob("*.pth")]:
        if not zipfile.is_zipfile(file):
            raise CheckpointError(f"`{file}` is damaged, or was not written by torch. Resume from another checkpoint.")


def check_tokenizer(path: str, ours: object) -> None:
    """Hold the tokenizer saved beside a model, if there is one, against the policy's.

    Raises:
        CheckpointError: A token has another number.
    """
    from transformers import AutoTokenizer

    try:
        theirs = AutoTokenizer.from_pretrained(path).get_vocab()
    except Exception:  # a model saved without its tokenizer: sizes were compared, there is nothing more to compare
        return
    tokenizer = getattr(ours, "tokenizer", ours)
    vocabulary = tokenizer.get_vocab()  # type: ignore[attr-defined]
    different = [token for token in vocabulary.keys() | theirs.keys() if vocabulary.get(token) != theirs.get(token)]
    if different:
        token = min(different)
        raise CheckpointError(
            f"Policy and reference must share a vocabulary: {len(different)} tokens differ, {token!r} is number "
            f"{vocabulary.get(token)} for the policy and {theirs.get(token)} in {path!r}. "
            "Choose a reference from the same model family."
        )
