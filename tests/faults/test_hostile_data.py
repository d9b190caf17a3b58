"""Hostile data files and configurations: one error each, and what lies in the output folder is not touched."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import signal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import Dataset
from transformers import PreTrainedModel

from prefalign.cli import main
from prefalign.data import load_pairs
from tests.faults.hostile import CANARY, refuse, refuse_command, snapshot
from tests.tiny import tiny_pairs
from tests.train.runs import COMMON


class Payload:
    """Unpickling it runs a program."""

    def __reduce__(self):
        return os.system, (f"touch {CANARY}",)


PICKLE = pickle.dumps(Payload())
ROW = {"prompt": "p", "chosen": "c", "rejected": "r"}
GOOD = json.dumps(ROW).encode()


def with_value(text: str, name: str = "rejected") -> bytes:
    """Two lines, of which the second has `text` as the JSON value of one column."""
    rest = ", ".join(f'"{key}": "x"' for key in ROW if key != name)
    return GOOD + f'\n{{{rest}, "{name}": {text}}}\n'.encode()


def nested(depth: int, inner: str = "1") -> str:
    return "[" * depth + inner + "]" * depth


DATA = {
    "nothing.jsonl": b"",
    "blank.jsonl": b"\n" * 100_000,
    "nul.jsonl": b"\0" * 4096,
    "nul-in-a-line.jsonl": GOOD + b"\n\0\n",
    "ten-megabytes.jsonl": b"x" * 10_000_000,
    "ten-megabytes-of-brackets.jsonl": b"[" * 10_000_000,
    "ten-megabytes-of-objects.jsonl": b'{"prompt":' * 1_000_000,
    "ten-megabytes-of-quotes.csv": b'prompt,chosen,rejected\n"' + b"x" * 10_000_000,
    "deep.jsonl": with_value(nested(100_000)),
    "deep-enough-for-arrow.jsonl": with_value(nested(900)),
    "deep-objects.jsonl": with_value('{"a":' * 900 + "1" + "}" * 900),
    "deep-in-another-column.jsonl": GOOD[:-1] + f', "more": {nested(900)}}}'.encode(),
    "nan.jsonl": with_value("NaN"),
    "infinity.jsonl": with_value("-Infinity"),
    "huge-exponent.jsonl": with_value("1e999"),
    "huge-number.jsonl": with_value("9" * 5000),
    "number-beyond-64-bits.jsonl": GOOD[:-1] + b', "more": ' + b"9" * 40 + b"}",
    "half-a-surrogate.jsonl": with_value('"\\ud800"'),
    "half-a-surrogate-in-a-name.jsonl": GOOD[:-1] + b', "\\udfff": 1}',
    "half-a-surrogate-in-messages.jsonl": with_value('[{"role": "user", "content": "\\udc00"}]', "chosen"),
    "cut-off.jsonl": GOOD + b"\n" + GOOD[:-9],
    "utf-16.jsonl": GOOD.decode().encode("utf-16"),
    "latin-1.jsonl": '{"prompt": "é"}'.encode("latin-1"),
    "overlong-utf-8.jsonl": GOOD + b"\n\xc0\xae\xc0\xae\n",
    "gzip.jsonl": gzip.compress(GOOD),
    "pickle.jsonl": PICKLE,
    "pickle.parquet": PICKLE,
    "pickle.csv": PICKLE,
    "random.parquet": bytes(range(256)) * 64,
    "header-only.parquet": b"PAR1" + b"\xff" * 64 + b"PAR1",
    "dunder.jsonl": b'{"__class__": "x", "__init__": "y"}',
    "one-column-twice.csv": b"prompt,chosen,rejected,chosen\na,b,c,d\n",
    "nul.csv": b"prompt,chosen,rejected\na,b\0,\n" + b"\0" * 64,
    "nul-in-a-name.csv": b"pro\x07\0\0mp[,chosen,rejected\np,c,r\n",  # found by fuzz_atheris.py
    "ragged.csv": b"prompt,chosen,rejected\na,b\n",
    "formula.csv": b"=cmd|' /C calc'!A0,chosen\n1,2\n",
    "scalar.json": b"7",
    "object-of-objects.json": b'{"prompt": {"prompt": {}}}',
    "numbers.json": b"[1, 2, 3]",
    "deep.json": b"[" * 100_000,
    "mixed-kinds.jsonl": with_value('["x"]'),
    "number-for-text.jsonl": with_value("7"),
    "messages-of-numbers.jsonl": with_value("[7, 8]"),
    "no-suffix": GOOD,
    "wrong-suffix.pkl": PICKLE,
}


@pytest.mark.parametrize("name", DATA)
def test_a_hostile_data_file_is_one_error(name, capsys):
    with open(name, "wb") as file:
        file.write(DATA[name])
    before = snapshot(os.curdir)
    message = refuse_command(["check", name], capsys)
    assert name in message
    assert snapshot(os.curdir) == before


def folder():
    os.mkdir("folder.jsonl")
    return "folder.jsonl"


def loop():
    os.symlink("two.jsonl", "one.jsonl")
    os.symlink("one.jsonl", "two.jsonl")
    return "one.jsonl"


def dangling():
    os.symlink("nowhere.jsonl", "link.jsonl")
    return "link.jsonl"


def pipe():
    os.mkfifo("pipe.jsonl")
    return "pipe.jsonl"


def half_a_data_set():
    Dataset.from_list([ROW]).save_to_disk("saved")
    with open("saved/state.json", "r+") as file:
        file.truncate(20)
    return "saved"


def data_set_of_pickles():
    Dataset.from_list([ROW]).save_to_disk("saved")
    for name in os.listdir("saved"):
        if name.endswith(".arrow"):
            with open(f"saved/{name}", "wb") as file:
                file.write(PICKLE)
    return "saved"


def data_set_that_leaves_its_folder():
    Dataset.from_list([ROW]).save_to_disk("saved")
    with open("saved/state.json") as file:
        state = json.load(file)
    state["_data_files"] = [{"filename": "../../../../etc/passwd"}]
    with open("saved/state.json", "w") as file:
        json.dump(state, file)
    return "saved"


def cut_parquet():
    tiny_pairs(4).to_parquet("cut.parquet")
    with open("cut.parquet", "r+b") as file:
        file.truncate(os.path.getsize("cut.parquet") - 20)
    return "cut.parquet"


def parquet_with_a_damaged_page():
    tiny_pairs(4).to_parquet("page.parquet")
    with open("page.parquet", "r+b") as file:
        file.seek(8)
        file.write(b"\xff" * 64)
    return "page.parquet"


def script():
    os.mkdir("script")
    with open("script/script.py", "w") as file:
        file.write(f"import os; os.system('touch {CANARY}')")
    return "script"


PLACES = [
    folder,
    loop,
    dangling,
    pipe,
    half_a_data_set,
    data_set_of_pickles,
    data_set_that_leaves_its_folder,
    cut_parquet,
    parquet_with_a_damaged_page,
    script,
    lambda: "",
    lambda: "a\0b.jsonl",
    lambda: "x" * 10_000 + ".jsonl",
    lambda: "\udcff.jsonl",
    lambda: "/dev/zero",
    lambda: "../" * 900 + "x.jsonl",
    lambda: "__import__('os').system('ls')",
    lambda: b"bytes.jsonl",
    lambda: 7,
]


@pytest.mark.parametrize("make", PLACES, ids=lambda make: make.__name__)
def test_a_hostile_place_is_one_error(make):
    place = make()
    before = snapshot(os.curdir)
    refuse(lambda: load_pairs(place))
    assert snapshot(os.curdir) == before


def test_a_file_that_may_not_be_read_is_one_error(ordinary_user, capsys):
    tiny_pairs(4).to_json("secret.jsonl")
    os.chmod("secret.jsonl", 0)
    assert "Permission denied" in refuse_command(["check", "secret.jsonl"], capsys)


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
CONFIGS = {
    "nothing": "",
    "a scalar": "7",
    "a list": "- loss",
    "numbers for names": "1: 2\n",
    "two documents": "loss: dpo\n---\nloss: ipo\n",
    "unfinished": "loss: [",
    "tab": "loss:\n\tdpo",
    "NUL": "loss: dpo\0",
    "escape": "loss: \x1b[2J",
    "half a surrogate": 'loss: "\\ud800"',
    "object of Python": f"loss: !!python/object/apply:os.system ['touch {CANARY}']",
    "name of Python": "loss: !!python/name:os.system",
    "module of Python": "loss: !!python/module:os",
    "new object of Python": "loss: !!python/object/new:type {}",
    "bomb of aliases": BOMB,
    "bomb of aliases as a value": BOMB.replace("a11:", "loss:"),
    "bomb of aliases in the environment": BOMB.replace("a11:", "env:"),
    "alias of itself": "loss: &a [*a]",
    "environment of itself": "env: &a [*a]",
    "deep": "loss: " + "[" * 20_000,
    "deep and whole": "loss: " + nested(5_000),
    "deep objects": "loss: " + "{a: " * 5_000,
    "ten megabytes": "loss: " + "x" * 10_000_000,
    "a name twice": "loss: dpo\nloss: ipo",
    "many names": "".join(f"x{i}: 1\n" for i in range(100_000)),
    "dunder": "__class__: 1",
    "dunder loss": "loss: __class__",
    "system call": f"loss: \"__import__('os').system('touch {CANARY}')\"",
    "loss of numbers": "loss: 7",
    "loss of lists": "loss: [dpo, ipo]",
    "loss of objects": "loss: {name: dpo}",
    "reference of objects": "reference: {soup: [a, b]}",
    "reference in a circle": "reference: checkpoint(checkpoint(initial))",
    "learning rate is not a number": "learning_rate: .nan",
    "learning rate is infinite": "learning_rate: .inf",
    "learning rate is huge": "learning_rate: 1e999",
    "learning rate is negative": "learning_rate: -1.0",
    "learning rate is a list": "learning_rate: [1, 2]",
    "steps are not whole": "max_steps: 1.5",
    "steps are text": "max_steps: 9**9**9",
    "steps beyond 64 bits": "max_steps: " + "9" * 30,
    "batch of nothing": "per_device_train_batch_size: 0",
    "batch of less": "per_device_train_batch_size: -1",
    "no accumulation": "gradient_accumulation_steps: 0",
    "length of less": "max_length: -1",
    "length of nothing": "max_length: 0",
    "seed of less": "seed: -1",
    "epochs are not a number": "max_steps: -1\nnum_train_epochs: .nan",
    "epochs of less": "max_steps: -1\nnum_train_epochs: -1",
    "weight decay is not a number": "weight_decay: .nan",
    "norm is not a number": "max_grad_norm: .nan",
    "optimizer": "optim: __import__",
    "scheduler": "lr_scheduler_type: eval",
    "report": "report_to: os.system",
    "truncation": "truncation_mode: keep_all",
    "saving": "save_strategy: sometimes",
    "saving every nothing": "save_strategy: steps\nsave_steps: 0",
    "logging every nothing": "logging_steps: 0",
    "deepspeed": "deepspeed: nowhere.json",
    "fsdp": "fsdp: everything",
    "dtype": "dtype: float1",
    "targets": "use_peft: true\nlora_target_modules: '((('",
    "rank of nothing": "use_peft: true\nlora_r: 0",
    "rank is not whole": "use_peft: true\nlora_r: 1.5",
    "environment with a NUL": 'env: {"A\\0": x}',
    "environment with an equals sign": "env: {A=B: x}",
    "environment that is a list": "env: [A]",
    "output is a list": "output_dir: [a]",
    "output has a NUL": 'output_dir: "a\\0b"',
    "output is nothing": "output_dir: ''",
    "data is an object": "dataset_name: {a: 1}",
    "data is a number": "dataset_name: 7",
    "model is an object": "model_name_or_path: {a: 1}",
    "model is a number": "model_name_or_path: 7",
    "model has a NUL": 'model_name_or_path: "a\\0b"',
    "model leaves": "model_name_or_path: ../../../../etc",
    "model is a file": "model_name_or_path: config.yaml",
    "model is a file of Python": "model_name_or_path: evil.py",
    "resume from nowhere": "resume_from_checkpoint: nowhere",
    "resume from here": "resume_from_checkpoint: .",
}


@pytest.fixture
def train(checkpoint, monkeypatch, capsys):
    """Runs `prefalign train` on a configuration, in which defaults stand for what it does not say."""

    def never(*args, **kwargs):
        raise AssertionError("weights were loaded")

    def call(text: bytes) -> str:
        tiny_pairs(8).to_json("pairs.jsonl")
        os.makedirs("run")
        with open("run/model.safetensors", "w") as file:
            file.write("the last run's")
        with open("config.yaml", "wb") as file:
            file.write(text)
        monkeypatch.setattr(PreTrainedModel, "from_pretrained", never)
        environment, before = dict(os.environ), snapshot(os.curdir)
        message = refuse_command(["train", "--config", "config.yaml"], capsys)
        assert dict(os.environ) == environment
        assert snapshot(os.curdir) == before
        return message

    return call


DEFAULTS = {"dataset_name": "pairs.jsonl", "output_dir": "run", **COMMON, "loss": "dpo(beta=0.1)"}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_hostile_configuration_is_one_error(name, train, checkpoint):
    text = CONFIGS[name]
    said = {line.partition(":")[0] for line in text.splitlines()}
    rest = {key: value for key, value in {"model_name_or_path": checkpoint, **DEFAULTS}.items() if key not in said}
    alone = name in ("nothing", "a scalar", "a list", "two documents")
    train((text if alone else f"{yaml.safe_dump(rest)}\n{text}\n").encode("utf-8", "surrogatepass"))


def test_a_configuration_that_is_no_text_is_one_error(train):
    train(PICKLE)


@pytest.mark.parametrize("make", [folder, loop, dangling, lambda: "a\0b", lambda: "x" * 10_000, lambda: "/dev/null"])
def test_a_hostile_place_of_a_configuration_is_one_error(make, capsys):
    refuse_command(["train", "--config", make()], capsys)


METADATA = {
    "deep": b"[" * 100_000,
    "deep features": b'{"info": {"features": ' + b'{"a":' * 5000 + b"1" + b"}" * 5002,
    "a number": b"5",
    "info that is a number": b'{"info": 5}',
    "features that are a number": b'{"info": {"features": 5}}',
    "a feature of no kind": b'{"info": {"features": {"prompt": {"_type": "Magic"}}}}',
    "a kind that is a number": b'{"info": {"features": {"prompt": {"_type": 5}}}}',
    "no JSON": b"{",
    "no UTF-8": b"\xff",
}


@pytest.mark.parametrize("name", METADATA)
def test_hostile_metadata_of_a_parquet_file_are_one_error(name, capsys):
    table = pa.table({"prompt": ["p", "q"], "chosen": ["a", "b"], "rejected": ["c", "d"]})
    pq.write_table(table.replace_schema_metadata({b"huggingface": METADATA[name]}), "pairs.parquet")
    assert "pairs.parquet" in refuse_command(["check", "pairs.parquet"], capsys)


BYTES = os.fsdecode(b"\xff\xfe")


def test_a_path_that_is_no_utf_8_is_read(capsys):
    tiny_pairs(4).to_json("pairs.jsonl")
    os.rename("pairs.jsonl", f"{BYTES}.jsonl")
    assert main(["check", f"{BYTES}.jsonl"]) == 0


def test_a_path_that_is_no_utf_8_cannot_be_written_to(checkpoint, capsys):
    tiny_pairs(4).to_json("pairs.jsonl")
    words = ["train", "--model_name_or_path", checkpoint, "--dataset_name", "pairs.jsonl", "--output_dir", BYTES]
    assert "`output_dir` must be a name in UTF-8" in refuse_command([*words, "--use_cpu", "True"], capsys)
    assert not os.path.exists(BYTES)


@pytest.mark.parametrize(
    "words",
    [
        ["report", BYTES],
        ["soup", BYTES, "-o", "soup"],
        ["derive", BYTES],
        ["convert", BYTES],
        ["check", BYTES],
        ["check", "pairs.jsonl", "--tokenizer", BYTES],
        ["check", "pairs.jsonl", "--model", BYTES],
        ["train", BYTES],
        ["lattice", "cpo", "orpo", "-o", BYTES],
        ["cache", "ls", "--folder", BYTES],
        [BYTES],
    ],
    ids=ascii,
)
def test_bytes_that_are_no_utf_8_are_one_error_wherever_they_stand(words, capsys):
    tiny_pairs(4).to_json("pairs.jsonl")
    refuse_command(words, capsys)


@pytest.mark.parametrize("name", ["trainer_state.json", "samples.jsonl", "prefalign_run.json"])
def test_a_pipe_in_a_runs_folder_is_not_waited_for(name, capsys):
    log = [{"step": step, "loss": 0.7} for step in (1, 2)]
    Path("run").mkdir()
    Path("run/trainer_state.json").write_text(json.dumps({"log_history": log, "global_step": 2, "max_steps": 2}))
    Path("run", name).unlink(missing_ok=True)
    os.mkfifo(f"run/{name}")
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("waited for 20 s"))
    signal.alarm(20)
    try:
        refuse_command(["report", "run"], capsys)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert not Path("run/report.html").exists()
