"""The estimate beside what a tiny model really computes and keeps."""

from __future__ import annotations

import json
import math

import pytest
import torch
from datasets import Dataset
from torch.utils._python_dispatch import TorchDispatchMode

from prefalign._errors import ConfigError
from prefalign.cli._main import main
from prefalign.train import estimate_for_model
from prefalign.train._estimate import estimate_training, shape_of
from tests.tiny import tiny_model, tiny_pairs
from tests.train.runs import lora, ours

PAIRS = 4
PACKED = {"shared_prefix": True}


class Products(TorchDispatchMode):
    """Counts the operations of matrix products, those in place too."""

    def __init__(self):
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, function, _types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in ("mm", "addmm", "addmm_"):
            first, second = args[-2:]
            self.flops += 2 * first.shape[0] * first.shape[1] * second.shape[1]
        return function(*args, **(kwargs or {}))


def measured_work(trainer):
    """Of one step's forward passes and backward pass, per pair; the step before it checked the shared prefix."""
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.train()
    for _ in range(2):
        with Products() as products:
            trainer.compute_loss(trainer.model, dict(batch)).backward()
    return products.flops / PAIRS


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("setting", ["full", "no reference", "checkpointing"])
def test_the_work_is_that_of_the_matrix_products_of_a_step(setting, packed, checkpoint, tmp_path):
    options = {
        "full": {"reference_cache": "off"},
        "no reference": {"loss": "simpo(beta=2.0, gamma=1.0)"},
        "checkpointing": {"reference_cache": "off", "gradient_checkpointing": True},
    }[setting]
    data = {"train_dataset": tiny_pairs(PAIRS)}
    trainer = ours(tmp_path, checkpoint, data, shared_prefix=packed, **options)
    if setting == "checkpointing":  # `train` does it
        trainer.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    # TRL's head leaves a row's last position out; what a layer computes last is not computed again.
    tolerance = 0.05 if setting == "checkpointing" else 0.0001 if packed else 0.02
    made = estimate_training(trainer)
    assert made.work(packed) == pytest.approx(measured_work(trainer), rel=tolerance)


def test_unique_tokens_are_those_that_an_epoch_computes(checkpoint, tmp_path):
    trainer = ours(tmp_path, checkpoint, max_steps=6, **PACKED)  # 24 pairs
    trainer.train()
    made = estimate_training(trainer)
    assert made.tokens["unique_tokens"] == trainer.shared_prefix.packed_tokens
    assert made.tokens["tokens"] == trainer.state.log_history[-2]["num_tokens"]


def kept_numbers(model, length, checkpointing=False):
    """Numbers that the layers keep for the backward pass, each storage once, weights not counted."""
    if checkpointing:
        model.gradient_checkpointing_enable()
    weights = {value.untyped_storage().data_ptr() for value in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.base_model(input_ids=torch.arange(length)[None], use_cache=False)
    return sum(size for size, _ in kept.values()) / 4


def test_kept_numbers_are_those_of_a_llama():
    model = tiny_model(hidden_size=64, intermediate_size=160, num_hidden_layers=6, num_attention_heads=4).train()
    length = 200
    assert shape_of(model).kept * length == pytest.approx(kept_numbers(model, length), rel=0.05)


def test_with_checkpointing_layers_keep_their_inputs():
    model = tiny_model(hidden_size=64, intermediate_size=160, num_hidden_layers=6, num_attention_heads=4).train()
    length, shape = 200, shape_of(model)
    assert shape.layers * shape.hidden * length == pytest.approx(kept_numbers(model, length, True), rel=0.4)
    assert kept_numbers(model, length, True) < shape.kept * length / 4


def test_weights_are_counted_once_and_adapters_alone_are_trained(checkpoint, tmp_path):
    model = tiny_model()
    shape = shape_of(model)
    numbers = sum(value.numel() for value in model.parameters())
    assert shape.weights == shape.trained == numbers
    assert shape.backbone == 2 * (16 * 16 + 2 * 8 * 16 + 16 * 16 + 3 * 16 * 32)  # q, k and v, o, and three of the MLP
    trainer = ours(tmp_path, checkpoint, {"peft_config": lora()})
    adapted = shape_of(trainer.model)
    added = 2 * 4 * (16 + 16 + 16 + 8)  # rank 4 on queries and values of two layers
    assert (adapted.weights, adapted.trained) == (numbers + added, added)
    assert estimate_training(trainer).memory["reference"] == 0


def test_a_large_data_set_is_sampled_and_a_stream_is_not_read(checkpoint, tmp_path):
    stream = tiny_pairs(24).to_iterable_dataset()
    assert estimate_training(ours(tmp_path, checkpoint, {"train_dataset": stream})) is None
    trainer = ours(tmp_path, checkpoint)
    ids = [[1, 2, 3, 4]] * 10_007
    trainer.train_dataset = Dataset.from_dict({"prompt_ids": ids, "chosen_ids": ids, "rejected_ids": ids})
    made = estimate_training(trainer)
    assert (made.rows, len(made.sizes.chosen)) == (10_007, 2000)
    assert made.tokens["tokens"] == 10_007 * 16


def test_the_start_of_a_run_prints_the_estimate_once(checkpoint, tmp_path, capsys):
    ours(tmp_path, checkpoint, max_steps=1, tokens_per_batch=300, **PACKED).train()
    printed = capsys.readouterr().out
    assert printed.count("Estimate for 24 pairs (from all), in micro-batches of at most 300 tokens:") == 1
    assert "expected speed-up of the shared prefix over the plain forward: " in printed
    assert "; it is off" not in printed


def test_the_check_estimates_for_a_model_that_is_not_loaded(checkpoint, tmp_path, capsys):
    tiny_pairs().to_json(tmp_path / "pairs.jsonl")
    arguments = ["check", str(tmp_path / "pairs.jsonl"), "--batch-size", "4"]
    assert main([*arguments, "--model", checkpoint, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)["estimate"]
    trained = estimate_training(ours(tmp_path, checkpoint, **PACKED))
    assert made["unique_tokens"] == trained.tokens["unique_tokens"]
    assert made["padded_positions"] == trained.tokens["padded_positions"]
    numbers = sum(value.numel() for value in tiny_model().parameters())
    assert made["memory"]["weights"] == made["memory"]["reference"] == 4 * numbers
    assert made["speedup"] > 1
    assert main([*arguments, "--tokenizer", checkpoint]) == 0
    text = capsys.readouterr().out
    assert "unique tokens" in text
    assert "memory" not in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch-size", "4"], "`--batch-size` counts tokens, so it would have no effect (got 4 without a tokenizer)"),
        (["--tokens-per-batch", "0", "--tokenizer", "X"], "`--tokens-per-batch` must be >= 1 (got 0)"),
    ],
)
def test_options_of_the_estimate_are_checked(options, message, tmp_path, capsys):
    tiny_pairs(2).to_json(tmp_path / "pairs.jsonl")
    assert main(["check", str(tmp_path / "pairs.jsonl"), *options]) == 2
    assert message in capsys.readouterr().err


def test_a_model_that_is_not_there_is_named(checkpoint, tmp_path):
    from prefalign.data import Division, pair_sizes

    sizes = pair_sizes([(1, [1, 2], [1, 3])], None, "keep_start")
    with pytest.raises(ConfigError, match="`--model` must name a folder with a causal language model"):
        estimate_for_model(str(tmp_path), 1, sizes, Division(1, 1, None, True))
    made = estimate_for_model(checkpoint, 1, sizes, Division(1, 1, None, True))
    assert made.way.packed
    assert math.isfinite(made.speedup)
