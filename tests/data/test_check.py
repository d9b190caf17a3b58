"""The preflight: one hand-made row for every finding, and TRL's own preparation as the measure of the token checks."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from trl import DPOTrainer
from trl.data_utils import extract_prompt as trl_extract_prompt

from prefalign._errors import DataError
from prefalign.data import check_pairs, drop_bad
from prefalign.data._text import extract_prompt
from tests.tiny import SPECIAL, tiny_pairs, tiny_tokenizer

EOS = "<|im_end|>"


def _pairs(*rows, names=("prompt", "chosen", "rejected")):
    return Dataset.from_dict({name: [row[i] for row in rows] for i, name in enumerate(names)})


def _chat(*rows):
    roles = ("user", "assistant", "assistant")
    return _pairs(
        *[tuple([{"role": role, "content": text}] for role, text in zip(roles, row, strict=True)) for row in rows]
    )


def _found(report):
    """Kind -> rows, of all findings that name rows."""
    return {finding.kind: list(finding.rows) for finding in report.findings}


def _merging_tokenizer(bos=None, eos_added=False):
    """Byte-level, with one merge across the space: " g" is one token."""
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, "<s>"])}
    for byte in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[byte] = len(vocabulary)
    vocabulary["Ġg"] = len(vocabulary)
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ġ", "g")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    if bos:
        end = f" {EOS}" if eos_added else ""
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A{end}", special_tokens=[(token, vocabulary[token]) for token in (bos, EOS)]
        )
    extra = {"bos_token": bos} if bos else {}
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=EOS, pad_token="<|endoftext|>", **extra)


def _prepared_by_trl(pairs, tokenizer, max_length=None, truncation_mode="keep_start"):
    args = SimpleNamespace(dataset_num_proc=None, max_length=max_length, truncation_mode=truncation_mode)
    this = SimpleNamespace(_tokenizer=tokenizer)
    return DPOTrainer._prepare_dataset(this, pairs, tokenizer, args, "train")


def test_clean_pairs_have_no_findings():
    report = check_pairs(tiny_pairs(24), tiny_tokenizer(), max_length=64)
    assert report.findings == ()
    assert report.clean
    assert (report.rows, report.dropped, report.layout, report.unit) == (24, 0, "explicit", "tokens")


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (("p", "", "r"), "empty_completion"),
        (("p", "c", " \n\t"), "empty_completion"),
        (("p", "c", "\u00a0\u2003"), "empty_completion"),
        (("p", "same", "same"), "identical"),
        (("p", None, "r"), "missing_value"),
        ((None, "c", "r"), "missing_value"),
    ],
)
def test_a_text_that_cannot_be_trained_on_is_dropped(row, kind):
    good = ("p", "good", "bad")
    for tokenizer in (None, tiny_tokenizer()):
        report = check_pairs(_pairs(good, row, good[::-1]), tokenizer)
        assert _found(report) == {kind: [1]}
        assert report.bad_rows.tolist() == [1]


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (("  ", "c", "r"), "empty_prompt"),
        (("p", "same ", "same"), "differs_in_space"),
        (("p", "\n same", "same "), "differs_in_space"),
        (("Film:", "Film: good", "Film: bad"), "prompt_repeated"),
    ],
)
def test_a_doubtful_text_is_kept_with_a_warning(row, kind):
    report = check_pairs(_pairs(("p", "good", "bad"), row))
    assert _found(report) == {kind: [1]}
    assert report.dropped == 0
    assert not report.clean


def test_duplicates_and_contradictions_are_told_apart():
    a, b = ("p", "good", "bad"), ("p", "bad", "good")
    other = ("q", "good", "bad")
    report = check_pairs(_pairs(a, other, a, b, a, ("q", "good", "worse")))
    assert _found(report) == {"duplicate": [2, 4], "contradiction": [0, 2, 3, 4]}
    # Four labels of one pair, 3 to 1: 3 of the 6 pairs of labels agree, which is a coin's agreement.
    assert report.flip_rate == 0.5
    assert "as if 50% of the labels were flipped" in str(report)
    assert "no loss corrects" in str(report)  # robust(...) refuses a flip rate of one half
    assert "robust(" not in str(report)
    assert report.dropped == 0


def test_the_flip_rate_of_repeated_labels_is_recovered():
    flip = np.random.default_rng(0).random((4000, 2)) < 0.2
    rows = [(f"p{i}", "bad", "good") if one else (f"p{i}", "good", "bad") for i, two in enumerate(flip) for one in two]
    assert check_pairs(_pairs(*rows)).flip_rate == pytest.approx(0.2, abs=0.02)
    assert check_pairs(_pairs(*rows[:1])).flip_rate is None


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [
        ("The sky is blue", "The sky is blue and vast"),
        ("Is it? Yes", "Is it? No"),
        ("Is it? cat", "Is it? car"),
        ("abc ", "xyz"),
        ("abc", "xyz"),
        ("a", "b"),
        ("same", "same"),
        (" x", " y"),
        ([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],) * 2,
        ([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], [{"role": "user", "content": "q"}]),
    ],
)
def test_the_implicit_prompt_is_cut_where_trl_cuts_it(chosen, rejected):
    expected = trl_extract_prompt({"chosen": chosen, "rejected": rejected})
    assert extract_prompt(chosen, rejected) == (expected["prompt"], expected["chosen"], expected["rejected"])


def test_an_implicit_prompt_cut_inside_a_word_is_reported():
    rows = [
        ("Is it? Yes", "Is it? No"),
        ("The sky is blue", "The sky is blue and vast"),
        ("Who? abc ", "Nobody"),
        ("It is old", "It is ol' Bob"),
        ("It is? old", "It is! Bob"),
    ]
    report = check_pairs(_pairs(*rows, names=("chosen", "rejected")))
    # TRL looks for the space at the end of the chosen text where nothing is common: only white space is left of it.
    assert _found(report) == {"empty_completion": [2], "prompt_cut_in_word": [1, 3]}
    assert "'blu'" in next(finding.message for finding in report.findings if finding.kind == "prompt_cut_in_word")
    assert report.layout == "implicit"


def test_an_implicit_prompt_between_words_is_fine():
    report = check_pairs(_pairs(("Is it? Yes", "Is it? No"), names=("chosen", "rejected")), tiny_tokenizer())
    assert report.findings == ()


def test_a_boundary_that_tokenises_differently_is_counted_from_tokens():
    rows = [("Film: ", "good", "bad"), ("Film:", " good", " bad"), ("Film: ", "bad", "odd"), ("Film: ", "odd", "good")]
    pairs, tokenizer = _pairs(*rows), _merging_tokenizer()
    report = check_pairs(pairs, tokenizer)
    # "Film: " ends in the token of a space, which "good" takes into its own.
    assert _found(report) == {"boundary": [0, 3]}
    trl = _prepared_by_trl(pairs, tokenizer)
    cut = [
        len(ids) < len(tokenizer(text)["input_ids"])
        for ids, text in zip(trl["prompt_ids"], pairs["prompt"], strict=True)
    ]
    assert cut == [True, False, False, True]
    assert "' ' is lost" in report.findings[0].message


@pytest.mark.parametrize("chat", [False, True])
def test_lengths_are_those_of_trls_own_preparation(chat):
    rows = [(f"Film {i}:", " good" * (1 + i % 4), " bad" * (1 + i % 3) + " or") for i in range(17)]
    pairs = _chat(*rows) if chat else _pairs(*rows)
    tokenizer = tiny_tokenizer() if chat else _merging_tokenizer(bos="<s>")
    report = check_pairs(pairs, tokenizer)
    trl = _prepared_by_trl(pairs, tokenizer)
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
    pairs, tokenizer = _pairs(*rows), tiny_tokenizer()
    report = check_pairs(pairs, tokenizer, max_length=10)
    kept = drop_bad(pairs, report)
    assert kept["prompt"][:] == _prepared_by_trl(pairs, tokenizer, 10)["prompt"][:] == ["p" * 8, "p" * 9]
    assert _found(report) == {"emptied_by_truncation": [2, 3, 4], "truncated": [0, 1]}
    assert report.truncated == 1.0


def test_pairs_that_truncation_makes_equal_are_dropped():
    pairs = _pairs(("p", "the same start, good", "the same start, bad"), ("p", "good", "bad"))
    assert _found(check_pairs(pairs, tiny_tokenizer(), max_length=16)) == {"same_tokens": [0]}
    # 16 tokens are the prompt and 15 characters, ", bad" is the 17th to 20th of the text.
    assert check_pairs(pairs, tiny_tokenizer(), max_length=20).dropped == 0
    turned = _pairs(("p", "good, the same end", "fine, the same end"))
    report = check_pairs(turned, tiny_tokenizer(), max_length=10, truncation_mode="keep_end")
    assert _found(report)["same_tokens"] == [0]


def test_truncation_that_keeps_the_end_may_lose_the_prompt():
    pairs = _pairs(("prompt", "good", "bad"), ("prompt", "g", "b"))
    report = check_pairs(pairs, tiny_tokenizer(), max_length=5, truncation_mode="keep_end")
    assert _found(report) == {"prompt_lost": [0], "truncated": [0, 1]}
    assert report.dropped == 0


def test_doubled_bos_and_eos_are_found():
    tokenizer = _merging_tokenizer(bos="<s>")
    rows = [("p", "good", "bad"), ("<s>p", "good", "bad"), ("q", f"good{EOS}{EOS}", "bad"), ("r", f"good{EOS}", "bad")]
    assert _found(check_pairs(_pairs(*rows), tokenizer)) == {"double_bos": [1], "double_eos": [2]}


def test_a_tokenizer_that_adds_eos_itself_doubles_it_and_breaks_every_boundary():
    pairs = _pairs(("p", "good", "bad"))
    report = check_pairs(pairs, _merging_tokenizer(bos="<s>", eos_added=True))
    assert _found(report) == {"boundary": [0], "double_eos": [0]}
    trl = _prepared_by_trl(pairs, _merging_tokenizer(bos="<s>", eos_added=True))
    assert trl["chosen_ids"][0][-2:] == [2, 2]


def test_an_eos_in_the_text_of_a_conversation_is_found():
    assert _found(check_pairs(_chat(("p", f"good{EOS}", "bad"), ("p", "x", "y")), tiny_tokenizer())) == {
        "double_eos": [0]
    }


def test_an_empty_prompt_without_bos_leaves_the_first_token_without_context():
    assert _found(check_pairs(_pairs(("", "good", "bad")), tiny_tokenizer())) == {
        "no_context": [0],
        "empty_prompt": [0],
    }
    assert _found(check_pairs(_pairs(("", "good", "bad")), _merging_tokenizer(bos="<s>"))) == {"empty_prompt": [0]}


def test_bad_conversations_are_dropped_one_by_one():
    good = [{"role": "user", "content": "q"}]
    answer = [{"role": "assistant", "content": "a"}]
    other = [{"role": "assistant", "content": "b"}]
    rows = [
        (good, answer, other),
        ([], answer, other),
        (good, [{"role": "assistant", "content": None}], other),
        (good, [{"role": None, "content": "x"}], other),
        (good, [{"role": "assistant", "content": " "}], other),
        (good, answer, answer),
        (good, None, other),
    ]
    report = check_pairs(_pairs(*rows), tiny_tokenizer())
    assert _found(report) == {
        "bad_messages": [1, 2, 3],
        "empty_completion": [4],
        "identical": [5],
        "missing_value": [6],
    }
    assert report.dropped == 6


def test_a_conversation_that_the_template_refuses_is_dropped():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% if messages[0]['content'] == 'no' %}{{ raise_exception('not this one') }}{% endif %}"
        + tokenizer.chat_template
    )
    report = check_pairs(_chat(("yes", "a", "b"), ("no", "a", "b"), ("yes", "c", "d")), tokenizer)
    assert _found(report) == {"template_error": [1]}
    assert "not this one in row 1" in report.findings[0].message
    assert report.bad_rows.tolist() == [1]


def test_tools_and_template_arguments_of_a_row_reach_the_template():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ style }}{{ tools | length if tools else '' }}" + tokenizer.chat_template
    rows = _chat(("p", "a", "b"), ("p", "c", "d"))
    plain = check_pairs(rows, tokenizer).lengths["prompt"].longest
    styled = rows.add_column("chat_template_kwargs", [{"style": "12345"}, {"style": "123"}])
    assert check_pairs(styled, tokenizer).lengths["prompt"].longest == plain + 5
    assert [len(ids) for ids in _prepared_by_trl(styled, tokenizer)["prompt_ids"]] == [plain + 5, plain + 3]
    tooled = rows.add_column("tools", ['[{"a": 1}]', '[{"a": 1}]'])
    assert check_pairs(tooled, tokenizer).lengths["prompt"].longest == plain + 1


@pytest.mark.parametrize("column", ["chosen", "completion"])
def test_chosen_completions_alone_are_enough_for_a_loss_that_makes_its_own(column):
    pairs = _pairs(("p", "good"), ("p", ""), ("p", "good"), names=("prompt", column))
    report = check_pairs(pairs, tiny_tokenizer(), winners_only=True)
    assert report.layout == "winners"
    assert "need the column `rejected`" in str(report)
    assert _found(report) == {"empty_completion": [1], "duplicate": [2]}
    assert list(report.lengths) == ["prompt", column, "longest"]
    refused = check_pairs(pairs, winners_only=False)
    assert refused.unusable
    assert "need the column `rejected`" in refused.findings[0].message


@pytest.mark.parametrize(
    ("pairs", "tokenizer", "said"),
    [
        (_pairs(("p", "c", "r"), names=("prompt", "choosen", "rejected")), None, "Is `choosen` meant to be `chosen`?"),
        (_pairs(("p", "c", True), names=("prompt", "completion", "label")), None, "unpaired"),
        (_pairs(names=("prompt", "chosen", "rejected")), None, "has no rows"),
        (_pairs(("p", "c", "c")), None, "No row can be trained on. 1 x chosen equals rejected"),
        (
            _pairs(("p", [{"role": "a", "content": "c"}], [{"role": "a", "content": "d"}])),
            None,
            "all must be of one kind",
        ),
    ],
)
def test_what_is_no_set_of_pairs_is_unusable(pairs, tokenizer, said):
    report = check_pairs(pairs, tokenizer)
    assert report.unusable
    with pytest.raises(DataError, match="(?s)" + said.replace("?", r"\?").replace(".", r"\.")):
        report.raise_if_unusable()
    with pytest.raises(DataError):
        drop_bad(pairs, report)


def test_a_tokenizer_that_lacks_what_the_layout_needs_is_refused():
    no_eos, no_template = tiny_tokenizer(), tiny_tokenizer()
    no_eos.eos_token = None
    no_template.chat_template = None
    report = check_pairs(tiny_pairs(2), no_eos)
    assert "no EOS token" in str(report)
    assert report.rows == 2
    assert "no chat template" in str(check_pairs(_chat(("p", "a", "b")), no_template))
    assert not check_pairs(_chat(("p", "a", "b")), tiny_tokenizer()).unusable


def test_rows_are_dropped_in_order_or_refused():
    pairs = _pairs(("a", "x", "y"), ("b", "", "y"), ("c", "x", "y"), ("d", "x", "x"))
    report = check_pairs(pairs)
    assert drop_bad(pairs, report)["prompt"][:] == ["a", "c"]
    with pytest.raises(DataError, match=r"2 of 4 pairs cannot be trained on: 1 x empty_completion \(row 1\)"):
        drop_bad(pairs, report, "error")
    with pytest.raises(DataError, match="about 4 rows"):
        drop_bad(pairs.select([0]), report)
    with pytest.raises(DataError, match="'drop' or 'error'"):
        drop_bad(pairs, report, "raise")
    clean = tiny_pairs(3)
    assert drop_bad(clean, check_pairs(clean), "error") is clean


def test_only_the_first_rows_of_a_finding_are_kept_but_all_are_counted_and_dropped():
    report = check_pairs(_pairs(*[("p", "", "r")] * 2500, ("p", "c", "r")), keep_rows=3)
    (finding,) = report.findings
    assert (finding.count, finding.rows) == (2500, (0, 1, 2))
    assert report.bad_rows.tolist() == list(range(2500))
    assert "2,500  empty_completion" in str(report)
    assert "(rows 0, 1, 2, ...)" in str(report)
    assert len(json.dumps(report.to_json())) < 2000


def test_a_streaming_set_is_checked_up_to_a_limit():
    stream = _pairs(("a", "x", "y"), ("b", "", "y"), ("c", "", "y")).to_iterable_dataset()
    report = check_pairs(stream, limit=2)
    assert (report.rows, _found(report)) == (2, {"empty_completion": [1]})
    with pytest.raises(DataError, match="set `limit`"):
        check_pairs(stream)
    with pytest.raises(DataError, match="streaming"):
        drop_bad(stream, report)


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ({"max_length": 0}, "`max_length` must be an integer >= 1 or None"),
        ({"max_length": 1.5}, "`max_length`"),
        ({"limit": -1}, "`limit`"),
        ({"keep_rows": -1}, "`keep_rows` must be an integer >= 0 "),
        ({"truncation_mode": "end"}, "`truncation_mode`"),
    ],
)
def test_arguments_out_of_range_are_refused(argument, said):
    with pytest.raises(DataError, match=said):
        check_pairs(tiny_pairs(2), **argument)


@pytest.mark.parametrize("wrong", [[{"prompt": "p"}], None, {"train": 1}])
def test_what_is_no_data_set_is_refused(wrong):
    with pytest.raises(DataError, match="`dataset` must be"):
        check_pairs(wrong)


def test_the_format_of_a_data_set_does_not_matter():
    pairs = tiny_pairs(5).with_format("numpy")
    assert check_pairs(pairs, tiny_tokenizer()).findings == ()


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
    engine = _merging_tokenizer().backend_tokenizer
    tokenizer = _Shouting(tokenizer_object=engine, eos_token=EOS)
    pairs = _pairs(*[("p:", " good", " bad")] * 1500)
    # " g" is one token and " G" two: p : space G o o d and EOS.
    assert check_pairs(pairs, tokenizer).lengths["longest"].mean == 8
    assert check_pairs(pairs, _merging_tokenizer()).lengths["chosen"].mean == 5


def test_the_share_of_longer_chosen_completions_is_told():
    report = check_pairs(_pairs(("p", "xx", "y"), ("p", "x", "yy"), ("q", "xxx", "y"), ("q", "x", "y")))
    assert report.chosen_longer == 0.5
