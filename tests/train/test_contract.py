"""What the seam knows of TRL's insides. If one of these fails with a new TRL, read trl's changes before allowing it."""

from __future__ import annotations

import inspect
import re

import pytest
import torch
import trl
from trl import DPOConfig, DPOTrainer
from trl.trainer import dpo_trainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from prefalign.losses import from_trl
from prefalign.train._trl import REFERENCE_KEYS
from prefalign.train.config._checks import REMOVED
from tests.train.runs import ours, theirs

# The loss types of the supported minor; `TRL_TYPES` is read off its code.
TYPES = {
    *("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired"),
    *("apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"),
}


def test_the_minor_is_the_one_that_was_read():
    assert trl.__version__.split(".")[:2] == ["1", "16"]


def test_every_loss_type_of_trl_is_ours():
    source = inspect.getsource(DPOTrainer._compute_loss)
    found = set(re.findall(r'loss_type == "(\w+)"', source))
    assert found == TYPES
    for name in found:
        from_trl(name, label_smoothing=0.01 if name in ("robust", "exo_pair") else 0.0)


def test_compute_loss_has_the_signature_that_is_overridden():
    names = ["self", "model", "inputs", "return_outputs", "num_items_in_batch"]
    assert list(inspect.signature(DPOTrainer.compute_loss).parameters) == names
    assert list(inspect.signature(DPOTrainer._compute_loss).parameters) == names[:-1]
    assert list(inspect.signature(DPOTrainer.compute_ref_log_probs).parameters) == ["self", "model", "inputs"]


def test_the_constructor_takes_what_is_passed_on():
    theirs_ = set(inspect.signature(DPOTrainer.__init__).parameters)
    from prefalign.train import PrefTrainer

    assert theirs_ <= set(inspect.signature(PrefTrainer.__init__).parameters)


def test_removed_options_are_really_gone():
    fields = set(DPOConfig.__dataclass_fields__)
    arguments = set(inspect.signature(DPOTrainer.__init__).parameters)
    assert not set(REMOVED) & (fields | arguments)


def test_the_collator_takes_reference_log_probabilities_under_these_names():
    row = {"prompt_ids": [1, 2], "chosen_ids": [3], "rejected_ids": [4, 5]}
    batch = DataCollatorForPreference(pad_token_id=0)([row | dict.fromkeys(REFERENCE_KEYS, -1.0)])
    assert set(REFERENCE_KEYS) < set(batch)
    assert batch["completion_mask"].tolist() == [[0, 0, 1, 0], [0, 0, 1, 1]]  # chosen rows first


@pytest.fixture(scope="module")
def trainer(checkpoint, tmp_path_factory):
    return theirs(tmp_path_factory.mktemp("contract"), checkpoint, max_steps=1)


def test_the_private_attributes_exist_with_their_types(trainer):
    assert isinstance(trainer.loss_types, list)
    assert isinstance(trainer.loss_weights, list)
    assert trainer.precompute_ref_logps is False
    assert isinstance(trainer.beta, float)
    assert set(trainer._metrics) == {"train", "eval"}
    trainer._set_signature_columns_if_needed()
    assert "prompt_ids" in trainer._signature_columns


def test_the_fused_head_returns_float32_token_log_probabilities(trainer):
    batch = trainer.data_collator([trainer.train_dataset[0]])
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    out = trainer.model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels, fused_lm_head=True
    )
    assert out.log_probs.dtype == torch.float32
    assert out.log_probs.shape == (2, batch["input_ids"].size(1) - 1)
    assert (out.log_probs[batch["completion_mask"][:, 1:] == 0] == 0).all()


def test_within_the_seam_trl_adds_up_nothing_and_runs_no_reference(checkpoint, tmp_path, monkeypatch):
    seen = []
    original = DPOTrainer._compute_loss

    def spy(self, model, inputs, return_outputs):
        result = original(self, model, inputs, return_outputs)
        seen.append((list(self.loss_types), self.precompute_ref_logps, result))
        return result

    monkeypatch.setattr(dpo_trainer.DPOTrainer, "_compute_loss", spy)
    mine = ours(tmp_path, checkpoint, loss_type=["sigmoid", "sft"], max_steps=2)
    mine.train()
    assert seen == [([], True, 0.0)] * 2
    assert mine.loss_types == ["sigmoid", "sft"]
    assert mine.precompute_ref_logps is False
