"""RPO's other baselines in training: whose completions are dealt to which pair, kept, resumed, refused; schedules."""

from __future__ import annotations

import json

import pytest
import torch
from datasets import Dataset

from prefalign._errors import DataError, PrefalignError
from prefalign.losses import RPO, SFT
from prefalign.train.generation._baseline import _permutation
from tests.tiny import tiny_pairs
from tests.train.runs import history, lora, ours, weights

BOOKS = Dataset.from_dict(
    {"prompt": [f"Book {i}:" for i in range(7)], "completion": [" " + "nice " * (1 + i % 3) + "book" for i in range(7)]}
)
OTHER = "rpo(beta=0.1, eta=0.5, reduction='sum', baseline='sft_dataset')"
SAMPLES = "rpo(beta=0.1, eta=0.5, reduction='sum', baseline='reference')"
SHORT = {"max_new_tokens": 4, "max_steps": 2}


def logged(trainer, name):
    return [entry[name] for entry in trainer.state.log_history if name in entry and "loss" in entry]


def test_a_pair_gets_the_completion_that_its_number_and_the_epoch_say(tmp_path, checkpoint):
    trainer = ours(tmp_path, checkpoint, {"loss": OTHER, "sft_dataset": BOOKS})
    tokens = trainer.processing_class
    expected = {(row["prompt"], row["completion"]) for row in BOOKS}
    for epoch in (0, 1):
        trainer.state.epoch = epoch - 1e-9
        order = _permutation(7, trainer.args.seed, epoch)
        assert sorted(order) == list(range(7))  # every completion once before one comes again
        dealt = [trainer.baseline._example(number) for number in range(9)]
        texts = [tokens.decode(e["prompt_ids"]) + tokens.decode(e["chosen_ids"]) for e in dealt]
        ends = [prompt + completion + tokens.eos_token for prompt, completion in expected]
        assert set(texts[:7]) == set(ends)
        assert texts[:2] == texts[7:9]
        assert texts[0] == BOOKS[int(order[0])]["prompt"] + BOOKS[int(order[0])]["completion"] + tokens.eos_token


@pytest.mark.parametrize("packed", [False, True])
def test_the_term_is_the_plain_models_likelihood(tmp_path, checkpoint, packed):
    trainer = ours(tmp_path, checkpoint, {"loss": OTHER, "sft_dataset": BOOKS}, max_steps=1, shared_prefix=packed)
    start = trainer.accelerator.unwrap_model(trainer.model)
    order = _permutation(7, trainer.args.seed, 0)
    rows = trainer.baseline._rows
    wanted = []
    with torch.no_grad():
        for number in range(24):
            prompt, completion = rows[int(order[number % 7])]
            logps = torch.log_softmax(start(torch.tensor([prompt + completion])).logits[0, :-1], -1)
            wanted.append(
                float(logps.gather(-1, torch.tensor((prompt + completion)[1:])[:, None])[len(prompt) - 1 :].sum())
            )
    seen = []
    inner = trainer.baseline.add
    trainer.baseline.add = lambda pairs, model, numbers: (
        seen.append((numbers, inner(pairs, model, numbers))) or seen[-1][1]
    )
    trainer.train()
    (numbers, pairs), *_ = seen
    assert pairs.baseline.detach().tolist() == pytest.approx([wanted[number] for number in numbers.tolist()], abs=1e-3)
    assert logged(trainer, "loss/sft")[0] == pytest.approx(-float(pairs.baseline.detach().mean()), rel=1e-4)
    assert logged(trainer, "loss")[0] == pytest.approx(
        logged(trainer, "loss/dpo")[0] + 0.05 * logged(trainer, "loss/sft")[0], rel=1e-3
    )


def test_gradient_accumulation_changes_nothing(tmp_path, checkpoint):
    how = {"loss": OTHER, "sft_dataset": BOOKS}
    whole = ours(tmp_path / "a", checkpoint, dict(how), max_steps=3, per_device_train_batch_size=8)
    parts = ours(
        tmp_path / "b", checkpoint, dict(how), max_steps=3, per_device_train_batch_size=2, gradient_accumulation_steps=4
    )
    whole.train(), parts.train()
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], value, atol=2e-5, rtol=1e-4)


def test_a_resumed_run_deals_and_schedules_alike(tmp_path, checkpoint):
    loss = OTHER.replace("eta=0.5", "eta='linear(0.5, 0)'")
    how = {"save_strategy": "steps", "save_steps": 4, "max_steps": 8}
    once = ours(tmp_path, checkpoint, {"loss": loss, "sft_dataset": BOOKS}, **how)
    once.train()
    assert logged(once, "eta") == pytest.approx([0.5 * (1 - step / 7) for step in range(8)])
    again = ours(tmp_path, checkpoint, {"loss": loss, "sft_dataset": BOOKS}, **how)
    again.train(str(tmp_path / "ours" / "checkpoint-4"))
    assert history(again)[:-1] == history(once)[:-1]  # the last is a summary of the steps done here
    assert all(torch.equal(value, weights(once)[name]) for name, value in weights(again).items())


def test_samples_are_drawn_once_and_kept_with_the_run(tmp_path, checkpoint):
    calls = []

    def generator(model, request):
        calls.append(len(request.prompts))
        return [[70 + len(prompt) % 5, 2] for prompt in request.prompts]

    how = {"loss": SAMPLES, "generator": generator}
    first = ours(tmp_path, checkpoint, dict(how), generation_batch_size=10, **SHORT)
    first.train()
    assert calls == [10, 10, 4]  # one for each of 24 rows
    for number, (prompt, completion) in first.baseline._samples.items():
        assert completion == [70 + len(prompt) % 5, 2]
        assert first.processing_class.decode(prompt) == f"Film {number}:"
    (file,) = (tmp_path / "ours" / "prefalign_cache" / "baseline").iterdir()
    assert len(json.loads(file.read_text("utf-8"))["completions"]) == 24
    again = ours(tmp_path, checkpoint, dict(how), generation_batch_size=10, **SHORT)
    again.train()
    assert calls == [10, 10, 4]
    assert history(again) == history(first)
    other = ours(tmp_path, checkpoint, dict(how), generation_batch_size=10, seed=7, **SHORT)
    other.train()
    assert len(calls) == 6


def test_sampling_that_was_stopped_goes_on_with_the_next_call(tmp_path, checkpoint):
    asked, stop = [], [1]

    def generator(model, request):
        if len(asked) in stop:
            raise KeyboardInterrupt
        asked.append((request.seed, request.prompts))
        return [[70 + len(asked), 2] for _ in request.prompts]

    def run():
        how = {"loss": SAMPLES, "generator": generator}
        trainer = ours(tmp_path, checkpoint, how, generation_batch_size=10, **SHORT)
        trainer.train()
        return trainer.baseline._samples

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run()
        stop[0] += 1
    stop.clear()
    samples = run()
    assert [len(prompts) for _, prompts in asked] == [10, 10, 4]
    assert len({seed for seed, _ in asked}) == 3
    for call, (_, prompts) in enumerate(asked, 1):
        assert all((list(prompt), [70 + call, 2]) in samples.values() for prompt in prompts)
    (kept,) = (tmp_path / "ours" / "prefalign_cache" / "baseline").iterdir()
    assert kept.suffix == ".json"


def test_samples_are_the_references_and_not_the_policys(tmp_path, checkpoint):
    trainer = ours(
        tmp_path, checkpoint, {"loss": SAMPLES, "peft_config": lora()}, temperature=0.0, max_new_tokens=5, max_steps=3
    )
    with torch.no_grad():  # an adapter that says something else
        for name, value in trainer.model.named_parameters():
            if "lora_B" in name:
                value.normal_(std=5.0)
    trainer._check_start = lambda *_: None  # which would say so
    trainer.train()
    prompt, completion = trainer.baseline._samples[0]
    model = trainer.accelerator.unwrap_model(trainer.model)
    with model.disable_adapter(), torch.no_grad():
        ids = list(prompt)
        for _ in completion:
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    assert completion == ids[len(prompt) :]


def test_an_empty_sample_is_the_end_token_alone(tmp_path, checkpoint):
    trainer = ours(
        tmp_path,
        checkpoint,
        {"loss": SAMPLES, "generator": lambda model, r: [[] if i % 2 else [80, 2] for i in range(len(r.prompts))]},
        **SHORT,
    )
    trainer.train()
    assert {tuple(completion) for _, completion in trainer.baseline._samples.values()} == {(80, 2), (2,)}


def test_an_evaluation_has_the_term_too(tmp_path, checkpoint):
    for loss, more in ((OTHER, {"sft_dataset": BOOKS}), (SAMPLES, {})):
        options = SHORT if loss == SAMPLES else {"max_steps": 2}
        trainer = ours(tmp_path, checkpoint, {"loss": loss, "eval_dataset": tiny_pairs(6), **more}, **options)
        first, second = trainer.evaluate(), trainer.evaluate()
        assert first["eval_loss/sft"] == second["eval_loss/sft"] > 0


def test_eta_zero_is_dpo(tmp_path, checkpoint):
    dpo = ours(tmp_path / "a", checkpoint, {"loss": "dpo(beta=0.1)"}, max_steps=3)
    rpo = ours(tmp_path / "b", checkpoint, {"loss": "rpo(beta=0.1, eta='linear(0, 0)', reduction='sum')"}, max_steps=3)
    dpo.train(), rpo.train()
    assert all(torch.equal(value, weights(dpo)[name]) for name, value in weights(rpo).items())


@pytest.mark.parametrize(
    ("trainer", "options", "said"),
    [
        ({"loss": OTHER}, {}, "needs one data set"),
        ({"loss": OTHER, "sft_dataset": BOOKS}, {"sft_dataset_name": "books.jsonl"}, "got both"),
        ({"loss": "dpo(beta=0.1)", "sft_dataset": BOOKS}, {}, "`sft_dataset` would have no effect"),
        ({"loss": "dpo(beta=0.1)"}, {"sft_dataset_name": "books.jsonl"}, "`sft_dataset_name` would have no effect"),
        ({"loss": OTHER}, {"sft_dataset_name": "no/such/books.jsonl"}, "books.jsonl"),
        ({"loss": OTHER, "sft_dataset": BOOKS.remove_columns("completion")}, {}, "Pairs need the columns"),
        ({"loss": OTHER, "sft_dataset": iter([])}, {}, "of known length"),
        ({"loss": SAMPLES, "reference": "moving_average(alpha=0.6, every=2)"}, {}, "changes during training"),
        ({"loss": "simpo(beta=2.0, gamma=1.0) + sft(sum, reference)"}, {}, "is none"),
        ({"loss": SAMPLES}, {"precompute_ref_log_probs": True}, "lets the reference go"),
        ({"loss": "dpo(beta=0.1)"}, {"max_new_tokens": 4}, "would have no effect"),
        ({"loss": "dpo(.1) + sft(sum, reference) + sft(sum, sft_dataset)"}, {}, "must have one baseline"),
    ],
)
def test_what_cannot_be_is_one_error_before_weights_load(tmp_path, monkeypatch, checkpoint, trainer, options, said):
    monkeypatch.setattr("trl.DPOTrainer.__init__", lambda *args, **kwargs: pytest.fail("weights were loaded"))
    with pytest.raises(PrefalignError, match=said):
        ours(tmp_path, checkpoint, trainer, **options)


def test_an_sft_data_set_with_an_empty_completion_is_refused_with_its_row(tmp_path, checkpoint):
    rows = BOOKS.to_dict()
    rows["completion"][3] = " "
    with pytest.raises(DataError, match=r"1 of 7 rows .* empty_completion \(first in row 3\)"):
        ours(tmp_path, checkpoint, {"loss": OTHER, "sft_dataset": Dataset.from_dict(rows)})


def test_the_option_reads_a_file(tmp_path, checkpoint):
    BOOKS.to_json(tmp_path / "books.jsonl")
    trainer = ours(tmp_path, checkpoint, {"loss": OTHER}, sft_dataset_name=str(tmp_path / "books.jsonl"))
    assert len(trainer.baseline._rows) == 7
    assert trainer.data_reports["sft_dataset"].rows == 7
    assert trainer.objective.loss == RPO(0.1, 0.5, "sum", "sft_dataset")
    assert trainer.objective.loss.terms[1][1] == SFT("sum", "sft_dataset")
