"""Hostile checkpoints: as ingredients of a soup, as a reference, and as the model to be trained."""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import signal
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel

from prefalign.data.checking import _tokens
from prefalign.references import Policy, parse_reference
from prefalign.train import PrefConfig, PrefTrainer
from tests.faults import hostile
from tests.faults.hostile import CANARY, refuse, refuse_command, snapshot
from tests.faults.test_hostile_data import PICKLE, Payload
from tests.tiny import tiny_model, tiny_pairs, tiny_tokenizer
from tests.train.runs import COMMON

WEIGHTS = "model.safetensors"


def header(described: object, data: bytes = b"") -> bytes:
    text = described if isinstance(described, bytes) else json.dumps(described).encode()
    return struct.pack("<Q", len(text)) + text + data


def put(content: bytes, name: str = WEIGHTS):
    return lambda folder: (folder / name).write_bytes(content)


def cut(folder):
    os.truncate(folder / WEIGHTS, 1000)


def cut_a_byte(folder):
    os.truncate(folder / WEIGHTS, (folder / WEIGHTS).stat().st_size - 1)


def lie_of_length(folder):
    with (folder / WEIGHTS).open("r+b") as file:
        file.write(struct.pack("<Q", 2**63))


def longer_header(folder):
    with (folder / WEIGHTS).open("r+b") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        file.seek(0)
        file.write(struct.pack("<Q", length + 8))


def zipped_pickle(folder):
    with zipfile.ZipFile(folder / WEIGHTS, "w") as archive:
        archive.writestr("archive/data.pkl", PICKLE)


def only_pickles(folder):
    (folder / WEIGHTS).unlink()
    torch.save({"w": Payload()}, folder / "pytorch_model.bin")


def only_old_pickles(folder):
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(PICKLE)


def nothing(folder):
    (folder / WEIGHTS).unlink()


def is_a_folder(folder):
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).mkdir()


def circle(folder):
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to(folder / WEIGHTS)


def pipe(name: str):
    """A pipe that nobody writes to: whoever reads from it waits for ever."""

    def change(folder):
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return change


def index(weight_map: object):
    def change(folder):
        (folder / WEIGHTS).unlink()
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))

    return change


TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
DAMAGES = {
    "empty": put(b""),
    "seven bytes": put(b"\0" * 7),
    "cut": cut,
    "cut by a byte": cut_a_byte,
    "header of 2^63 bytes": lie_of_length,
    "header that reaches into the data": longer_header,
    "header that is no JSON": put(header(b"{" * 1000)),
    "deep header": put(header(b'{"a":' * 100_000)),
    "header that is a list": put(header([1, 2])),
    "header with NaN": put(header(b'{"w": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 8]}}', b"\0" * 8)),
    "tensor of 2^70 elements": put(header({"w": {**TENSOR, "shape": [2**35, 2**35]}}, b"\0" * 8)),
    "tensor of less than nothing": put(header({"w": {**TENSOR, "shape": [-2]}}, b"\0" * 8)),
    "offsets beyond the end": put(header({"w": {**TENSOR, "data_offsets": [0, 2**60]}}, b"\0" * 8)),
    "offsets the wrong way round": put(header({"w": {**TENSOR, "data_offsets": [8, 0]}}, b"\0" * 8)),
    "tensors that overlap": put(header({"v": TENSOR, "w": TENSOR}, b"\0" * 8)),
    "type of Python": put(header({"w": {**TENSOR, "dtype": "__import__"}}, b"\0" * 8)),
    "pickle": put(PICKLE),
    "zip with a pickle": zipped_pickle,
    "pickles of torch only": only_pickles,
    "old pickles only": only_old_pickles,
    "no weights": nothing,
    "folder for a file": is_a_folder,
    "link to itself": circle,
    "index that leaves the folder": index({"w": "../../../../etc/passwd"}),
    "index of absolute paths": index({"w": "/etc/passwd"}),
    "index of numbers": index({"w": 7}),
    "index that is a list": index([1]),
    "index of what is not there": index({"w": "model-00001-of-00001.safetensors"}),
    "config of nothing": put(b"", "config.json"),
    "config that is a list": put(b"[1]", "config.json"),
    "deep config": put(b'{"a":' * 100_000, "config.json"),
    "config that is a pickle": put(PICKLE, "config.json"),
    "config of NULs": put(b"\0" * 100, "config.json"),
    "config that is a pipe": pipe("config.json"),
    "weights that are a pipe": pipe(WEIGHTS),
    "index that is a pipe": pipe("model.safetensors.index.json"),
    "tokenizer that is a pipe": pipe("tokenizer.json"),
}


@pytest.fixture(autouse=True)
def no_waiting(request):
    """Ends a test that waits for ever, for what never comes out of a pipe."""
    if "pipe" not in request.node.name:
        yield
        return

    def late(*_):
        raise AssertionError("waited for 30 s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def whole(checkpoint):
    return Path(checkpoint)


@pytest.fixture
def bad(whole):
    """Makes a damaged copy of a checkpoint."""

    def make(damage) -> str:
        shutil.copytree(whole, "bad")
        damage(Path("bad"))
        return "bad"

    return make


@pytest.fixture(scope="module")
def policy(whole):
    return Policy(str(whole), tiny_model().config, tiny_tokenizer())


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_ingredient_is_one_error(name, bad, whole, capsys):
    folder, before = bad(DAMAGES[name]), snapshot("bad")
    refuse_command(["soup", str(whole), folder, "-o", "soup"], capsys)
    assert not Path("soup").exists()
    assert snapshot("bad") == before


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_reference_is_one_error_before_any_weights_load(name, bad, policy):
    folder = bad(DAMAGES[name])
    refuse(lambda: parse_reference(f"checkpoint({folder})").check(policy))


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_model_is_one_error_before_anything_is_written(name, bad, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", never)
    folder = bad(DAMAGES[name])
    args = PrefConfig("run", loss="simpo(beta=2.0, gamma=1.0)", **COMMON)
    refuse(lambda: PrefTrainer(folder, args=args, train_dataset=tiny_pairs(4)))
    assert not Path("run").exists()


def edit(name: str, **changes: object):
    def change(folder):
        content = json.loads((folder / name).read_text("utf-8"))
        (folder / name).write_text(json.dumps({**content, **changes}))

    return change


def remote_code(folder):
    edit("config.json", auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}, model_type="evil")(folder)
    (folder / "evil.py").write_text(f"import os; os.system('touch {CANARY}')")


def remote_tokenizer(folder):
    changes = {"auto_map": {"AutoTokenizer": ["evil.T", None]}, "tokenizer_class": "Evil"}
    edit("tokenizer_config.json", **changes)(folder)
    (folder / "tokenizer.json").unlink()
    (folder / "evil.py").write_text(f"import os; os.system('touch {CANARY}')")


def template(text: str):
    def change(folder):
        (folder / "chat_template.jinja").write_text(text)

    return change


SYSTEM = "cycler.__init__.__globals__.os.system('touch " + CANARY + "')"
MODELS = {
    "model of another kind": edit("config.json", model_type="__class__"),
    "model with code": remote_code,
    "tokenizer with code": remote_tokenizer,
    "tokenizer of nothing": put(b"", "tokenizer.json"),
    "tokenizer that is a list": put(b"[]", "tokenizer.json"),
    "tokenizer that is a pickle": put(PICKLE, "tokenizer.json"),
    "deep tokenizer": put(b"[" * 100_000, "tokenizer.json"),
    "sizes that the weights deny": edit("config.json", hidden_size=32),
    "layers of less than nothing": edit("config.json", num_attention_heads=0),
    "layers as text": edit("config.json", num_hidden_layers="two"),
    **{
        f"configuration with {name}={value!r}": edit("config.json", **{name: value})
        for name, value in [
            ("rope_parameters", {"rope_type": "magic", "rope_theta": 1e4}),
            ("rope_scaling", {"rope_type": "magic", "factor": 2.0}),
            ("hidden_act", "magic"),
            ("hidden_size", -16),
            ("head_dim", 0),
            ("pad_token_id", 10**9),
            ("num_hidden_layers", 0),
            ("num_hidden_layers", -3),
            ("num_hidden_layers", 1_000_000),
            ("architectures", 5),
        ]
    },
    "attention that is not there": edit(
        "config.json", _attn_implementation="os.system", attn_implementation="os.system"
    ),
    "template with a program": template("{{ " + SYSTEM + " }}"),
    "template of Python's classes": template("{{ ''.__class__.__mro__[1].__subclasses__() }}"),
    "template that is unfinished": template("{% for message in messages %}"),
    "template that raises": template("{{ raise_exception('no') }}"),
    "template that is a pipe": pipe("chat_template.jinja"),
    "code that is a pipe": pipe("preprocessor_config.json"),
    "template that divides": template("{{ 1 / 0 }}"),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_hostile_model_is_one_error(name, bad, capsys):
    folder = bad(MODELS[name])
    pairs = [
        {k: [{"role": "user" if k == "prompt" else "assistant", "content": v}] for k, v in row.items()}
        for row in tiny_pairs(4)
    ]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    options = {
        "model_name_or_path": folder,
        "dataset_name": "pairs.jsonl",
        "output_dir": "run",
        "loss": "dpo(beta=0.1)",
    }
    Path("config.yaml").write_text(json.dumps({**COMMON, **options}))
    refuse_command(["train", "--config", "config.yaml"], capsys)
    assert not Path("run").exists()


def adapter_of_a_pickle(folder):
    torch.save({"w": Payload()}, folder / "adapter_model.bin")


ADAPTERS = {
    "a pickle alone": adapter_of_a_pickle,
    "pickles under the right name": put(PICKLE, "adapter_model.safetensors"),
    "nothing": lambda folder: None,
    "weights that are a pipe": pipe("adapter_model.safetensors"),
    "configuration that is a pipe": pipe("adapter_config.json"),
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_without_sound_weights_is_one_error_before_its_base_loads(name, checkpoint, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("weights were loaded")

    Path("adapter").mkdir()
    LoraConfig(r=2, target_modules=["q_proj"], base_model_name_or_path=checkpoint).save_pretrained("adapter")
    ADAPTERS[name](Path("adapter"))
    monkeypatch.setattr(PreTrainedModel, "from_pretrained", never)
    args = PrefConfig("run", loss="simpo(beta=2.0, gamma=1.0)", **COMMON)
    said = refuse(lambda: PrefTrainer("adapter", args=args, train_dataset=tiny_pairs(4)))
    assert "pipe" in said or "adapter" in said
    assert not Path("run").exists()


ENDLESS = {
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "grows": "{% set n = namespace(x='xx') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
    "multiplies": "{{ 'x' * 99999999999 }}",
    "writes": "{% for i in range(99999) %}{% for j in range(99999) %}{{ 'x' * 9999 }}{% endfor %}{% endfor %}",
}


@pytest.mark.parametrize("command", ["check", "train"])
@pytest.mark.parametrize("name", ENDLESS)
def test_a_template_without_end_is_one_error(name, command, bad, capsys, monkeypatch):
    monkeypatch.setattr(_tokens, "_TEMPLATE_SECONDS", 1)
    monkeypatch.setattr(hostile, "LIMIT", hostile.LIMIT + 2)  # for that second, and what the template has grown to
    folder = bad(template(ENDLESS[name]))
    rows = [
        {k: [{"role": "user" if k == "prompt" else "assistant", "content": v}] for k, v in row.items()}
        for row in tiny_pairs(400)
    ]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["check", "pairs.jsonl", "--tokenizer", folder]
    if command == "train":
        words = ["train", "--model_name_or_path", folder, "--dataset_name", "pairs.jsonl", "--use_cpu", "True"]
    before = resource.getrlimit(resource.RLIMIT_AS)
    said = refuse_command(words, capsys)
    assert "The chat template did not end within" in said or "The chat template takes more than 1024 MiB" in said
    assert resource.getrlimit(resource.RLIMIT_AS) == before


PATTERNS = [
    {"target_modules": "(.+)+x"},
    {"target_modules": "q_proj", "rank_pattern": {"(.+)+x": 4}},
    {"target_modules": "q_proj", "alpha_pattern": {"(.+)+x": 4}},
    {"target_modules": "q_proj", "exclude_modules": "(.*)*(.*)*x"},
    {"target_modules": "q_proj("},
    {"target_modules": ["q_proj"], "r": 10**9},
    {"target_modules": ["q_proj"], "r": -1},
    {"target_modules": ["q_proj"], "r": "x"},
    {"target_modules": ["q_proj"], "lora_alpha": float("inf")},
    {"target_modules": ["q_proj"], "modules_to_save": 5},
]
UNFIT = [
    {"target_modules": 5},
    {"target_modules": ["no_such_module"]},
    {"rank_pattern": 5},
    {"bias": "magic"},
    {"layers_to_transform": "x"},
    {"lora_dropout": "x"},
    {"layer_replication": [[0, 10**9]]},
    {"trainable_token_indices": [10**9]},
]


@pytest.mark.parametrize("options", UNFIT, ids=str)
def test_an_adapter_that_peft_can_make_nothing_of_is_one_error(options, checkpoint, monkeypatch):
    config = LoraConfig(r=2, target_modules=["q_proj"])
    get_peft_model(tiny_model(), config).save_pretrained("adapter")
    edit("adapter_config.json", base_model_name_or_path=checkpoint, **options)(Path("adapter"))

    def never(*args, **kwargs):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", never)
    args = PrefConfig("run", loss="simpo(beta=2.0, gamma=1.0)", **COMMON)
    said = refuse(lambda: PrefTrainer("adapter", args=args, train_dataset=tiny_pairs(4)))
    assert "adapter" in said


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("options", PATTERNS, ids=str)
def test_an_adapter_that_no_model_can_get_is_one_error_before_weights_load(options, trained, checkpoint, monkeypatch):
    config = LoraConfig(r=2, target_modules=["q_proj"], base_model_name_or_path=checkpoint)
    model: str = checkpoint
    if trained:
        plain = LoraConfig(r=2, target_modules=["q_proj"])
        get_peft_model(tiny_model(), plain).save_pretrained("adapter")
        edit("adapter_config.json", base_model_name_or_path=checkpoint, **options)(Path("adapter"))
        model = "adapter"
    else:
        for name, value in options.items():
            setattr(config, name, value)

    def never(*args, **kwargs):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", never)
    args = PrefConfig("run", loss="simpo(beta=2.0, gamma=1.0)", **COMMON)
    peft = {} if trained else {"peft_config": config}
    said = refuse(lambda: PrefTrainer(model, args=args, train_dataset=tiny_pairs(4), **peft))
    assert f"`{list(options)[-1]}`" in said
    assert not Path("run").exists()


def test_a_pickle_would_have_run(tmp_path):
    """The payload is live: else the tests above would show nothing."""
    pickle.loads(PICKLE)  # noqa: S301
    assert Path(CANARY).exists()
    Path(CANARY).unlink()


STATES = {
    "state that is a pickle": ("prefalign_reference.json", PICKLE),
    "state that is cut": ("prefalign_reference.json", b'{"tensors": ["a'),
    "state that is a list": ("prefalign_reference.json", b"[]"),
    "state of other kinds": ("prefalign_reference.json", b'{"tensors": 7, "values": []}'),
    "state without its name": ("prefalign_reference.json", b'{"tensors": [], "values": {}}'),
    "deep state": ("prefalign_reference.json", b"[" * 100_000),
    "watch that is a pickle": ("prefalign_watch.json", PICKLE),
    "watch of nothing": ("prefalign_watch.json", b'{"tensors": [], "values": {}}'),
    "tensors that are a pickle": ("prefalign_watch.safetensors", PICKLE),
    "log that is cut": ("trainer_state.json", b'{"log_history": ['),
    "log that is a pickle": ("trainer_state.json", PICKLE),
    "optimizer that is a pickle": ("optimizer.pt", PICKLE),
    "random state that is a pickle": ("rng_state.pth", PICKLE),
    "schedule that is a pickle": ("scheduler.pt", PICKLE),
    "weights that are a pickle": (WEIGHTS, PICKLE),
    "weights that are cut": (WEIGHTS, b"\x10\0\0\0\0\0\0\0{"),
}


@pytest.fixture(scope="module")
def run_once(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    args = PrefConfig(str(folder), **{**COMMON, "max_steps": 1, "save_strategy": "steps", "save_steps": 1})
    trainer = PrefTrainer(checkpoint, args=args, train_dataset=tiny_pairs(8))
    trainer.train()
    return folder / "checkpoint-1"


@pytest.fixture(scope="module")
def trainer(checkpoint):
    args = PrefConfig("run", **{**COMMON, "max_steps": 2})
    return PrefTrainer(checkpoint, args=args, train_dataset=tiny_pairs(8))


@pytest.mark.parametrize("name", STATES)
def test_a_hostile_state_is_one_error(name, run_once, trainer):
    file, content = STATES[name]
    shutil.copytree(run_once, "run/checkpoint-1")
    assert file.endswith("watch.safetensors") or Path("run/checkpoint-1", file).exists()
    Path("run/checkpoint-1", file).write_bytes(content)
    refuse(lambda: trainer.train(resume_from_checkpoint="run/checkpoint-1"))
