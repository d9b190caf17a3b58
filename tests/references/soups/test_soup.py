"""Soups of checkpoints: values against float64, bytes against themselves, files against transformers."""

from __future__ import annotations

import json
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from prefalign._errors import CheckpointError
from prefalign.references import soup
from prefalign.references.weights._safetensors import weights_fingerprint
from tests.references.models import load_tensors, save_tensors, two_models

STORED = {
    torch.float64: torch.int64,
    torch.float32: torch.int32,
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
}


def units_apart(left: torch.Tensor, right: torch.Tensor) -> int:
    """How many representable numbers lie between two tensors at most."""

    def ordered(tensor):
        bits = tensor.view(STORED[tensor.dtype]).long()
        low = torch.iinfo(STORED[tensor.dtype]).min
        return torch.where(bits < 0, low - bits, bits)

    return int((ordered(left) - ordered(right)).abs().max())


def random_tensors(seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"embed.weight": (16, 8), "layer.weight": (300, 257), "layer.bias": (5,), "norm.weight": ()}
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}


def average(models, weights):
    return {name: sum(w * model[name].double() for w, model in zip(weights, models, strict=True)) for name in models[0]}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("weights", [(0.5, 0.5, 0.0), (0.3, 0.6, 0.1), (1 / 3, 1 / 3, 1 / 3)])
def test_a_soup_is_the_float64_average_to_one_unit_in_the_last_place(tmp_path, dtype, weights):
    models = [random_tensors(seed, dtype) for seed in range(3)]
    folders = [save_tensors(tmp_path / str(i), model, shards=i + 1) for i, model in enumerate(models)]
    soup(folders, weights=weights, out=tmp_path / "soup")
    exact = average(models, weights)
    for name, tensor in load_tensors(tmp_path / "soup").items():
        assert tensor.dtype == dtype
        assert units_apart(tensor, exact[name].to(dtype)) <= 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_mean_of_two_is_within_one_unit_for_any_two_numbers(tmp_path, dtype):
    """Numbers of all sizes against one another and against what nearly cancels them, subnormal and huge ones too."""
    generator = torch.Generator().manual_seed(7)
    bits = torch.randint(
        -(2 ** (8 * dtype.itemsize - 1)), 2 ** (8 * dtype.itemsize - 1), (1 << 17,), generator=generator
    )
    one = bits.to(STORED[dtype]).view(dtype)
    one = torch.where(one.isfinite(), one, torch.zeros_like(one))
    near = (-one.double() * (1 + 4 * torch.finfo(dtype).eps * torch.randn(len(one), generator=generator))).to(dtype)
    near = torch.where(near.isfinite(), near, one)
    two = torch.where(torch.rand(len(one), generator=generator) < 0.5, near, one.roll(1))
    folders = [save_tensors(tmp_path / name, {"x": value}) for name, value in (("a", one), ("b", two))]
    exact = ((one.double() + two.double()) / 2).to(dtype)
    for order in (folders, folders[::-1]):
        out = tmp_path / order[0].name / "soup"
        soup(order, out=out)
        assert units_apart(load_tensors(out)["x"], exact) <= 1


def test_weights_that_nearly_cancel_keep_their_digits(tmp_path):
    # In float32, 0.3 * 7 and 0.7 * -3.0000002 leave nothing but rounding errors of the products.
    first, second = torch.tensor([7.0] * 9), torch.tensor([-3.0000002] * 9)
    folders = [save_tensors(tmp_path / name, {"x": value}) for name, value in (("a", first), ("b", second))]
    soup(folders, weights=[0.3, 0.7], out=tmp_path / "soup")
    exact = (0.3 * first.double() + 0.7 * second.double()).float()
    assert units_apart(load_tensors(tmp_path / "soup")["x"], exact) <= 1
    assert units_apart(0.3 * first + 0.7 * second, exact) > 1000


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("count", [2, 3, 7])
def test_the_soup_of_a_model_with_itself_is_itself_bit_by_bit(tmp_path, dtype, count):
    model = random_tensors(0, dtype)
    info = torch.finfo(dtype)
    model["edge.weight"] = torch.tensor(
        [0.0, -0.0, info.max, info.tiny, info.smallest_normal / 2, -info.max], dtype=dtype
    )
    copies = [save_tensors(tmp_path / str(i), model, shards=1 + i % 2) for i in range(count)]
    soup(copies, out=tmp_path / "soup")
    for name, tensor in load_tensors(tmp_path / "soup").items():
        assert torch.equal(tensor.reshape(-1).view(torch.uint8), model[name].reshape(-1).view(torch.uint8)), name


def test_an_ingredient_of_weight_zero_is_not_even_read(tmp_path):
    models = [random_tensors(0), random_tensors(1)]
    models[1]["layer.bias"] = torch.full((5,), torch.nan)
    folders = [save_tensors(tmp_path / str(i), model) for i, model in enumerate(models)]
    soup(folders, weights=[1, 0], out=tmp_path / "soup")
    assert all(torch.equal(tensor, models[0][name]) for name, tensor in load_tensors(tmp_path / "soup").items())
    with pytest.raises(CheckpointError, match=r"`layer.bias` is not a number"):
        soup(folders, out=tmp_path / "other")


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(4)), st.lists(st.floats(0.05, 1), min_size=4, max_size=4))
def test_the_order_of_ingredients_does_not_matter(tmp_path_factory, order, shares):
    folder = tmp_path_factory.mktemp("order")
    weights = [share / sum(shares) for share in shares]
    folders = [save_tensors(folder / str(i), random_tensors(i)) for i in range(4)]
    soup(folders, weights=weights, out=folder / "x", progress=False)
    soup([folders[i] for i in order], weights=[weights[i] for i in order], out=folder / "y", progress=False)
    left, right = load_tensors(folder / "x"), load_tensors(folder / "y")
    assert all(units_apart(left[name], right[name]) <= 1 for name in left)


def test_integers_and_buffers_come_from_the_first(tmp_path):
    first = {
        "w": torch.ones(3),
        "ids": torch.tensor([1, 2]),
        "on": torch.tensor([True]),
        "rotary.inv_freq": torch.ones(2),
    }
    second = {
        "w": torch.zeros(3),
        "ids": torch.tensor([5, 6]),
        "on": torch.tensor([False]),
        "rotary.inv_freq": torch.zeros(2),
    }
    folders = [save_tensors(tmp_path / "a", first), save_tensors(tmp_path / "b", second)]
    soup(folders, out=tmp_path / "soup")
    made = load_tensors(tmp_path / "soup")
    assert torch.equal(made.pop("w"), torch.full((3,), 0.5))
    assert all(torch.equal(tensor, first[name]) for name, tensor in made.items())


def test_a_soup_is_a_checkpoint_that_transformers_loads(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folders = two_models(tmp_path)
    made = soup(folders, out=tmp_path / "soup", max_shard_size=6_000).out
    index = json.loads((tmp_path / "soup" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 1
    model, left, right = (AutoModelForCausalLM.from_pretrained(path) for path in (made, *folders))
    for name, parameter in model.named_parameters():
        mean = (left.get_parameter(name).double() + right.get_parameter(name).double()) / 2
        assert torch.equal(parameter, mean.float())
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert index["metadata"]["total_size"] == sum(p.numel() * 4 for p in model.parameters())
    assert AutoTokenizer.from_pretrained(made).chat_template == AutoTokenizer.from_pretrained(folders[0]).chat_template
    assert json.loads((tmp_path / "soup" / "soup.json").read_text())["weights"] == [0.5, 0.5]


def test_a_copy_of_tied_weights_in_one_ingredient_is_no_difference(tmp_path):
    tensors = {"model.embed_tokens.weight": torch.randn(4, 4), "x": torch.randn(3)}
    twice = {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}
    once = save_tensors(tmp_path / "once", tensors, tie_word_embeddings=True)
    both = save_tensors(tmp_path / "both", twice, tie_word_embeddings=True)
    soup([both, once], out=tmp_path / "soup")
    assert load_tensors(tmp_path / "soup").keys() == tensors.keys()


def test_an_untied_head_against_a_tied_one_is_a_difference(tmp_path):
    tensors = {"model.embed_tokens.weight": torch.randn(4, 4), "x": torch.randn(3)}
    once = save_tensors(tmp_path / "once", tensors)
    other = save_tensors(tmp_path / "other", {**tensors, "lm_head.weight": torch.randn(4, 4)})
    with pytest.raises(CheckpointError, match=r"only the second has: lm_head\.weight"):
        soup([once, other], out=tmp_path / "soup")


def test_the_fingerprint_does_not_depend_on_the_sharding(tmp_path):
    model = random_tensors(0)
    prints = [weights_fingerprint(save_tensors(tmp_path / str(n), model, shards=n)) for n in (1, 2, 3)]
    assert len(set(prints)) == 1
    model["norm.weight"] = torch.nextafter(model["norm.weight"], torch.tensor(9.0))
    assert weights_fingerprint(save_tensors(tmp_path / "changed", model)) != prints[0]


def test_what_is_written_is_what_the_format_asks_for(tmp_path):
    models = [{"half": torch.randn(3).half(), "one": torch.randn(3), "flag": torch.tensor([True])} for _ in range(2)]
    folders = [save_tensors(tmp_path / str(i), model) for i, model in enumerate(models)]
    made = soup(folders, out=tmp_path / "soup").out
    raw = (made / "model.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    assert length % 8 == 0
    assert header["__metadata__"] == {"format": "pt"}
    for tensor in (header["one"], header["half"]):  # aligned to their elements
        assert tensor["data_offsets"][0] % {"F32": 4, "F16": 2}[tensor["dtype"]] == 0
    assert load_file(made / "model.safetensors").keys() == models[0].keys()


def test_a_soup_replaces_nothing(tmp_path):
    folders = [save_tensors(tmp_path / str(i), random_tensors(i)) for i in range(2)]
    (tmp_path / "out").mkdir()
    soup(folders, out=tmp_path / "out")  # an empty folder is as good as none
    with pytest.raises(CheckpointError, match="exists"):
        soup(folders, out=tmp_path / "out")


def test_a_failure_leaves_nothing_behind(tmp_path):
    first, second = random_tensors(0), random_tensors(1)
    second["norm.weight"] = torch.tensor(torch.nan)
    folders = [save_tensors(tmp_path / "a", first), save_tensors(tmp_path / "b", second)]
    with pytest.raises(CheckpointError):
        soup(folders, out=tmp_path / "out" / "soup")
    assert os.listdir(tmp_path / "out") == []


def test_pytorch_keeps_its_threads(tmp_path):
    before = torch.get_num_threads()
    first, second = random_tensors(0), random_tensors(1)
    folders = [save_tensors(tmp_path / name, model) for name, model in (("a", first), ("b", second))]
    try:
        torch.set_num_threads(3)
        soup(folders, out=tmp_path / "soup")
        assert torch.get_num_threads() == 3
        bad = save_tensors(tmp_path / "bad", {**first, "norm.weight": torch.tensor(torch.nan)})
        with pytest.raises(CheckpointError):
            soup([*folders, bad], out=tmp_path / "other")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([0.5], "one number per ingredient: 2"),
        ([0.5, 0.6], r"must sum to 1 .*0\.454545, 0\.545455"),
        ([1.5, -0.5], "0 or more"),
        ([float("nan"), 1], "0 or more"),
        (["1", 0], "0 or more"),
    ],
)
def test_weights_must_be_shares(tmp_path, weights, message):
    with pytest.raises(CheckpointError, match=message):
        soup(["a", "b"], weights=weights, out=tmp_path / "soup")


def test_a_soup_needs_a_list_of_models(tmp_path):
    for nothing in ([], "model"):
        with pytest.raises(CheckpointError, match="list of at least one model"):
            soup(nothing, out=tmp_path / "soup")
