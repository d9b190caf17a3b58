"""Two processes; the command line; and the experiment in miniature, in which what the paper saw must appear."""

from __future__ import annotations

import importlib.util
import json
import random
from pathlib import Path

import pytest
import torch
import yaml

from prefalign.train import RUN_FILE
from tests.tiny import tiny_model, tiny_pairs, tiny_tokenizer
from tests.train.distributed_seppo import CASES
from tests.train.test_distributed import ROOT, launch

WORDS = ("good", "bad", "fine", "dull")


@pytest.mark.slow
def test_two_processes_draw_alike_generate_apart_and_resume(checkpoint, tmp_path):
    run = launch(str(ROOT / "tests" / "train" / "distributed_seppo.py"), str(tmp_path), checkpoint)
    assert run.returncode == 0, run.stderr[-4000:]
    for case in CASES:
        both = [json.loads((tmp_path / f"{case}-{rank}.json").read_text()) for rank in range(2)]
        first, second = (seen["batches"] for seen in both)
        assert [row[:2] for row in first] == [row[:2] for row in second]
        assert all(mine[2] != theirs[2] for mine, theirs in zip(first, second, strict=True))
        for seen in both:
            assert seen["same"]
            assert seen["resumed"] == seen["batches"][3:]
        assert [row["reference/staleness"] for row in both[0]["history"] if "loss" in row][:5] == [0, 1, 2, 3, 0]


@pytest.mark.slow
def test_the_command_line_trains_on_winners(checkpoint, tmp_path):
    tiny_pairs(8).remove_columns("rejected").rename_column("chosen", "completion").to_json(tmp_path / "winners.jsonl")
    config = {
        "model_name_or_path": checkpoint,
        "dataset_name": str(tmp_path / "winners.jsonl"),
        "output_dir": str(tmp_path / "run"),
        "loss": "seppo(beta=0.1)",
        "reference": "past(keep=7, every=30)",
        "max_new_tokens": 4,
        "max_steps": 2,
        "use_cpu": True,
        "report_to": "none",
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    run = launch("-m", "prefalign", "train", "--config", str(tmp_path / "config.yaml"), "--temperature", "0.7")
    assert run.returncode == 0, run.stderr[-4000:]
    record = json.loads((tmp_path / "run" / RUN_FILE).read_text())
    assert record["reference"]["expression"] == "past(keep=7, every=30, choose='random', redraw='round', seed=0)"
    assert record["data"]["train"]["layout"] == "winners"


def text(draw: random.Random) -> str:
    return " " + " ".join(draw.choice(WORDS) for _ in range(3))


def gold(completion: str) -> int:
    return sum(completion.count(word) * (1 if word in ("good", "fine") else -1) for word in WORDS)


def pretrained(folder: Path) -> Path:
    """A tiny model that has learnt to say three of four words, each as likely as the others."""
    torch.manual_seed(0)
    draw, tokenizer = random.Random(0), tiny_tokenizer()
    model = tiny_model(hidden_size=48, intermediate_size=96, num_attention_heads=4, num_key_value_heads=4)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(400):
        prompts = [f"F{draw.randrange(1000):03d}:" for _ in range(32)]
        rows = [tokenizer(prompt + text(draw) + "<|im_end|>")["input_ids"] for prompt in prompts]
        width = max(map(len, rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        mask = (ids != 0).long()
        model(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_data(folder: Path) -> None:
    draw = random.Random(1)
    for split, numbers in (("train", range(128)), ("heldout", range(128, 160))):
        lines = []
        for number in numbers:
            four = sorted((text(draw) for _ in range(4)), key=gold)
            row = {"prompt": f"F{number:03d}:", "chosen": four[-1], "rejected": four[0], "gold_chosen": gold(four[-1])}
            lines.append(json.dumps(row) + "\n" if four[0] != four[-1] else "")
        (folder / f"reviews_{split}.jsonl").write_text("".join(lines))


@pytest.mark.slow
def test_the_experiment_in_miniature(tmp_path, capsys):
    """Winners are the best of four; without the flipper their held-out log-probability collapses, with it it rises."""
    pytest.importorskip("vaderSentiment")
    spec = importlib.util.spec_from_file_location("seppo_experiment", ROOT / "examples" / "seppo_experiment.py")
    experiment = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(experiment)
    write_data(tmp_path)
    words = ["--model", str(pretrained(tmp_path / "base")), "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    words += ["--seeds", "1", "--learning_rate", "1e-2"]
    experiment.main(words)
    found = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("out/*/*/result.json")}
    assert len(found) == 6
    start = found["sft-0"]["start"]
    fall = start - found["none-random-0"]["lowest"]
    assert fall > 4
    for arm in ("sign-random-0", "indicator-random-0", "sign-initial-0", "sign-latest-0"):
        assert found[arm]["end"] > start - 0.2, arm
        assert 0 < found[arm]["flip rate"] < 1, arm
    assert abs(found["sign-random-0"]["end"] - found["indicator-random-0"]["end"]) < 0.1 * fall
    table = capsys.readouterr().out.split("mean (deviation)")[-1]
    experiment.main(words)  # everything is there: nothing is trained
    assert capsys.readouterr().out.split("mean (deviation)")[-1] == table
