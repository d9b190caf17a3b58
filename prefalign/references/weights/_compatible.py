"""Whether two saved models are of one kind: their configurations, vocabularies, special tokens and chat templates."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from ..._files import exists, read_json

# Who saved a model and how it is run is not what it is.
_IGNORED = {
    "_name_or_path",
    "_commit_hash",
    "_attn_implementation",
    "_attn_implementation_autoset",
    "attn_implementation",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "trl_version",
    "use_cache",
}
_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")
_EXTRA = ("additional_special_tokens", "extra_special_tokens")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "merges.txt")
# Of tokenizer.json: not `truncation` and `padding`, which are traces of the last call.
_TOKENIZER_PARTS = ("model", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder")
_LONGEST = 60


def compare_configs(left: Path, right: Path) -> Iterator[str]:
    """Differences between two `config.json`, as `config.KEY: LEFT | RIGHT`."""
    ours, theirs = (_normalised(read_json(folder / "config.json")) for folder in (left, right))
    yield from _compare(ours, theirs, "config")


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer."""
    return any(exists(folder / name) for name in (*_TOKENIZER_FILES, "tokenizer_config.json"))


def compare_tokenizers(left: Path, right: Path) -> Iterator[str]:
    """Differences between two tokenizers: vocabulary, text handling, special tokens, chat template."""
    yield from _compare_vocabularies(left, right)
    ours, theirs = _tokenizer_config(left), _tokenizer_config(right)
    for key in _SPECIAL:
        if _content(ours.get(key)) != _content(theirs.get(key)):
            yield f"{key}: {_short(_content(ours.get(key)))} | {_short(_content(theirs.get(key)))}"
    if _further(ours) != _further(theirs):
        yield f"further special tokens: {_short(_further(ours))} | {_short(_further(theirs))}"
    if _chat_template(left, ours) != _chat_template(right, theirs):
        yield f"chat template: {_short(_chat_template(left, ours))} | {_short(_chat_template(right, theirs))}"


def _compare(ours: dict[str, object], theirs: dict[str, object], where: str) -> Iterator[str]:
    # Releases of transformers add keys with their defaults, so a key that one side lacks is no difference in itself.
    for key in sorted(ours.keys() & theirs.keys() - _IGNORED):
        left, right = ours[key], theirs[key]
        if isinstance(left, dict) and isinstance(right, dict):
            yield from _compare(left, right, f"{where}.{key}")
        elif left != right:
            yield f"{where}.{key}: {_short(left)} | {_short(right)}"


def _normalised(config: dict[str, object]) -> dict[str, object]:
    """One spelling of the rotary embedding's base, which moved between releases of transformers."""
    rope = config.get("rope_parameters")
    if "rope_theta" in config and not isinstance(rope, dict):
        return config | {"rope_parameters": {"rope_theta": config["rope_theta"]}}
    return config


def _compare_vocabularies(left: Path, right: Path) -> Iterator[str]:
    if exists(left / "tokenizer.json") and exists(right / "tokenizer.json"):
        ours, theirs = read_json(left / "tokenizer.json"), read_json(right / "tokenizer.json")
        for part in _TOKENIZER_PARTS:
            if ours.get(part) == theirs.get(part):
                continue
            if part == "model":
                yield f"vocabulary: {_vocabulary_difference(ours[part], theirs.get(part))}"
            elif part == "added_tokens":
                yield f"added tokens: {_short(_added(ours))} | {_short(_added(theirs))}"
            else:
                yield f"tokenizer's {part.replace('_', ' ')} differs"
        return
    for name in _TOKENIZER_FILES:
        files = left / name, right / name
        if all(exists(file) for file in files) and files[0].read_bytes() != files[1].read_bytes():
            yield f"vocabulary: `{name}` differs"


def _vocabulary_difference(ours: object, theirs: object) -> str:
    left, right = (_tokens(model) for model in (ours, theirs))
    if left == right:
        return f"the same {len(left)} tokens, merged differently"
    odd = sorted(token for token in left.keys() | right.keys() if left.get(token) != right.get(token))
    token = odd[0]
    return (
        f"{len(left)} | {len(right)} tokens, {len(odd)} of them with another number, such as {token!r}: "
        f"{left.get(token)} | {right.get(token)}"
    )


def _tokens(model: object) -> dict[str, int]:
    vocabulary = model.get("vocab", {}) if isinstance(model, dict) else {}
    if isinstance(vocabulary, dict):
        return vocabulary
    # Unigram models list [token, score]; the number is the place in the list.
    return {str(pair[0]): number for number, pair in enumerate(vocabulary)}


def _added(tokenizer: dict[str, object]) -> list[str]:
    added = tokenizer.get("added_tokens")
    return [str(token.get("content")) for token in added if isinstance(token, dict)] if isinstance(added, list) else []


def _tokenizer_config(folder: Path) -> dict[str, object]:
    merged: dict[str, object] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if exists(folder / name):
            merged |= read_json(folder / name)
    return merged


def _content(token: object) -> object:
    """A special token is stored as text or as a record around it."""
    return token.get("content") if isinstance(token, dict) else token


def _further(config: dict[str, object]) -> list[str]:
    """Special tokens without a role: a list under one name or another, or a dictionary of named ones."""
    found: set[str] = set()
    for key in _EXTRA:
        listed = config.get(key) or []
        found |= {str(_content(one)) for one in (listed.values() if isinstance(listed, dict) else listed)}  # type: ignore[attr-defined]
    return sorted(found)


def _chat_template(folder: Path, config: dict[str, object]) -> object:
    file = folder / "chat_template.jinja"
    if exists(file):
        return file.read_text("utf-8")
    if exists(folder / "chat_template.json"):
        return read_json(folder / "chat_template.json").get("chat_template")
    return config.get("chat_template")


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
