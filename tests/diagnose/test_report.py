"""The report: what it says of hand-made runs, and what it makes of damaged ones."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from prefalign._errors import DataError, PrefalignError
from prefalign.cli import main
from prefalign.diagnose import judge, read_run, read_samples, write_report, write_samples
from prefalign.losses import parse_loss


def _log(steps=20, **metrics):
    """Rows of a log; every metric goes evenly from its first number to its second."""
    return [
        {
            "step": step + 1,
            "epoch": 0.1,
            **{name.replace("__", "/"): a + (b - a) * step / (steps - 1) for name, (a, b) in metrics.items()},
        }
        for step in range(steps)
    ]


def _state(folder, history, step=20, max_steps=20):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "trainer_state.json").write_text(
        json.dumps({"global_step": step, "max_steps": max_steps, "log_history": history})
    )


def _run(tmp_path, *, expression="dpo(beta=0.1)", noise=None, beta=0.1, data=None, **metrics):
    _state(tmp_path / "checkpoint-20", _log(**metrics))
    record = {
        "loss": {"expression": expression, "formula": "-log sigmoid(0.1*(...))", "beta": beta},
        "reference": {"identity": "the policy as it starts"},
        "noise_rate": noise,
        "data": data or {},
        "versions": {"trl": "1.16.0"},
    }
    (tmp_path / "prefalign_run.json").write_text(json.dumps(record))
    return tmp_path


GOOD = {
    "loss": (0.69, 0.5),
    "rewards__margins": (0.0, 0.5),
    "rewards__accuracies": (0.5, 0.8),
    "logps__chosen_change": (0.0, 2.0),
    "logps__rejected_change": (0.0, -3.0),
    "displacement": (0.0, 0.2),
    "kl": (0.0, 0.03),
}


def _headlines(folder):
    return {remark.headline: remark for remark in judge(read_run(folder))}


def test_a_good_run_gets_no_warning(tmp_path):
    remarks = judge(read_run(_run(tmp_path, **GOOD)))
    assert {remark.level for remark in remarks} == {"good", "note"}
    assert all(not remark.remedy for remark in remarks)


@pytest.mark.parametrize(
    ("changes", "headline", "code"),
    [
        (
            {"displacement": (0, 0.9), "logps__chosen_change": (0, -8)},
            "The chosen completions became less likely (displacement).",
            "loss: dpo(beta=0.1) + 0.005*sft(reduction='sum')",
        ),
        (
            {
                "expression": "rpo(beta=0.5, eta=0.005, reduction='sum')",
                "displacement": (0, 0.9),
                "logps__chosen_change": (0, -8),
            },
            "The chosen completions became less likely (displacement).",
            "loss: rpo(beta=0.5, eta=0.05, reduction='sum')",
        ),
        (
            {"expression": "dpo(beta=0.5) + 0.01*sft(reduction='sum')", "noise": 0.3},
            "About 30% of the labels were flipped on purpose, and the loss takes every label for right.",
            "loss: robust(dpo(beta=0.5), flip_rate=0.3) + 0.01*sft(reduction='sum')",
        ),
        ({"kl": (0, 0.4)}, "The policy moved far from its reference.", "reference: soup(a, b)"),
        (
            {"noise": 0.3},
            "About 30% of the labels were flipped on purpose, and the loss takes every label for right.",
            "loss: robust(dpo(beta=0.1), flip_rate=0.3)",
        ),
        (
            {"data": {"train": {"rows": 9, "flip_rate": 0.2}}},
            "About 20% of the labels seem flipped, judging by repeated pairs, "
            "and the loss takes every label for right.",
            "loss: robust(dpo(beta=0.1), flip_rate=0.2)",
        ),
        (
            {"rewards__accuracies": (0.5, 1.0), "eval_rewards__accuracies": (0.5, 0.6)},
            "The training labels are being memorised.",
            "loss: robust(dpo(beta=0.1), flip_rate=0.1)",
        ),
        ({"rewards__margins": (0.0, 0.001)}, "The policy has hardly moved.", ""),
        ({"rewards__margins": (0.0, -0.4)}, "The policy learned the opposite of the labels.", ""),
    ],
)
def test_what_went_wrong_is_named_with_the_next_thing_to_try(tmp_path, changes, headline, code):
    remark = _headlines(_run(tmp_path, **{**GOOD, **changes}))[headline]
    assert remark.level in ("warn", "bad")
    assert remark.remedy
    assert remark.code == code
    if code.startswith("loss: "):
        parse_loss(code.removeprefix("loss: "))


def test_a_growing_margin_at_a_coins_accuracy_is_no_success(tmp_path):
    found = _headlines(_run(tmp_path, **{**GOOD, "rewards__accuracies": (0.4, 0.5)}))
    assert "The policy learned to prefer the chosen completions." not in found
    assert found["The reward margin grew, but hardly more pairs than half are told apart."].level == "note"


def test_a_robust_loss_needs_no_advice_about_noise_but_about_its_sign(tmp_path):
    found = _headlines(
        _run(tmp_path, expression="robust(dpo(beta=0.1), flip_rate=0.3)", noise=0.3, **{**GOOD, "loss": (0.69, -1.0)})
    )
    assert found["The robust loss is below zero."].level == "note"
    assert not any("takes every label for right" in headline for headline in found)


def test_a_small_gap_between_training_and_evaluation_is_no_memorising(tmp_path):
    run = _run(tmp_path, **{**GOOD, "rewards__accuracies": (0.5, 0.8)}, eval_rewards__accuracies=(0.5, 0.7))
    assert "The training labels are being memorised." not in _headlines(run)


def test_evaluation_is_believed_before_training(tmp_path):
    run = _run(tmp_path, **GOOD, eval_kl=(0.0, 0.5), eval_displacement=(0.0, 0.1))
    assert "The policy moved far from its reference." in _headlines(run)


@pytest.mark.parametrize(
    ("shift", "level", "headline"),
    [
        (0.5, "good", "The gold reward rose, by more than its noise."),
        (-0.5, "bad", "The gold reward fell."),
        (0.0, "note", "The gold reward did not change by more than its noise."),
    ],
)
def test_the_gold_reward_comes_first_with_its_interval(tmp_path, shift, level, headline):
    random = np.random.default_rng(0)
    before = random.normal(size=40)
    write_samples(
        _run(tmp_path, **GOOD),
        [f"p{i}" for i in range(40)],
        ["b"] * 40,
        ["a"] * 40,
        before,
        before + shift + random.normal(0, 0.2, 40),
    )
    first = judge(read_run(tmp_path))[0]
    assert (first.level, first.headline) == (level, headline)


def test_a_stopped_run_says_so(tmp_path):
    _state(tmp_path / "checkpoint-5", _log(5, loss=(0.7, 0.6)), step=5, max_steps=20)
    assert "The log ends at step 5 of 20." in _headlines(tmp_path)


def test_an_unknown_loss_still_gets_a_suggestion_that_parses(tmp_path):
    run = _run(
        tmp_path, expression="my.own(loss)", **{**GOOD, "displacement": (0, 0.9), "logps__chosen_change": (0, -8)}
    )
    codes = [remark.code for remark in judge(read_run(run)) if "sft" in remark.code]
    assert codes == ["loss: dpo(beta=0.1) + 0.005*sft(reduction='sum')"]


def test_the_page_stands_alone_and_says_what_was_trained(tmp_path):
    write_samples(
        _run(tmp_path, noise=0.25, **GOOD),
        ["<b>bold</b>"],
        ["<script>alert(1)</script>"],
        ["fine & good"],
        [0.1],
        [0.35],
    )
    report = write_report(tmp_path)
    page = report.page.read_text("utf-8")
    assert report.page == tmp_path / "report.html"
    assert "-log sigmoid(0.1*(...))" in page
    assert "the policy as it starts" in page
    assert "25.0 % of the labels were flipped" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script" not in page
    assert "(+0.250)" in page
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert page.count("data:image/png;base64,") == len(report.pictures) == 7
    for picture in report.pictures:
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert picture.parent == tmp_path / "report"
    assert not [path.name for path in tmp_path.rglob("*.tmp")]


def test_terms_and_gold_get_their_own_panels(tmp_path):
    run = _run(tmp_path, **GOOD, loss__dpo=(0.7, 0.5), loss__sft=(9, 7), eval_kl=(0, 0.1), eval_gold_reward=(0.1, 0.4))
    write_samples(run, ["p", "q"], ["b"] * 2, ["a"] * 2, [0.0, 1.0], [1.0, 1.0])
    names = {path.stem for path in write_report(run).pictures}
    assert {"terms", "gold_kl", "gold"} <= names


def test_the_same_run_gives_the_same_files(tmp_path):
    run = _run(tmp_path, **GOOD)
    first = write_report(run)
    before = [first.page.read_bytes(), *(path.read_bytes() for path in first.pictures)]
    again = write_report(run)
    assert [again.page.read_bytes(), *(path.read_bytes() for path in again.pictures)] == before


def test_a_run_without_a_record_is_reported_with_a_note(tmp_path):
    _state(tmp_path, [{"step": 1, "loss": 0.7}])
    page = write_report(tmp_path).page.read_text("utf-8")
    assert "There is no prefalign_run.json" in page


@pytest.mark.parametrize(
    "history",
    [
        [],
        ["x", 3, None, {"loss": 1.0}],
        [{"step": "one", "loss": 1.0}],
        [{"step": 1, "loss": "0.5", "kl": None, "displacement": True}],
        [
            {"step": i, "loss": value}
            for i, value in enumerate([float("nan"), float("inf"), -float("inf"), 1e300, 10**400, 0.5])
        ],
        [{"step": 10**400, "loss": 1.0}, {"step": 5, "rewards/margins": 0.1}],
        [{"step": 1, "loss": 1.0}] * 3,
    ],
)
def test_strange_logs_are_still_reported(tmp_path, history):
    _state(tmp_path, history)
    assert write_report(tmp_path).page.is_file()


def test_values_that_are_not_finite_are_left_out_and_counted(tmp_path):
    _state(tmp_path, [{"step": 1, "loss": 0.5}, {"step": 2, "loss": float("nan")}])
    run = read_run(tmp_path)
    assert run.train["loss"].values.tolist() == [0.5]
    assert "1 values of `loss` are not finite and are left out." in run.notes


def test_a_damaged_checkpoint_is_passed_over_with_a_note(tmp_path):
    _run(tmp_path, **GOOD)
    (tmp_path / "checkpoint-30").mkdir()
    (tmp_path / "checkpoint-30" / "trainer_state.json").write_text('{"global_step": 30, "log_hi')
    run = read_run(tmp_path)
    assert run.step == 20
    assert any("checkpoint-30" in note and "half-written" in note for note in run.notes)


def test_the_log_that_goes_furthest_is_read_and_a_repeated_step_counts_once(tmp_path):
    _state(tmp_path / "checkpoint-9", [{"step": 9, "loss": 1.0}], step=9)
    _state(
        tmp_path / "checkpoint-10",
        [{"step": 9, "loss": 1.0}, {"step": 9, "loss": 2.0}, {"step": 10, "loss": 3.0}],
        step=10,
    )
    assert read_run(tmp_path).train["loss"].values.tolist() == [2.0, 3.0]


def _break(folder, kind):
    if kind == "no folder":
        return folder / "nowhere"
    if kind == "empty folder":
        folder.mkdir()
        return folder
    _run(folder, **GOOD)
    files = {
        "half state": ("checkpoint-20/trainer_state.json", b'{"global_step": 20, "log_his'),
        "binary state": ("checkpoint-20/trainer_state.json", b"\x00\xff\xfe"),
        "list state": ("checkpoint-20/trainer_state.json", b"[1]"),
        "deep state": ("checkpoint-20/trainer_state.json", b"[" * 100_000),
        "half record": ("prefalign_run.json", b'{"loss": '),
        "list record": ("prefalign_run.json", b"[]"),
        "half samples": ("samples.jsonl", b'{"prompt": "p", "before": "b", "after": "a"}\n{"prom'),
        "wrong samples": ("samples.jsonl", b'{"prompt": 3, "before": "b", "after": "a"}\n'),
        "wrong gold": ("samples.jsonl", b'{"prompt": "p", "before": "b", "after": "a", "gold_before": "x"}\n'),
        "binary samples": ("samples.jsonl", b"\xff\xfe"),
    }
    if kind == "samples loop":
        (folder / "samples.jsonl").symlink_to("samples.jsonl")
        return folder
    if kind == "file":
        return folder / "prefalign_run.json"
    name, content = files[kind]
    (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("no folder", "does not exist"),
        ("file", "is a file"),
        ("empty folder", "holds no run"),
        ("half state", "half-written"),
        ("binary state", "half-written"),
        ("list state", "holds no `log_history`"),
        ("deep state", "half-written"),
        ("half record", "half-written"),
        ("list record", "must hold an object"),
        ("half samples", "samples.jsonl, line 2: malformed JSON"),
        ("wrong samples", "line 1: a sample needs the texts"),
        ("wrong gold", "line 1: gold rewards must be finite numbers"),
        ("binary samples", "cannot be read"),
    ],
)
def test_a_damaged_run_is_one_error_and_writes_nothing(tmp_path, kind, said, capsys):
    folder = _break(tmp_path / "run", kind)
    with pytest.raises(PrefalignError, match=re.escape(said)):
        write_report(folder)
    assert main(["report", str(folder)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("prefalign report: ")
    assert err.count("\n") == 1
    assert not list(tmp_path.rglob("report.html"))


@pytest.mark.parametrize(
    "record",
    [
        {"loss": 3, "data": [1], "versions": None},
        {"data": {"train": 3, "test": {"rows": "x", "findings": 5}}},
        {"data": {"t": {"rows": 3, "findings": [1, {}]}}},
    ],
)
def test_a_record_of_another_shape_does_no_harm(tmp_path, record):
    _run(tmp_path, **GOOD)
    (tmp_path / "prefalign_run.json").write_text(json.dumps(record))
    assert write_report(tmp_path).page.is_file()


def test_samples_come_back_as_they_were_written(tmp_path):
    path = write_samples(tmp_path, ["p\n\u2028q"], ["ü"], ["\x00"], np.array([0.5], dtype=np.float32), [1])
    (sample,) = read_samples(path)
    assert (sample.prompt, sample.before, sample.after) == ("p\n\u2028q", "ü", "\x00")
    assert (sample.gold_before, sample.gold_after) == (0.5, 1.0)
    (bare,) = read_samples(write_samples(tmp_path, ["p"], ["b"], ["a"]))
    assert bare.gold_before is None


def test_a_page_without_samples_says_how_to_have_some(tmp_path):
    run = _run(tmp_path, **GOOD)
    assert "diagnose.write_samples" in write_report(run).page.read_text("utf-8")
    write_samples(run, ["p"], ["b"], ["a"])
    assert "diagnose.write_samples" not in write_report(run).page.read_text("utf-8")
    assert "diagnose.write_samples" not in write_report(run, samples=0).page.read_text("utf-8")


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ((["p"], ["b"], []), "of one length"),
        ((["p"], ["b"], ["a"], [1.0]), "both or neither"),
        ((["p"], ["b"], ["a"], [1.0], [float("nan")]), "finite"),
        ((["p"], ["b"], ["a"], ["x"], [1.0]), "finite"),
        (([1], ["b"], ["a"]), "needs the texts"),
    ],
)
def test_samples_of_another_shape_are_refused_and_nothing_is_written(tmp_path, columns, said):
    with pytest.raises(DataError, match=said):
        write_samples(tmp_path, *columns)
    assert not list(tmp_path.iterdir())


def test_the_command_prints_the_verdict_and_where_the_page_is(tmp_path, capsys):
    run = _run(tmp_path / "run", **{**GOOD, "kl": (0, 0.4)})
    assert main(["report", str(run), "--out", str(tmp_path / "pages" / "one.html")]) == 0
    out = capsys.readouterr().out
    assert "The policy moved far from its reference." in out
    assert "beta 0.1 to 0.2" in out
    assert (tmp_path / "pages" / "one.html").is_file()
    assert (tmp_path / "pages" / "one" / "kl.png").is_file()
    assert main(["report", str(run), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["verdict"][0]["level"] == "warn"
    assert main(["report", str(run), "--samples", "-1"]) == 2


def test_a_page_that_cannot_be_written_is_one_error(tmp_path):
    run = _run(tmp_path / "run", **GOOD)
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(DataError, match="cannot be written"):
        write_report(run, tmp_path / "taken" / "report.html")
