"""Hub ids as ingredients, from a cache laid out as the Hub's client lays it out, without a network."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import torch

from prefalign._errors import CheckpointError
from prefalign.references import Soup, parse_reference, soup
from tests.references.models import load_tensors, save_adapter, save_tensors
from tests.tiny import save_tiny
from tests.train.runs import history, ours

TENSORS = {name: torch.randn(5, 3, generator=torch.Generator().manual_seed(len(name))) for name in ("w", "vv", "uuu")}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The folder that stands for `~/.cache/huggingface/hub`."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("PREFALIGN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "hub"


def cached(hub: Path, name: str, folder: Path, revision: str = "main") -> str:
    """Put a checkpoint into the cache: blobs, a snapshot of links to them, and a name for the snapshot."""
    storage = hub / f"models--{name.replace('/', '--')}"
    files = {file.name: file.read_bytes() for file in sorted(folder.iterdir())}
    commit = hashlib.sha1(b"".join(files.values())).hexdigest()
    for part in ("blobs", "refs", f"snapshots/{commit}"):
        (storage / part).mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        blob = hashlib.sha256(content).hexdigest()
        (storage / "blobs" / blob).write_bytes(content)
        os.symlink(f"../../blobs/{blob}", storage / "snapshots" / commit / file)
    (storage / "refs" / revision).write_text(commit)
    return commit


def scaled(factor: float) -> dict[str, torch.Tensor]:
    return {name: factor * tensor for name, tensor in TENSORS.items()}


def test_hub_ids_and_folders_mix(tmp_path, hub):
    cached(hub, "org/one", save_tensors(tmp_path / "one", TENSORS))
    cached(hub, "org/sharded", save_tensors(tmp_path / "sharded", scaled(3.0), shards=2))
    local = save_tensors(tmp_path / "local", scaled(8.0))
    report = soup(["org/one", "org/sharded", local], out=tmp_path / "soup")
    assert report.ingredients == ("org/one", "org/sharded", str(local))
    for name, tensor in load_tensors(tmp_path / "soup").items():
        torch.testing.assert_close(tensor, 4 * TENSORS[name])
    assert not (tmp_path / "soup" / "config.json").is_symlink()  # the soup needs the cache no longer


def test_a_revision_is_a_branch_a_tag_or_a_commit(tmp_path, hub):
    cached(hub, "org/model", save_tensors(tmp_path / "new", TENSORS))
    commit = cached(hub, "org/model", save_tensors(tmp_path / "old", scaled(3.0)), revision="v1.0")
    for name, factor in (("org/model", 1), ("org/model@main", 1), ("org/model@v1.0", 3), (f"org/model@{commit}", 3)):
        out = tmp_path / f"soup of {name.replace('/', ' ')}"
        soup([name], out=out)
        assert all(torch.equal(tensor, scaled(factor)[key]) for key, tensor in load_tensors(out).items()), name
    soup(["org/model", "org/model@v1.0"], out=tmp_path / "both")
    assert all(torch.equal(tensor, 2 * TENSORS[key]) for key, tensor in load_tensors(tmp_path / "both").items())


@pytest.mark.parametrize("name", ["org/missing", "org/one@v9", "org/one@main@main", "missing"])
def test_what_the_cache_lacks_is_one_error_that_names_it(tmp_path, hub, name):
    cached(hub, "org/one", save_tensors(tmp_path / "one", TENSORS))
    with pytest.raises(CheckpointError, match=f"`{name}`") as error:
        soup(["org/one", name], out=tmp_path / "soup")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "soup").exists()


def test_a_snapshot_without_its_weights_says_so(tmp_path, hub):
    folder = save_tensors(tmp_path / "one", TENSORS)
    (folder / "model.safetensors").unlink()  # as `AutoConfig.from_pretrained` alone leaves it
    cached(hub, "org/one", folder)
    with pytest.raises(CheckpointError, match=r"models--org--one.* holds no `model\.safetensors`"):
        soup(["org/one"], out=tmp_path / "soup")


def test_an_adapter_and_its_base_may_both_be_hub_ids(tmp_path, hub):
    base = save_tiny(tmp_path / "base", 0)
    adapter = save_adapter(tmp_path / "adapter", base, 1)
    cached(hub, "org/base", base)
    config = adapter / "adapter_config.json"
    config.write_text(config.read_text().replace(str(base), "org/base"))
    cached(hub, "org/adapter", adapter)
    soup(["org/adapter"], out=tmp_path / "hub-soup", merge=True)
    soup([adapter], base=str(base), out=tmp_path / "soup", merge=True)
    expected = load_tensors(tmp_path / "soup")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in load_tensors(tmp_path / "hub-soup").items())


def test_a_run_is_held_to_a_soup_of_hub_ids(tmp_path, hub):
    one, two = save_tiny(tmp_path / "one", 1), save_tiny(tmp_path / "two", 2)
    cached(hub, "org/one", one)
    cached(hub, "org/two", two, revision="v1.0")
    reference = parse_reference("soup(org/one, org/two@v1.0)")
    assert reference == Soup(["org/one", "org/two@v1.0"])
    losses = []
    for held_to in (reference, Soup([one, two])):
        trainer = ours(tmp_path, str(one), {"reference": held_to}, loss="dpo(beta=0.1)", max_steps=1)
        trainer.train()
        losses.append(history(trainer)[0]["loss"])
    assert losses[0] == losses[1]
    assert "org/two@v1.0 (sha256 " in reference.identity
