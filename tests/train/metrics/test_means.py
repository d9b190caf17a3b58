"""What is logged is a mean over pairs, however they are divided into batches and data sets."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from prefalign.diagnose import read_run
from tests.tiny import save_tiny, tiny_pairs
from tests.train.runs import history, ours

BETA = 0.1


def logp(model, tokenizer, prompt, completion):
    """The summed log-probability of a completion with its end, token by token, in nats."""
    start = tokenizer(prompt)["input_ids"]
    ids = torch.tensor([[*start, *tokenizer(completion)["input_ids"], tokenizer.eos_token_id]])
    with torch.no_grad():
        scores = model(ids).logits[0].double().log_softmax(-1)
    return sum(float(scores[place - 1, ids[0, place]]) for place in range(len(start), ids.shape[1]))


def rewards(folder, other, pairs):
    """The reward of each pair's two completions: beta times the log-ratio of two models."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    mine, theirs = (AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64) for path in (folder, other))
    return [
        tuple(
            BETA * (logp(mine, tokenizer, row["prompt"], row[side]) - logp(theirs, tokenizer, row["prompt"], row[side]))
            for side in ("chosen", "rejected")
        )
        for row in pairs
    ]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return str(save_tiny(folder / "policy", seed=1)), str(save_tiny(folder / "other", seed=2))


@pytest.mark.parametrize("options", [{}, {"tokens_per_batch": 60}], ids=["pairs", "tokens"])
def test_five_pairs_in_batches_of_four_count_alike(models, tmp_path, options):
    pairs = tiny_pairs(5)
    trainer = ours(
        tmp_path,
        models[0],
        {"eval_dataset": pairs, "reference": f"checkpoint('{models[1]}')"},
        loss=f"dpo(beta={BETA})",
        **options,
    )
    found = trainer.evaluate()
    by_hand = rewards(*models, pairs)
    margins = [chosen - rejected for chosen, rejected in by_hand]
    assert found["eval_rewards/margins"] == pytest.approx(sum(margins) / 5, abs=1e-5)
    assert found["eval_rewards/accuracies"] == pytest.approx(sum(margin > 0 for margin in margins) / 5)
    assert found["eval_rewards/chosen"] == pytest.approx(sum(chosen for chosen, _ in by_hand) / 5, abs=1e-5)


def test_each_evaluation_set_has_metrics_of_its_own(models, tmp_path):
    clean = tiny_pairs(5)
    swapped = clean.rename_columns({"chosen": "rejected", "rejected": "chosen"})
    trainer = ours(
        tmp_path,
        models[0],
        {"eval_dataset": {"clean": clean, "swapped": swapped}, "reference": f"checkpoint('{models[1]}')"},
        loss=f"dpo(beta={BETA})",
        eval_strategy="steps",
        eval_steps=1,
        max_steps=2,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_clean_rewards/margins",
        learning_rate=0.0,
    )
    trainer.train()
    by_hand = rewards(*models, clean)
    margin = sum(chosen - rejected for chosen, rejected in by_hand) / 5
    logged = [entry for entry in history(trainer) if any(key.startswith("eval_") for key in entry)]
    merged = {key: value for entry in logged for key, value in entry.items()}
    assert merged["eval_clean_rewards/margins"] == pytest.approx(margin, abs=1e-5)
    assert merged["eval_swapped_rewards/margins"] == pytest.approx(-margin, abs=1e-5)
    assert not [key for key in merged if key.startswith("eval_rewards")]
    assert trainer.state.best_metric == pytest.approx(margin, abs=1e-5)
    found = trainer.evaluate()
    assert found["eval_clean_rewards/margins"] == pytest.approx(-found["eval_swapped_rewards/margins"], abs=1e-6)
    run = read_run(tmp_path / "ours" / "checkpoint-2")
    assert run.evaluation["rewards/margins"].values[-1] == pytest.approx(margin, abs=1e-5)
    assert run.evaluation["swapped_rewards/margins"].values[-1] == pytest.approx(-margin, abs=1e-5)
    assert any("said of `clean`, and not of `swapped`" in note for note in run.notes)
