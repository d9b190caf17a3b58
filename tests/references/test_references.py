"""Soups and moving averages as references of a training run."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import AutoModelForCausalLM
from trl import BEMACallback

from prefalign._errors import CheckpointError, ConfigError, ParseError
from prefalign.references import BEMA, Initial, MovingAverage, Policy, Soup, parse_reference, register_reference, soup
from prefalign.references.moving._weights import AdapterSlots
from tests.references.models import merged, save_adapter
from tests.tiny import save_tiny, tiny_model
from tests.train.runs import history, largest_difference, lora, ours, theirs, weights

DPO = {"loss": "dpo(beta=0.1)"}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sft")
    return str(save_tiny(folder / "one", 1)), str(save_tiny(folder / "two", 2))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFALIGN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "soups"


def first_loss(trainer):
    return history(trainer)[0]["loss"]


def test_salsa_with_all_weight_on_the_start_is_dpo_to_the_last_bit(pair, tmp_path):
    plain = ours(tmp_path, pair[0], **DPO)
    plain.train()
    mine = ours(tmp_path, pair[0], {"reference": Soup(pair, weights=[1, 0])}, **DPO)
    mine.train()
    assert [entry["loss"] for entry in history(mine)[:-1]] == [entry["loss"] for entry in history(plain)[:-1]]
    after = weights(mine)
    assert all(torch.equal(after[name], value) for name, value in weights(plain).items())


def test_the_first_loss_is_ln_2_only_where_the_policy_starts_at_the_reference(pair, tmp_path):
    mixed = str(soup(pair, out=tmp_path / "mixed").out)
    arms = {
        "alpha 1": (pair[0], f"soup('{pair[0]}', '{pair[1]}', weights=[1, 0])"),
        "control": (mixed, f"soup('{pair[0]}', '{pair[1]}')"),
        "salsa": (pair[0], f"soup('{pair[0]}', '{pair[1]}')"),
    }
    losses = {}
    for arm, (policy, reference) in arms.items():
        trainer = ours(tmp_path, policy, {"reference": reference}, max_steps=1, **DPO)
        trainer.train()
        losses[arm] = first_loss(trainer)
    assert losses["alpha 1"] == losses["control"] == pytest.approx(math.log(2), abs=1e-6)
    assert abs(losses["salsa"] - math.log(2)) > 1e-3


def test_salsa_is_what_the_soup_as_ref_model_is_to_trl(pair, tmp_path):
    mixed = soup(pair, weights=[0.3, 0.7], out=tmp_path / "mixed").out
    trl = theirs(tmp_path, pair[0], {"ref_model": AutoModelForCausalLM.from_pretrained(mixed)}, loss_type="sigmoid")
    trl.train()
    mine = ours(tmp_path, pair[0], {"reference": Soup(pair, weights=[0.3, 0.7])}, **DPO)
    mine.train()
    assert largest_difference(mine, trl) == 0.0


def test_a_soup_is_written_once_and_named_by_its_fingerprints(pair, tmp_path, cache):
    policy = Policy(pair[0], AutoModelForCausalLM.from_pretrained(pair[0]).config, None)
    one = Soup(pair, weights=[0.3, 0.7])
    folder = one.source(policy)
    written = {file.name: file.stat().st_mtime_ns for file in cache.glob("*/*")}
    assert Soup(pair, weights=[0.3, 0.7]).source(policy) == folder
    assert {file.name: file.stat().st_mtime_ns for file in cache.glob("*/*")} == written
    assert Soup(pair, weights=[0.4, 0.6]).source(policy) != folder
    assert one.identity.startswith(f"soup: 0.3·{pair[0]} (sha256 ")
    assert parse_reference(one.expression) == one
    save_tiny(tmp_path / "changed", 3)
    changed = Soup([pair[0], str(tmp_path / "changed")], weights=[0.3, 0.7])
    assert changed.identity.split("sha256 ")[1] == one.identity.split("sha256 ")[1].replace(
        pair[1], str(tmp_path / "changed")
    )
    assert changed.identity != one.identity
    assert changed.source(policy) != folder


def test_a_soup_of_another_vocabulary_is_refused_before_weights_load(pair, tmp_path):
    other = [str(save_tiny(tmp_path / name, 0, vocab_size=300)) for name in "ab"]
    with pytest.raises(CheckpointError, match=r"259 tokens, .* has 300"):
        ours(tmp_path, pair[0], {"reference": Soup(other)}, **DPO)
    with pytest.raises(CheckpointError, match="must sum to 1"):
        parse_reference("soup(a, b, weights=[.5, .6])")


def test_a_lora_policy_is_held_to_the_merged_soup(pair, tmp_path):
    adapters = [str(save_adapter(tmp_path / f"x{seed}", pair[0], seed)) for seed in (1, 2)]
    trainer = ours(tmp_path, pair[0], {"reference": Soup(adapters), "peft_config": lora()}, **DPO)
    one, two = map(merged, adapters)
    for name, value in trainer.ref_model.named_parameters():
        torch.testing.assert_close(value, (one[name] + two[name]) / 2, rtol=1e-5, atol=1e-6)
    trainer.train()
    assert abs(first_loss(trainer) - math.log(2)) > 1e-3


def test_a_moving_average_is_trls_to_the_last_bit(pair, tmp_path):
    mine = ours(tmp_path, pair[0], {"reference": MovingAverage(alpha=0.3, every=2)}, **DPO)
    mine.train()
    options = {"sync_ref_model": True, "ref_model_sync_steps": 2, "ref_model_mixup_alpha": 0.3}
    trl = theirs(tmp_path, pair[0], loss_type="sigmoid", **options)
    trl.train()
    assert largest_difference(mine, trl) == 0.0


def test_bema_follows_as_trls_callback_does(pair, tmp_path):
    reference = BEMA(every=3, ema_power=0.4, bias_power=0.3, lag=2, after=2)
    callback = BEMACallback(update_freq=3, ema_power=0.4, bias_power=0.3, lag=2, update_after=2)
    trainer = ours(tmp_path, pair[0], {"reference": reference, "callbacks": [callback]}, **DPO)
    trainer.train()
    theirs_now = dict(callback.running_model.named_parameters())
    start = AutoModelForCausalLM.from_pretrained(pair[0])
    for name, value in trainer.ref_model.named_parameters():
        torch.testing.assert_close(value, theirs_now[name], rtol=1e-6, atol=1e-7)
        assert not torch.equal(value, start.get_parameter(name))


AVERAGE, CORRECTED = "moving_average(alpha=0.5, every=2)", "bema(every=2, lag=3)"


@pytest.mark.parametrize(
    ("reference", "trainer"),
    [
        (AVERAGE, {"peft_config": lora()}),
        pytest.param(AVERAGE, {}, marks=pytest.mark.slow),
        pytest.param(CORRECTED, {}, marks=pytest.mark.slow),
        pytest.param(CORRECTED, {"peft_config": lora()}, marks=pytest.mark.slow),
    ],
    ids=["average-lora", "average", "bema", "bema-lora"],
)
def test_a_reference_that_follows_survives_a_resume_exactly(reference, trainer, pair, tmp_path):
    options = {**DPO, "reference": reference, "save_strategy": "steps", "save_steps": 5}
    whole = ours(tmp_path, pair[0], trainer, **options)
    whole.train()
    resumed = ours(tmp_path, pair[0], trainer, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "ours" / "checkpoint-5"))
    assert history(resumed)[:-1] == history(whole)[:-1]
    after, state = weights(resumed), resumed.reference.state_dict()
    assert all(torch.equal(after[name], value) for name, value in weights(whole).items())
    assert all(torch.equal(state[name], value) for name, value in whole.reference.state_dict().items())


def test_the_moving_average_of_a_lora_policy_averages_products(tmp_path):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, lora_alpha=3, target_modules=["q_proj", "down_proj", "embed_tokens"])
    model = get_peft_model(tiny_model(1, tie_word_embeddings=False), config)
    slots = AdapterSlots(model)
    torch.manual_seed(0)
    exact = {name: torch.zeros_like(slots.reference(name)) for name in slots.names}
    for _ in range(3):
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.3)
        for name, layer in ((name, model.get_submodule(name)) for name in slots.names):
            table = layer.lora_embedding_B if "embed" in name else layer.lora_B
            b = table["default"] if "embed" in name else table["default"].weight
            a = layer.lora_embedding_A["default"] if "embed" in name else layer.lora_A["default"].weight
            product = 1.5 * (b @ a).T if "embed" in name else 1.5 * b @ a
            exact[name] = 0.4 * exact[name] + 0.6 * product.detach()
            slots.reference(name).mul_(0.4).add_(slots.policy(name), alpha=0.6)
    dense = tiny_model(1, tie_word_embeddings=False)
    with torch.no_grad():
        for name, added in exact.items():
            dense.get_parameter(name.removeprefix("base_model.model.") + ".weight").add_(added)
    tokens = torch.arange(12).reshape(2, 6)
    with torch.no_grad(), model.disable_adapter():
        start = model(input_ids=tokens).logits
        with slots.active():
            followed = model(input_ids=tokens).logits
        assert torch.equal(model(input_ids=tokens).logits, start)
    torch.testing.assert_close(followed, dense(input_ids=tokens).logits, rtol=1e-4, atol=1e-5)
    assert (followed - start).abs().max() > 0.01


def test_a_lora_reference_that_is_replaced_becomes_the_policy(pair, tmp_path):
    # After each step the reference is the policy, so every loss is ln 2; with a frozen start it is not.
    followed = ours(tmp_path, pair[0], {"reference": MovingAverage(alpha=1.0, every=1), "peft_config": lora()}, **DPO)
    followed.train()
    frozen = ours(tmp_path, pair[0], {"reference": Initial(), "peft_config": lora()}, **DPO)
    frozen.train()
    assert all(entry["loss"] == pytest.approx(math.log(2), abs=1e-5) for entry in history(followed)[:-1])
    assert abs(history(frozen)[-2]["loss"] - math.log(2)) > 1e-3


def test_layers_that_cannot_be_followed_are_named(pair, tmp_path):
    from peft import LoraConfig

    saved = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens"], task_type="CAUSAL_LM")
    base = str(save_tiny(tmp_path / "untied", 0, tie_word_embeddings=False))
    with pytest.raises(CheckpointError, match=r"no `modules_to_save` \(got .*embed_tokens"):
        ours(tmp_path, base, {"reference": MovingAverage(), "peft_config": saved}, **DPO)


@pytest.mark.parametrize(
    "text",
    [
        "moving_average(alpha=0)",
        "moving_average(alpha=1.5)",
        "moving_average(every=0)",
        "moving_average(every=2.5)",
        "bema(lag=0)",
        "bema(ema_power=-1)",
    ],
)
def test_arguments_out_of_range_are_refused(text):
    with pytest.raises(CheckpointError, match=r"must be .* \(got "):
        parse_reference(text)


def test_a_word_in_the_place_of_a_number_is_pointed_at():
    with pytest.raises(ParseError, match="`alpha` must be a number") as caught:
        parse_reference("moving_average(alpha=much)")
    assert caught.value.position == 21


def test_a_registered_reference_is_read_by_its_name():
    @register_reference("mine_for_tests")
    def mine(beta: float, every: int = 2) -> MovingAverage:
        return MovingAverage(alpha=beta, every=every)

    assert parse_reference("mine_for_tests(0.5, every=3)") == MovingAverage(alpha=0.5, every=3)
    with pytest.raises(ConfigError, match="`soup` is taken"):
        register_reference("soup")(mine)


def test_expressions_read_back():
    for reference in (MovingAverage(alpha=0.25, every=3), BEMA(every=7, after=2), Soup(["a", "b/c"], [0.25, 0.75])):
        assert parse_reference(reference.expression) == reference
