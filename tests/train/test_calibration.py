"""The factor of a calibrated loss, against norms that are measured here."""

from __future__ import annotations

import math

import pytest
import torch

from prefalign import PrefalignError
from prefalign.losses import DPO
from tests.tiny import save_tiny
from tests.train.runs import history, lora, ours, weights


@pytest.fixture(scope="module")
def untied(tmp_path_factory):
    return str(save_tiny(tmp_path_factory.mktemp("untied"), tie_word_embeddings=False))


def sums(trainer, batch):
    """log pi(w) and log pi(l), with their graph."""
    logits = trainer.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    logps = logits[:, :-1].log_softmax(-1).gather(2, batch["input_ids"][:, 1:, None])[..., 0]
    return (logps * batch["completion_mask"][:, 1:]).sum(1).chunk(2)


def norm(value, parameters):
    return math.sqrt(sum(float((g**2).sum()) for g in torch.autograd.grad(value, parameters, retain_graph=True)))


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("peft", [None, lora()], ids=["head", "adapter"])
def test_the_factor_and_the_gradient_are_the_papers(shared, peft, untied, tmp_path):
    loss = "calibrated(dpo(beta=0.5), decay=0.5)"
    trainer = ours(tmp_path, untied, {"peft_config": peft}, loss=loss, shared_prefix=shared)
    trainer.model.train()
    trainer._check_start = lambda *_: None
    batches = [dict(batch) for batch, _ in zip(trainer.get_train_dataloader(), range(2), strict=False)]
    if peft is None:
        parameters = [trainer.model.lm_head.weight]
    else:
        torch.manual_seed(0)
        for name, parameter in trainer.model.named_parameters():
            if "lora_B" in name:  # zero at the start, where the other half would have no gradient
                parameter.data += 0.1 * torch.randn_like(parameter)
        parameters = [p for name, p in trainer.model.named_parameters() if p.requires_grad and ".layers.1." in name]
    log = None
    for batch in batches:
        chosen, rejected = sums(trainer, batch)
        now = math.log(norm(rejected.mean(), parameters) / norm(chosen.mean(), parameters))
        log = now if log is None else 0.5 * log + 0.5 * now
        trainer.model.zero_grad()
        value = trainer.compute_loss(trainer.model, batch)
        value.backward()
        factor = trainer._metrics["train"]["calibration"][-1]
        assert factor == pytest.approx(math.exp(log / 2), rel=1e-4)  # DPO's own incentives are equal
        assert abs(log) > 1e-3
    # The gradient: both sides of DPO's, with the factor and its inverse.
    ref = [trainer._put_reference(dict(batch))] and dict(batch)
    trainer._put_reference(ref)
    margin = (chosen - ref["ref_chosen_logps"]) - (rejected - ref["ref_rejected_logps"])
    weight = -(0.5 * torch.sigmoid(-0.5 * margin)).detach() / len(margin)
    expected = torch.autograd.grad((weight * (factor * chosen - rejected / factor)).sum(), parameters)
    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5)
    assert value.item() == pytest.approx(float(-torch.nn.functional.logsigmoid(0.5 * margin.detach()).mean()), rel=1e-5)


def test_a_resumed_run_goes_on_with_the_running_means(checkpoint, tmp_path):
    options = {"loss": "calibrated(dpo(beta=0.1))", "save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    whole = ours(tmp_path / "a", checkpoint, **options)
    whole.train()
    again = ours(tmp_path / "a", checkpoint, **options)
    again.train(str(tmp_path / "a" / "ours" / "checkpoint-2"))
    assert again.calibration.logs == whole.calibration.logs
    assert history(again)[2]["calibration"] == history(whole)[2]["calibration"]
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(whole).items())


def test_it_trains_otherwise_than_its_loss_and_evaluates_alike(checkpoint, tmp_path):
    runs = [ours(tmp_path, checkpoint, loss=loss, max_steps=3) for loss in ("calibrated(dpo(beta=0.1))", DPO(beta=0.1))]
    first = [run.evaluate(run.train_dataset)["eval_loss"] for run in runs]
    assert first[0] == first[1]
    for run in runs:
        run.train()
    losses = [[entry["loss"] for entry in history(run) if "loss" in entry] for run in runs]
    assert losses[0][0] == losses[1][0]
    assert losses[0][2] != losses[1][2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "calibrated(dpo(beta=0.1)) + calibrated(ipo(beta=0.1))"}, "one calibrated term"),
        ({"loss": "calibrated(dpo(beta=0.1))", "tokens_per_batch": 100}, "couples the pairs"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(options, message, checkpoint, tmp_path):
    with pytest.raises(PrefalignError, match=message):
        ours(tmp_path, checkpoint, **options)
