"""DITTO: demonstrations over samples of the latest and of earlier snapshots, and later samples over earlier ones."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import chisquare

from prefalign._errors import CheckpointError
from prefalign.references import Ditto, parse_reference
from prefalign.references.past._snapshots import Snapshots
from prefalign.train import TransformersGenerator
from tests.references.past.test_past import host, steps
from tests.tiny import tiny_tokenizer
from tests.train.runs import history, lora, weights
from tests.train.self_play import fingerprint, run, winners

MIXED = {
    "loss": "seppo(beta=0.1, flipper=none)",
    "reference": "ditto(keep=3, every=2, mix=[0.4, 0.3, 0.3])",
    "max_steps": 8,
    "num_train_epochs": 4,
}


class Numbered:
    """Generates a text that names the snapshot it came from, and notes the weights that generated."""

    def __init__(self):
        self.seen = []

    def __call__(self, model, request):
        self.seen.append((request.version, fingerprint(model), len(request.prompts)))
        return [[65 + request.version, 2] for _ in request.prompts]


def completions(batch):
    """(winner, loser) of each pair: the step of the snapshot that made it, or None for the data's own.

    What `Numbered` makes is one token, behind the colon that every prompt ends with.
    """
    ends = [[token for token in row if token][-3:] for row in batch]
    colon = tiny_tokenizer()(":")["input_ids"][0]
    found = [token - 65 if (before, end) == (colon, 2) else None for before, token, end in ends]
    half = len(found) // 2
    return list(zip(found[:half], found[half:], strict=True))


@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
def test_the_start_scores_and_the_snapshots_generate(checkpoint, tmp_path, adapter):
    """Every kind of pair appears, each completion made by the weights that the policy had at the step it names."""
    generator = Numbered()
    trainer, spy = run(
        tmp_path, checkpoint, trainer={"generator": generator, **({"peft_config": lora()} if adapter else {})}, **MIXED
    )
    trainer.train()
    assert all(version == 0 and scorer == spy.policy[0] for _, version, scorer in spy.scored)
    assert all(made_by == spy.policy[version] for version, made_by, _ in generator.seen)
    kinds = set()
    for step, batch in zip((step for step, *_ in spy.scored), spy.batches, strict=True):
        latest = step - step % 2
        for winner, loser in completions(batch):
            sampled = range(max(0, latest - 4), latest + 1, 2)
            assert winner is None or winner in sampled
            assert loser in sampled
            assert winner is None or loser < winner
            assert step >= 2 or (winner, loser) == (None, 0)
            kinds.add("inter-model" if winner is not None else "expert" if loser == latest else "replay")
    assert kinds == {"expert", "replay", "inter-model"}
    shares = [row["generated/winners"] for row in history(trainer) if "generated/winners" in row]
    assert shares[:2] == [0, 0]
    assert max(shares) > 0


def test_the_kinds_of_pairs_have_their_shares(tmp_path):
    ditto = Ditto(keep=4, every=1, mix=[0.5, 0.3, 0.2], seed=3)
    trainer = host(tmp_path)
    ditto.setup(trainer)
    assert steps(ditto, trainer, 0, 7) == [0] * 7  # the start scores in every step
    assert Snapshots(tmp_path / "prefalign_past").steps == [0, 3, 4, 5, 6]
    casts = ditto.casts(3000, 11)
    counts = [
        sum(winner is None and loser == 6 for winner, loser in casts),
        sum(winner is None and loser < 6 for winner, loser in casts),
        sum(winner is not None for winner, _ in casts),
    ]
    assert chisquare(counts, [1500, 900, 600]).pvalue > 0.01
    replayed = [loser for winner, loser in casts if winner is None and loser != 6]
    assert chisquare([replayed.count(step) for step in (3, 4, 5)]).pvalue > 0.01  # not the start, which only scores
    # The ranking D_E >= D_6 >= D_5 >= D_4 >= D_3: every later snapshot above every earlier one.
    ranked = [(4, 3), (5, 3), (5, 4), (6, 3), (6, 4), (6, 5)]
    assert chisquare([casts.count(pair) for pair in ranked]).pvalue > 0.01
    assert sum(casts.count(pair) for pair in ranked) == counts[2]
    assert sum(counts) == 3000
    assert ditto.casts(9, 1) == ditto.casts(9, 1) != ditto.casts(9, 2)
    assert int(trainer.ref_model.weight.item()) == 0
    with ditto.at(5):
        assert int(trainer.ref_model.weight.item()) == 5
    assert int(trainer.ref_model.weight.item()) == 0


def test_a_resumed_run_repeats_the_uninterrupted_one(checkpoint, tmp_path):
    """Saved in the middle of a round and of what was generated ahead."""
    options = {**MIXED, "save_strategy": "steps", "save_steps": 5, "generate_ahead": 4}
    whole, before = run(tmp_path / "whole", checkpoint, trainer={"generator": TransformersGenerator()}, **options)
    whole.train()
    resumed, after = run(tmp_path / "resumed", checkpoint, trainer={"generator": TransformersGenerator()}, **options)
    resumed.train(str(tmp_path / "whole" / "ours" / "checkpoint-5"))
    assert after.batches == before.batches[5:]
    assert all(torch.equal(value, weights(resumed)[name]) for name, value in weights(whole).items())


def test_held_out_winners_stay_the_datas_own(checkpoint, tmp_path):
    trainer, spy = run(tmp_path, checkpoint, trainer={"eval_dataset": winners(4)}, **{**MIXED, "max_steps": 4})
    trainer.train()
    first = trainer.evaluate()["eval_logps/chosen"]
    chosen = [row for batch in spy.batches[-1:] for row in batch[: len(batch) // 2]]
    texts = [trainer.processing_class.decode([t for t in row if t], skip_special_tokens=True) for row in chosen]
    assert sorted(texts) == sorted(row["prompt"] + row["chosen"] for row in winners(4).to_list())
    assert trainer.evaluate()["eval_logps/chosen"] == first


@pytest.mark.parametrize(
    "options", [{"keep": 1}, {"every": 0}, {"seed": -1}, {"mix": [1, 1, 1]}, {"mix": [0.5, 0.5]}, {"mix": "a"}]
)
def test_what_is_out_of_range_is_refused(options):
    with pytest.raises(CheckpointError, match=f"`{next(iter(options))}` must be"):
        Ditto(**options)


def test_the_expression_is_read_back():
    ditto = Ditto(keep=3, every=5, mix=[0.6, 0.4, 0.0], seed=7)
    assert parse_reference(ditto.expression) == ditto
    assert parse_reference("ditto(every=10)") == Ditto(every=10)
    assert parse_reference("ditto(every=10)").mix == (0.7, 0.2, 0.1)
