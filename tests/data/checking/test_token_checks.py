"""The preflight with a tokenizer: TRL's own preparation is the measure."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from prefalign.data import check_pairs, drop_bad
from tests.data.rows import EOS, chats_of, found, merging_tokenizer, pairs_of, prepared_by_trl
from tests.tiny import tiny_pairs, tiny_tokenizer


def test_a_boundary_that_tokenises_differently_is_counted_from_tokens():
    rows = [("Film: ", "good", "bad"), ("Film:", " good", " bad"), ("Film: ", "bad", "odd"), ("Film: ", "odd", "good")]
    pairs, tokenizer = pairs_of(*rows), merging_tokenizer()
    report = check_pairs(pairs, tokenizer)
    # "Film: " ends in the token of a space, which "good" takes into its own.
    assert found(report) == {"boundary": [0, 3]}
    trl = prepared_by_trl(pairs, tokenizer)
    cut = [
        len(ids) < len(tokenizer(text)["input_ids"])
        for ids, text in zip(trl["prompt_ids"], pairs["prompt"], strict=True)
    ]
    assert cut == [True, False, False, True]
    assert "' ' is lost" in report.findings[0].message


@pytest.mark.parametrize("chat", [False, True])
def test_lengths_are_those_of_trls_own_preparation(chat):
    rows = [(f"Film {i}:", " good" * (1 + i % 4), " bad" * (1 + i % 3) + " or") for i in range(17)]
    pairs = chats_of(*rows) if chat else pairs_of(*rows)
    tokenizer = tiny_tokenizer() if chat else merging_tokenizer(bos="<s>")
    report = check_pairs(pairs, tokenizer)
    trl = prepared_by_trl(pairs, tokenizer)
    for name in ("prompt", "chosen", "rejected"):
        lengths = [len(ids) for ids in trl[f"{name}_ids"]]
        assert report.lengths[name].mean == pytest.approx(np.mean(lengths))
        assert report.lengths[name].p95 == pytest.approx(np.percentile(lengths, 95))
        assert report.lengths[name].longest == max(lengths)
    assert report.conversational is chat
    whole = [
        len(p) + max(len(c), len(r))
        for p, c, r in zip(*(trl[f"{n}_ids"] for n in report.lengths if n != "longest"), strict=True)
    ]
    assert report.lengths["longest"].longest == max(whole)


def test_a_completion_emptied_by_truncation_is_dropped_as_trl_drops_it():
    rows = [("p" * size, "good", "bad") for size in (8, 9, 10, 11, 12)]
    pairs, tokenizer = pairs_of(*rows), tiny_tokenizer()
    report = check_pairs(pairs, tokenizer, max_length=10)
    kept = drop_bad(pairs, report)
    assert kept["prompt"][:] == prepared_by_trl(pairs, tokenizer, 10)["prompt"][:] == ["p" * 8, "p" * 9]
    assert found(report) == {"emptied_by_truncation": [2, 3, 4], "truncated": [0, 1]}
    assert report.truncated == 1.0


def test_pairs_that_truncation_makes_equal_are_dropped():
    pairs = pairs_of(("p", "the same start, good", "the same start, bad"), ("p", "good", "bad"))
    assert found(check_pairs(pairs, tiny_tokenizer(), max_length=16)) == {"same_tokens": [0]}
    # 16 tokens are the prompt and 15 characters, ", bad" is the 17th to 20th of the text.
    assert check_pairs(pairs, tiny_tokenizer(), max_length=20).dropped == 0
    turned = pairs_of(("p", "good, the same end", "fine, the same end"))
    report = check_pairs(turned, tiny_tokenizer(), max_length=10, truncation_mode="keep_end")
    assert found(report)["same_tokens"] == [0]


def test_truncation_that_keeps_the_end_may_lose_the_prompt():
    pairs = pairs_of(("prompt", "good", "bad"), ("prompt", "g", "b"))
    report = check_pairs(pairs, tiny_tokenizer(), max_length=5, truncation_mode="keep_end")
    assert found(report) == {"prompt_lost": [0], "truncated": [0, 1]}
    assert report.dropped == 0


def test_doubled_bos_and_eos_are_found():
    tokenizer = merging_tokenizer(bos="<s>")
    rows = [("p", "good", "bad"), ("<s>p", "good", "bad"), ("q", f"good{EOS}{EOS}", "bad"), ("r", f"good{EOS}", "bad")]
    rows.append((f"a turn{EOS}{EOS}then", "good", "bad"))  # a prompt may say what it likes
    assert found(check_pairs(pairs_of(*rows), tokenizer)) == {"double_bos": [1], "double_eos": [2]}


def test_a_tokenizer_that_adds_eos_itself_doubles_it_and_breaks_every_boundary():
    pairs = pairs_of(("p", "good", "bad"))
    report = check_pairs(pairs, merging_tokenizer(bos="<s>", eos_added=True))
    assert found(report) == {"boundary": [0], "double_eos": [0]}
    trl = prepared_by_trl(pairs, merging_tokenizer(bos="<s>", eos_added=True))
    assert trl["chosen_ids"][0][-2:] == [2, 2]


def test_an_eos_in_the_text_of_a_conversation_is_found():
    assert found(check_pairs(chats_of(("p", f"good{EOS}", "bad"), ("p", "x", "y")), tiny_tokenizer())) == {
        "double_eos": [0]
    }


def test_an_empty_prompt_without_bos_leaves_the_first_token_without_context():
    assert found(check_pairs(pairs_of(("", "good", "bad")), tiny_tokenizer())) == {
        "no_context": [0],
        "empty_prompt": [0],
    }
    assert found(check_pairs(pairs_of(("", "good", "bad")), merging_tokenizer(bos="<s>"))) == {"empty_prompt": [0]}


def test_a_conversation_that_the_template_refuses_is_dropped():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% if messages[0]['content'] == 'no' %}{{ raise_exception('not this one') }}{% endif %}"
        + tokenizer.chat_template
    )
    report = check_pairs(chats_of(("yes", "a", "b"), ("no", "a", "b"), ("yes", "c", "d")), tokenizer)
    assert found(report) == {"template_error": [1]}
    assert "not this one in row 1" in report.findings[0].message
    assert report.bad_rows.tolist() == [1]


def test_tools_and_template_arguments_of_a_row_reach_the_template():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ style }}{{ tools | length if tools else '' }}" + tokenizer.chat_template
    rows = chats_of(("p", "a", "b"), ("p", "c", "d"))
    plain = check_pairs(rows, tokenizer).lengths["prompt"].longest
    styled = rows.add_column("chat_template_kwargs", [{"style": "12345"}, {"style": "123"}])
    assert check_pairs(styled, tokenizer).lengths["prompt"].longest == plain + 5
    assert [len(ids) for ids in prepared_by_trl(styled, tokenizer)["prompt_ids"]] == [plain + 5, plain + 3]
    tooled = rows.add_column("tools", ['[{"a": 1}]', '[{"a": 1}]'])
    assert check_pairs(tooled, tokenizer).lengths["prompt"].longest == plain + 1


def test_padding_and_truncation_left_in_the_tokenizer_do_not_matter():
    tokenizer = tiny_tokenizer()
    expected = check_pairs(tiny_pairs(9), tokenizer).lengths
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=50)
    assert check_pairs(tiny_pairs(9), tokenizer).lengths == expected
    assert expected["longest"].longest > 3


class _Shouting(PreTrainedTokenizerFast):
    """Says something else than the engine below it."""

    def __call__(self, text, **options):
        return super().__call__([one.replace(" g", " G") for one in text], **options)


def test_a_tokenizer_that_overrides_its_call_is_believed():
    engine = merging_tokenizer().backend_tokenizer
    tokenizer = _Shouting(tokenizer_object=engine, eos_token=EOS)
    pairs = pairs_of(*[("p:", " good", " bad")] * 1500)
    # " g" is one token and " G" two: p : space G o o d and EOS.
    assert check_pairs(pairs, tokenizer).lengths["longest"].mean == 8
    assert check_pairs(pairs, merging_tokenizer()).lengths["chosen"].mean == 5


def test_a_tokenizer_that_lacks_what_the_layout_needs_is_refused():
    no_eos, no_template = tiny_tokenizer(), tiny_tokenizer()
    no_eos.eos_token = None
    no_template.chat_template = None
    report = check_pairs(tiny_pairs(2), no_eos)
    assert "no EOS token" in str(report)
    assert report.rows == 2
    assert "no chat template" in str(check_pairs(chats_of(("p", "a", "b")), no_template))
    assert not check_pairs(chats_of(("p", "a", "b")), tiny_tokenizer()).unusable
