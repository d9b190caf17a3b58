"""Random text for the readers: each refuses it with a PrefalignError or takes it, and comes back soon."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefalign._errors import ParseError, PrefalignError
from prefalign._yaml import load_yaml
from prefalign.data import check_pairs, load_pairs
from tests.faults.hostile import nothing_executed
from tests.faults.test_hostile_text import LANGUAGES

# Words of all languages and of none, so that random text gets past the first token.
WORDS = [
    *("w", "l", "rw", "rl", "y1", "y2", "w2", "M(w)", "R(l)", "P(w)", "log", "exp", "beta", "gamma", "0", "1", "2.5"),
    *("1e9", "-", "+", "*", "/", "**", "^", "(", ")", "[", "]", ",", "=", ";", ".", "&", "|", "~", "->", "<->", "∧"),
    *("¬", "not", "and", "or", "true", "false", "dpo", "ipo", "sft", "robust", "flip_rate", "logic", "mean", "True"),
    *("initial", "none", "checkpoint", "soup", "weights", "past", "keep", "every", "moving_average", "alpha", "'", '"'),
    *("between", "cpo", "unCPO", "monotone", "rows", "FF", "v", "literals", "max", "atoms", "reference", "above"),
    *(
        "__class__",
        "__import__",
        "\0",
        "\ud800",
        "é",
        "ｗ",
        "\u202e",
        "\n",
        "nan",
        "inf",
        "9" * 40,
        "{",
        "}",
        ":",
        "%s",
    ),
]
TEXT = st.one_of(
    st.text(st.characters(), max_size=60),
    st.lists(st.sampled_from(WORDS), max_size=24).map("".join),
    st.lists(st.sampled_from(WORDS), max_size=24).map(" ".join),
)
# No deadline by the clock, which would blame a reader for a busy machine: `nothing_executed` limits processor time.
FAST = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)
LONG = settings(FAST, max_examples=int(os.environ.get("PREFALIGN_FUZZ", "400")), derandomize=False)


def survives(read, text: str) -> None:
    with nothing_executed():
        try:
            read(text)
        except PrefalignError as error:
            refusal = error
        else:
            return
    str(refusal).encode("utf-8")
    if isinstance(refusal, ParseError):
        assert 0 <= refusal.position <= len(refusal.text)


@pytest.mark.parametrize("language", LANGUAGES)
@FAST
@given(text=TEXT)
def test_random_text_is_read_or_refused(language, text):
    survives(LANGUAGES[language], text)


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
@LONG
@given(text=TEXT)
def test_much_random_text_is_read_or_refused(language, text):
    survives(LANGUAGES[language], text)


@FAST
@given(
    text=st.one_of(
        TEXT, st.lists(st.sampled_from([*"&*!|>-?:[]{}#'\"%@`\n ", "a", "<<", "0x", "1e", "- "])).map("".join)
    )
)
def test_random_yaml_is_read_or_refused(text):
    survives(lambda text: load_yaml(text, "a config"), text)


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": VALUES}), max_size=2
)
CELL = st.one_of(st.text(max_size=9), MESSAGES, VALUES)
NAMES = ("prompt", "chosen", "rejected", "completion", "label", "x")
LINES = st.lists(st.dictionaries(st.sampled_from(NAMES), CELL, min_size=2), max_size=4)
CONTENT = st.one_of(
    st.binary(max_size=80),
    LINES.map(lambda rows: "\n".join(map(json.dumps, rows)).encode()),
    LINES.map(lambda rows: json.dumps(rows).encode()),
    st.lists(st.lists(st.text(max_size=5), max_size=4).map(",".join)).map(
        lambda lines: "\n".join(["prompt,chosen,rejected", *lines]).encode("utf-8", "surrogatepass")
    ),
)


def check(path: str) -> None:
    str(check_pairs(load_pairs(path), progress=False)).encode("utf-8")


def read_data(content: bytes, suffix: str) -> None:
    Path(f"data{suffix}").write_bytes(content)
    survives(check, f"data{suffix}")


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
@FAST
@given(content=CONTENT)
def test_a_random_file_is_read_or_refused(suffix, content):
    read_data(content, suffix)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
@LONG
@given(content=CONTENT)
def test_many_random_files_are_read_or_refused(suffix, content):
    read_data(content, suffix)
