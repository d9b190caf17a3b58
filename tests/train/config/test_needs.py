"""What is not installed, or not measured, is said before weights load."""

from __future__ import annotations

import pytest
from datasets import DatasetDict

from prefalign._errors import PrefalignError
from tests.tiny import save_tiny, tiny_pairs, tiny_tokenizer
from tests.train.runs import ours

EVALUATED = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}


@pytest.mark.parametrize(
    ("options", "arguments", "said"),
    [
        ({"report_to": "wandb"}, {}, "needs the package 'wandb'"),
        ({"optim": "adamw_bnb_8bit"}, {}, "needs the package 'bitsandbytes'"),
        ({"optim": "galore_adamw"}, {}, "`pip install galore-torch`"),
        ({"load_best_model_at_end": True}, {}, "nothing is evaluated"),
        (
            {**EVALUATED, "load_best_model_at_end": True, "metric_for_best_model": "rewards/margin"},
            {"eval_dataset": tiny_pairs(4)},
            r"is no metric of the evaluation\. Did you mean `eval_rewards/margins`",
        ),
        (
            {**EVALUATED, "load_best_model_at_end": True, "metric_for_best_model": "eval_loss"},
            {"eval_dataset": {"clean": tiny_pairs(4), "noisy": tiny_pairs(4)}},
            "the sets are clean, noisy",
        ),
        ({}, {"train_dataset": DatasetDict({"train": tiny_pairs(4), "test": tiny_pairs(4)})}, r"data\['train'\]"),
    ],
)
def test_it_is_one_error_before_weights_load(options, arguments, said, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.PreTrainedModel.from_pretrained", lambda *_, **__: pytest.fail("weights loaded"))
    with pytest.raises(PrefalignError, match=said):
        ours(tmp_path, checkpoint, arguments, loss="dpo(beta=0.1)", **options)


def test_a_token_without_an_embedding_is_named(tmp_path, monkeypatch):
    folder = save_tiny(tmp_path / "model")
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|tool|>"]})
    tokenizer.save_pretrained(folder)
    monkeypatch.setattr("transformers.PreTrainedModel.from_pretrained", lambda *_, **__: pytest.fail("weights loaded"))
    with pytest.raises(PrefalignError, match=r"'<\|tool\|>' is number 259, and the model has 259 rows"):
        ours(tmp_path, str(folder), loss="dpo(beta=0.1)")
