"""The losses on single tokens in the trainer: what it gives them, and that no way of computing changes them."""

from __future__ import annotations

import pytest
import torch

from prefalign import PrefalignError
from prefalign.losses import TDPO, PairLogps, TokenLogps
from tests.tiny import tiny_pairs
from tests.train.runs import history, lora, ours

LOSSES = ["ld(dpo(beta=0.1), alpha=0.5)", "sampo(dpo(beta=0.1), seed=1)", "wpo(dpo(beta=0.1))", "tdpo(beta=0.5)"]
# Rounding of float32 on both sides, over a few steps.
NEAR = {"rtol": 1e-4, "atol": 1e-5}


def losses(trainer) -> list[float]:
    trainer.train()
    return [entry["loss"] for entry in history(trainer) if "loss" in entry]


def disturbed(trainer):
    """The trainer with a policy that is no longer its reference, and its first batch."""
    torch.manual_seed(5)
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn_like(parameter)
    trainer._check_start = lambda *_: None  # it would say, rightly, that the policy has changed
    trainer.model.train()
    return dict(next(iter(trainer.get_train_dataloader())))


def log_probs(model, batch):
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return logits[:, :-1].float().log_softmax(-1)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("peft", [None, lora()], ids=["full", "lora"])
def test_tdpo_sees_the_divergence_of_the_whole_distributions(shared, peft, checkpoint, tmp_path):
    trainer = ours(tmp_path, checkpoint, {"peft_config": peft}, loss="tdpo(beta=0.5, alpha=0.7)", shared_prefix=shared)
    batch = disturbed(trainer)
    found = trainer.compute_loss(trainer.model, batch)
    found.backward()
    parameters = [p for p in trainer.model.parameters() if p.requires_grad]
    gradients = [p.grad.clone() for p in parameters]

    mask = batch["completion_mask"][:, 1:]
    policy = log_probs(trainer.model, batch)
    with torch.no_grad():
        if peft is None:
            reference = log_probs(trainer.ref_model, batch)
        else:
            with trainer.model.disable_adapter():
                reference = log_probs(trainer.model, batch)
    kl = (reference.exp() * (reference - policy)).sum(-1) * mask
    assert kl.detach().sum() > 0.01
    labels = batch["input_ids"][:, 1:, None]
    ours_, theirs = (each.gather(2, labels)[..., 0] * mask for each in (policy, reference))
    sums = [half for each in (ours_, theirs) for half in each.sum(1).chunk(2)]
    single = TokenLogps(ours_, mask, theirs, None, kl)
    direct = TDPO(beta=0.5, alpha=0.7)(PairLogps(*sums, single=single)).mean()
    torch.testing.assert_close(found.detach(), direct.detach(), rtol=1e-5, atol=1e-6)
    for mine, expected in zip(gradients, torch.autograd.grad(direct, parameters), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_shared_prefix_the_cache_and_token_batches_leave_a_loss_as_it_is(loss, checkpoint, tmp_path):
    plain = losses(ours(tmp_path, checkpoint, loss=loss, max_steps=4))
    assert len(set(plain)) == 4
    cache = "off" if "tdpo" in loss else "on"
    options = {"shared_prefix": True, "reference_cache": cache, "tokens_per_batch": 200}
    fast = ours(tmp_path, checkpoint, loss=loss, max_steps=4, **options)
    torch.testing.assert_close(torch.tensor(losses(fast)), torch.tensor(plain), **NEAR)
    assert fast.shared_prefix.active


@pytest.mark.parametrize("loss", LOSSES)
def test_steps_that_do_not_log_train_alike(loss, checkpoint, tmp_path):
    every = ours(tmp_path, checkpoint, loss=loss, max_steps=4, statistics="every_step")
    few = ours(tmp_path, checkpoint, loss=loss, max_steps=4, statistics="logged_steps", logging_steps=4)
    mean = sum(losses(every)) / 4
    assert losses(few)[0] == pytest.approx(mean, rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_an_evaluation_knows_single_tokens(loss, checkpoint, tmp_path):
    trainer = ours(tmp_path, checkpoint, {"eval_dataset": tiny_pairs(6)}, loss=loss)
    assert trainer.evaluate()["eval_loss"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "ld(dpo(beta=0.1), alpha=0.5)", "precompute_ref_log_probs": True}, "keeps sums alone"),
        ({"loss": "tdpo(beta=0.1)", "precompute_ref_log_probs": True}, "keeps sums alone"),
        ({"loss": "tdpo(beta=0.1)", "reference_cache": "on"}, "distribution over the vocabulary, which is not kept"),
        ({"loss": "wpo(tdpo(beta=0.1))"}, "cannot be trained together"),
        ({"loss": "dpo(beta=0.1)", "ld_alpha": 0.5}, "`ld_alpha=0.5` and `loss` were both given"),
        ({"loss": "dpo(beta=0.1)", "use_weighting": True}, "`use_weighting=True` and `loss` were both given"),
        ({"ld_alpha": 1.5}, "`alpha` must be"),
        ({"loss_type": "aot", "use_weighting": True}, "couples the pairs"),
    ],
)
def test_what_cannot_be_given_is_refused(options, message, checkpoint, tmp_path):
    with pytest.raises(PrefalignError, match=message):
        ours(tmp_path, checkpoint, **options)
