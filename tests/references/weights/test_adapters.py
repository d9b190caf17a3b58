"""Soups of LoRA adapters against PEFT's own merge, and of mixtures with whole models."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from prefalign._errors import CheckpointError
from prefalign.references import soup
from tests.references.models import load_tensors, merged, save_adapter
from tests.tiny import save_tiny


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("base"), 0, tie_word_embeddings=False)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory, base):
    """Two adapters of other ranks, scales and layers."""
    folder = tmp_path_factory.mktemp("adapters")
    return (
        save_adapter(folder / "a", base, 1),
        save_adapter(
            folder / "b", base, 2, rank=3, use_rslora=True, target_modules=["q_proj", "v_proj", "embed_tokens"]
        ),
    )


def mean_of_merged(folders, weights):
    models = [merged(folder) for folder in folders]
    return {name: sum(w * m[name].double() for w, m in zip(weights, models, strict=True)) for name in models[0]}


def assert_close(made, exact):
    for name, tensor in exact.items():
        torch.testing.assert_close(made[name].double(), tensor, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.2, 0.8)])
def test_adapters_become_one_of_summed_rank_with_the_mean_product(tmp_path, adapters, weights):
    made = soup(adapters, weights=weights, out=tmp_path / "soup")
    assert made.kind == "adapter"
    ranks = {
        name: t.shape[0] for name, t in load_file(made.out / "adapter_model.safetensors").items() if "lora_A" in name
    }
    assert {rank for name, rank in ranks.items() if "q_proj" in name} == {5}
    assert {rank for name, rank in ranks.items() if "down_proj" in name} == {2}
    assert_close(merged(made.out), mean_of_merged(adapters, weights))


def test_averaging_the_factors_apart_would_be_something_else(adapters, tmp_path, base):
    # The trap that products avoid: mean(B)·mean(A) is not mean(B·A).
    other = save_adapter(tmp_path / "c", base, 3)
    made = soup([adapters[0], other], out=tmp_path / "soup")
    one, two = (load_file(folder / "adapter_model.safetensors") for folder in (adapters[0], other))
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    apart = (
        1.5 * ((one[key.format("B")] + two[key.format("B")]) / 2) @ ((one[key.format("A")] + two[key.format("A")]) / 2)
    )
    cat = load_file(made.out / "adapter_model.safetensors")
    together = cat[key.format("B")] @ cat[key.format("A")]
    exact = sum(0.5 * 1.5 * f[key.format("B")] @ f[key.format("A")] for f in (one, two))
    torch.testing.assert_close(together, exact)
    assert (apart - exact).norm() > 0.3 * exact.norm()


def test_adapters_can_be_merged_into_their_base(tmp_path, adapters):
    made = soup(adapters, weights=[0.25, 0.75], out=tmp_path / "soup", merge=True)
    assert made.kind == "checkpoint"
    assert_close(load_tensors(made.out), mean_of_merged(adapters, (0.25, 0.75)))


def test_adapters_and_whole_models_mix(tmp_path, adapters, base):
    other = save_tiny(tmp_path / "other", 7, tie_word_embeddings=False)
    made = soup([adapters[0], other, adapters[1]], weights=[0.5, 0.3, 0.2], out=tmp_path / "soup")
    assert made.kind == "checkpoint"
    rest = load_tensors(other)
    exact = mean_of_merged(adapters, (0.5, 0.2))
    assert_close(load_tensors(made.out), {name: exact[name] + 0.3 * rest[name].double() for name in rest})


def test_the_soup_of_an_adapter_with_its_base_halves_it(tmp_path, adapters, base):
    made = soup([adapters[0], base], out=tmp_path / "soup")
    full, start = merged(adapters[0]), load_tensors(base)
    assert_close(load_tensors(made.out), {name: (full[name].double() + start[name].double()) / 2 for name in start})


@pytest.mark.parametrize("names", [("a", "a"), ("a", "copy")])
def test_the_soup_of_an_adapter_with_itself_is_itself_bit_by_bit(tmp_path, adapters, base, names):
    twin = save_adapter(tmp_path / "copy", base, 1)
    made = soup([{"a": adapters[0], "copy": twin}[name] for name in names], out=tmp_path / "soup")
    for file in ("adapter_model.safetensors", "adapter_config.json"):
        assert (made.out / file).read_bytes() == (adapters[0] / file).read_bytes()


def test_a_share_of_one_keeps_the_adapter_as_it_is(tmp_path, adapters):
    made = soup(adapters, weights=[1, 0], out=tmp_path / "soup")
    file = "adapter_model.safetensors"
    assert (made.out / file).read_bytes() == (adapters[0] / file).read_bytes()


def test_layers_that_adapters_replace_are_averaged_too(tmp_path):
    base = save_tiny(tmp_path / "base", 0, tie_word_embeddings=False)
    folders = [save_adapter(tmp_path / f"r{i}", base, i, modules_to_save=["lm_head"]) for i in (1, 2)]
    for number, folder in enumerate(folders):  # PEFT starts them as copies of the base's
        file = folder / "adapter_model.safetensors"
        tensors = load_file(file)
        tensors["base_model.model.lm_head.weight"] += number + 1.0
        save_file(tensors, file)
    exact = mean_of_merged(folders, (0.5, 0.5))
    assert_close(merged(soup(folders, out=tmp_path / "soup").out), exact)
    assert_close(load_tensors(soup(folders, out=tmp_path / "merged", merge=True).out), exact)


def test_half_precision_factors_are_kept_in_float32(tmp_path, base):
    folders = [save_adapter(tmp_path / f"h{i}", base, i) for i in (1, 2)]
    for folder in folders:
        file = folder / "adapter_model.safetensors"
        save_file({name: tensor.bfloat16() for name, tensor in load_file(file).items()}, file)
    made = load_file(soup(folders, weights=[0.3, 0.7], out=tmp_path / "soup").out / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in made.values()} == {torch.float32}


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")  # PEFT's warning of this trap
def test_an_adapter_of_tied_embeddings_is_not_merged(tmp_path):
    # Unmerged it changes the input embedding only; merged it would change the output, too.
    base = save_tiny(tmp_path / "tied", 0)
    folders = [save_adapter(tmp_path / f"e{i}", base, i, target_modules=["embed_tokens"]) for i in (1, 2)]
    assert soup(folders, out=tmp_path / "soup").kind == "adapter"
    with pytest.raises(CheckpointError, match="tied"):
        soup(folders, out=tmp_path / "merged", merge=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "may be LoRA adapters .*'IA3'"),
        ({"use_dora": True}, "`use_dora`"),
        ({"init_lora_weights": "pissa"}, "began as 'pissa'"),
        ({"base_model_name_or_path": None}, "Pass `base=`"),
        ({"base_model_name_or_path": "./nowhere/at/all"}, "There is no folder"),
        ({"alpha_pattern": {"(": 3}}, "`alpha_pattern`"),
    ],
)
def test_an_adapter_that_is_no_plain_product_is_refused(tmp_path, adapters, change, message):
    import shutil

    odd = tmp_path / "odd"
    shutil.copytree(adapters[0], odd)
    config = json.loads((odd / "adapter_config.json").read_text())
    (odd / "adapter_config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(CheckpointError, match=message):
        soup([odd, adapters[1]], out=tmp_path / "soup")


def test_an_adapter_of_another_base_names_what_does_not_fit(tmp_path, adapters):
    wide = save_tiny(tmp_path / "wide", 0, hidden_size=32, tie_word_embeddings=False)
    with pytest.raises(CheckpointError, match=r"another shape than .*down_proj\.weight \[16, 32\] \| \[32, 32\]"):
        soup(adapters, out=tmp_path / "soup", base=str(wide))
