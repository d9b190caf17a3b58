"""What cannot be averaged, or is no checkpoint: one clear error each, before anything is written."""

from __future__ import annotations

import json
import os
import pickle
import zipfile

import pytest
import torch

from prefalign._errors import CheckpointError
from prefalign.references import soup
from tests.references.models import save_tensors
from tests.tiny import CHAT_TEMPLATE, save_tiny, tiny_tokenizer

TENSORS = {"w": torch.randn(4, 4), "v": torch.randn(3)}


@pytest.fixture
def good(tmp_path):
    return save_tensors(tmp_path / "good", TENSORS)


def refuse(tmp_path, folders, message):
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(CheckpointError, match=message) as error:
        soup(folders, out=tmp_path / "soup")
    assert sorted(os.listdir(tmp_path)) == before
    return str(error.value)


def test_one_error_lists_every_difference(tmp_path):
    one = save_tiny(tmp_path / "one", 0)
    two = save_tiny(tmp_path / "two", 0, hidden_size=32, num_hidden_layers=3)
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["new"])
    tokenizer.eos_token = "<|endoftext|>"
    tokenizer.chat_template = CHAT_TEMPLATE + "!"
    tokenizer.save_pretrained(two)
    message = refuse(tmp_path, [one, two], "not of one kind")
    for part in (
        "config.hidden_size: 16 | 32",
        "config.num_hidden_layers: 2 | 3",
        "only the second has: model.layers.2",
        "shapes: model.embed_tokens.weight [259, 16] | [259, 32]",
        "added tokens",
        'eos_token: "<|im_end|>" | "<|endoftext|>"',
        "chat template",
    ):
        assert part in message


def test_other_numbers_for_the_same_tokens_are_a_difference(tmp_path):
    one, two = save_tiny(tmp_path / "one", 0), save_tiny(tmp_path / "two", 0)
    file = two / "tokenizer.json"
    content = json.loads(file.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    file.write_text(json.dumps(content))
    refuse(tmp_path, [one, two], "vocabulary: 259 | 259 tokens, 2 of them with another number, such as 'a'")


def test_traces_of_use_are_no_difference(tmp_path):
    one, two = save_tiny(tmp_path / "one", 0), save_tiny(tmp_path / "two", 1)
    for name, change in {
        "tokenizer.json": {"padding": {"strategy": "BatchLongest"}, "truncation": {"max_length": 9}},
        "config.json": {"transformers_version": "4.0.0", "_name_or_path": "elsewhere", "use_cache": False},
    }.items():
        content = json.loads((two / name).read_text())
        (two / name).write_text(json.dumps({**content, **change}))
    assert soup([one, two], out=tmp_path / "soup").weights == (0.5, 0.5)


@pytest.mark.parametrize("cut", [1, 100])
def test_a_truncated_file_is_refused(tmp_path, good, cut):
    bad = save_tensors(tmp_path / "bad", TENSORS)
    file = bad / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-cut])
    refuse(tmp_path, [good, bad], "truncated")


@pytest.mark.parametrize("content", [b"", b"1234", b"\xff" * 8, b"\x10" + b"\0" * 7 + b"no json at all!!"])
def test_what_is_no_safetensors_file_is_refused(tmp_path, good, content):
    bad = save_tensors(tmp_path / "bad", TENSORS)
    (bad / "model.safetensors").write_bytes(content)
    refuse(tmp_path, [good, bad], "not a readable safetensors file")


def test_a_pickle_under_another_name_is_refused_unopened(tmp_path, good):
    plain = save_tensors(tmp_path / "plain", TENSORS)
    zipped = save_tensors(tmp_path / "zipped", TENSORS)
    (plain / "model.safetensors").write_bytes(pickle.dumps({"w": [1.0]}))
    with zipfile.ZipFile(zipped / "model.safetensors", "w") as archive:
        archive.writestr("data.pkl", b"")
    for bad in (plain, zipped):
        refuse(tmp_path, [good, bad], "a Python pickle under another name")


def test_an_lfs_pointer_is_named(tmp_path, good):
    bad = save_tensors(tmp_path / "bad", TENSORS)
    (bad / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    refuse(tmp_path, [good, bad], "git lfs pull")


def test_a_checkpoint_of_pickles_only_is_refused(tmp_path, good):
    bad = save_tensors(tmp_path / "bad", TENSORS)
    (bad / "model.safetensors").rename(bad / "pytorch_model.bin")
    refuse(tmp_path, [good, bad], "safe_serialization=True")


def test_links_that_run_in_a_circle_are_named(tmp_path, good):
    (tmp_path / "x").symlink_to(tmp_path / "y")
    (tmp_path / "y").symlink_to(tmp_path / "x")
    refuse(tmp_path, [good, tmp_path / "x"], "run in a circle")
    bad = save_tensors(tmp_path / "bad", TENSORS)
    (bad / "model.safetensors").unlink()
    (bad / "model.safetensors").symlink_to(bad / "model.safetensors")
    refuse(tmp_path, [good, bad], "run in a circle")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data_offsets": [8, 72]}, "overlap or leave a gap"),
        ({"data_offsets": [0, 60]}, "makes no sense"),
        ({"shape": [4, -4]}, "makes no sense"),
        ({"dtype": "F4"}, "'F4'"),
        ({"shape": "wide"}, "makes no sense"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path, good, change, message):
    bad = save_tensors(tmp_path / "bad", {"w": torch.randn(4, 4)})
    header = {"w": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64], **change}}
    text = json.dumps(header).encode()
    (bad / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * 64)
    refuse(tmp_path, [good, bad], message)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"weight_map": {"w": "../good/model.safetensors"}}, "not in the checkpoint's folder"),
        ({"weight_map": {"other": "part.safetensors"}}, "in shards without them"),
        ({"weight_map": {"w": "gone.safetensors"}}, "No such file"),
        ({}, "`weight_map`"),
    ],
)
def test_an_index_that_lies_is_refused(tmp_path, good, index, message):
    bad = save_tensors(tmp_path / "bad", TENSORS)
    (bad / "model.safetensors").rename(bad / "part.safetensors")
    (bad / "model.safetensors.index.json").write_text(json.dumps(index))
    refuse(tmp_path, [good, bad], message)


def test_a_quantised_model_is_refused(tmp_path, good):
    bad = save_tensors(tmp_path / "bad", TENSORS, quantization_config={"quant_method": "gptq"})
    refuse(tmp_path, [good, bad], "codes have no average")


def test_what_is_nowhere_is_refused(tmp_path, good, monkeypatch):
    refuse(tmp_path, [good, tmp_path / "gone"], "no folder")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refuse(tmp_path, [good, "nobody/no-such-model"], "is no folder here, and the Hub")
    refuse(tmp_path, [good, good / "config.json"], "is a file")


def test_a_folder_without_a_config_is_no_checkpoint(tmp_path, good):
    bad = save_tensors(tmp_path / "bad", TENSORS)
    (bad / "config.json").unlink()
    refuse(tmp_path, [good, bad], "`config.json`")
