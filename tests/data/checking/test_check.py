"""The preflight: one hand-made row for every finding."""

from __future__ import annotations

import json
import resource

import numpy as np
import pytest
from datasets import Dataset, Features, Json, List
from datasets import Image as ImageFeature
from PIL import Image
from trl.data_utils import extract_prompt as trl_extract_prompt
from trl.data_utils import prepare_multimodal_messages

from prefalign._errors import DataError
from prefalign.data import Agreement, check_pairs, drop_bad, load_pairs
from prefalign.data.checking import _text
from prefalign.data.checking._text import extract_prompt
from tests.data.rows import found, pairs_of, prepared_by_trl
from tests.tiny import tiny_pairs, tiny_tokenizer


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
        report = check_pairs(pairs_of(good, row, good[::-1]), tokenizer)
        assert found(report) == {kind: [1]}
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
    report = check_pairs(pairs_of(("p", "good", "bad"), row))
    assert found(report) == {kind: [1]}
    assert report.dropped == 0
    assert not report.clean


def test_duplicates_and_contradictions_are_told_apart():
    a, b = ("p", "good", "bad"), ("p", "bad", "good")
    other = ("q", "good", "bad")
    report = check_pairs(pairs_of(a, other, a, b, a, ("q", "good", "worse")))
    assert found(report) == {"duplicate": [2, 4], "contradiction": [0, 2, 3, 4]}
    # Four labels of one pair are two comparisons: rows 0 and 2 agree, 3 and 4 do not. Two comparisons tell nothing.
    assert report.agreement == Agreement(agreeing=1, compared=2)
    assert report.flip_rate is None
    assert "1 of 2 comparisons of repeated labels agree. No flip rate follows" in str(report)
    assert "robust(" not in str(report)
    assert report.dropped == 0


def labelled_twice(flip_rate, count):
    flips = np.random.default_rng(0).random((count, 2)) < flip_rate
    return [(f"p{i}", *(("bad", "good") if one else ("good", "bad"))) for i, two in enumerate(flips) for one in two]


def test_the_flip_rate_of_repeated_labels_is_recovered():
    report = check_pairs(pairs_of(*labelled_twice(0.2, 4000)))
    assert report.flip_rate == pytest.approx(0.2, abs=0.02)
    assert "of 4,000 comparisons of repeated labels agree, as if" in str(report)
    assert f"robust(dpo(beta=0.1), flip_rate={report.flip_rate:.2g})" in str(report)
    assert report.to_json()["repeats"] == vars(report.agreement)


def test_labels_thrown_like_coins_give_no_flip_rate():
    for count in (90, 400):
        report = check_pairs(pairs_of(*labelled_twice(0.5, count)))
        assert report.agreement.compared == count
        assert report.flip_rate is None
        assert "robust(" not in str(report)


def test_copies_are_no_second_labels():
    assert check_pairs(pairs_of(*[("p", "good", "bad")] * 300)).agreement is None


def test_every_label_is_compared_once():
    # Rows of the pairs p and q in turn: p has 5 labels (two comparisons), q has 3 (one), r has one (none).
    ways = {"p": [0, 0, 1, 0, 1], "q": [1, 0, 1], "r": [0]}
    rows = [
        (name, *(("b", "a") if ways[name][i] else ("a", "b"))) for i in range(5) for name in ways if i < len(ways[name])
    ]
    assert check_pairs(pairs_of(*rows)).agreement == Agreement(agreeing=1, compared=3)


def test_an_agreement_that_coins_may_have_gives_no_rate():
    # 56 of 100 would be a rate of 0.33; Wilson's lower bound, 46 %, is one of coins.
    assert "reaches one half" in Agreement(agreeing=56, compared=100).reason_against
    assert "fewer than 100" in Agreement(agreeing=90, compared=99).reason_against
    assert Agreement(agreeing=90, compared=100).reason_against is None


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
    report = check_pairs(pairs_of(*rows, names=("chosen", "rejected")))
    # TRL looks for the space at the end of the chosen text where nothing is common: only white space is left of it.
    assert found(report) == {"empty_completion": [2], "prompt_cut_in_word": [1, 3]}
    assert "'blu'" in next(finding.message for finding in report.findings if finding.kind == "prompt_cut_in_word")
    assert report.layout == "implicit"


def test_an_implicit_prompt_between_words_is_fine():
    report = check_pairs(pairs_of(("Is it? Yes", "Is it? No"), names=("chosen", "rejected")), tiny_tokenizer())
    assert report.findings == ()


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
    report = check_pairs(pairs_of(*rows), tiny_tokenizer())
    assert found(report) == {
        "bad_messages": [1, 2, 3],
        "empty_completion": [4],
        "identical": [5],
        "missing_value": [6],
    }
    assert report.dropped == 6


@pytest.mark.parametrize("column", ["chosen", "completion"])
def test_chosen_completions_alone_are_enough_for_a_loss_that_makes_its_own(column):
    pairs = pairs_of(("p", "good"), ("p", ""), ("p", "good"), names=("prompt", column))
    report = check_pairs(pairs, tiny_tokenizer(), winners_only=True)
    assert report.layout == "winners"
    assert "need the column `rejected`" in str(report)
    assert found(report) == {"empty_completion": [1], "duplicate": [2]}
    assert list(report.lengths) == ["prompt", column, "longest"]
    refused = check_pairs(pairs, winners_only=False)
    assert refused.unusable
    assert "need the column `rejected`" in refused.findings[0].message


@pytest.mark.parametrize(
    ("pairs", "tokenizer", "said"),
    [
        (
            pairs_of(("p", "c", "r"), names=("prompt", "choosen", "rejected")),
            None,
            "Is `choosen` meant to be `chosen`?",
        ),
        (pairs_of(("p", "c", True), names=("prompt", "completion", "label")), None, "unpaired"),
        (pairs_of(names=("prompt", "chosen", "rejected")), None, "has no rows"),
        (pairs_of(("p", "c", "c")), None, "No row can be trained on. 1 x chosen equals rejected"),
        (
            pairs_of(("p", [{"role": "a", "content": "c"}], [{"role": "a", "content": "d"}])),
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


def test_rows_are_dropped_in_order_or_refused():
    pairs = pairs_of(("a", "x", "y"), ("b", "", "y"), ("c", "x", "y"), ("d", "x", "x"))
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
    report = check_pairs(pairs_of(*[("p", "", "r")] * 2500, ("p", "c", "r")), keep_rows=3)
    (finding,) = report.findings
    assert (finding.count, finding.rows) == (2500, (0, 1, 2))
    assert report.bad_rows.tolist() == list(range(2500))
    assert "2,500  empty_completion" in str(report)
    assert "(rows 0, 1, 2, ...)" in str(report)
    assert len(json.dumps(report.to_json())) < 2000


def test_a_streaming_set_is_checked_up_to_a_limit():
    stream = pairs_of(("a", "x", "y"), ("b", "", "y"), ("c", "", "y")).to_iterable_dataset()
    report = check_pairs(stream, limit=2)
    assert (report.rows, found(report)) == (2, {"empty_completion": [1]})
    with pytest.raises(DataError, match="set `limit`"):
        check_pairs(stream)
    with pytest.raises(DataError, match="streaming"):
        drop_bad(stream, report)


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ({"max_length": 0}, "`max_length` must be a whole number >= 1"),
        ({"max_length": 1.5}, "`max_length`"),
        ({"limit": -1}, "`limit`"),
        ({"keep_rows": -1}, "`keep_rows` must be a whole number >= 0 "),
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


def test_the_share_of_longer_chosen_completions_is_told():
    report = check_pairs(pairs_of(("p", "xx", "y"), ("p", "x", "yy"), ("q", "xxx", "y"), ("q", "x", "y")))
    assert report.chosen_longer == 0.5


def turns(*texts):
    """Messages of user and assistant in turn."""
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]


def test_later_turns_of_the_user_are_warned_about():
    rows = [
        {"chosen": turns("Hi", "Hello"), "rejected": turns("Hi", "Go")},
        {"chosen": turns("Hi", "Hello", "How are you?", "Well"), "rejected": turns("Hi", "Go", "Why?", "So")},
    ]
    for tokenizer in (None, tiny_tokenizer()):
        report = check_pairs(Dataset.from_list(rows), tokenizer)
        assert found(report) == {"later_turns": [1]}
        assert "(user in row 1)" in report.findings[0].message
    explicit = [
        {"prompt": turns("Hi"), "chosen": [{"role": role, "content": "a"}], "rejected": turns("", "b")[1:]}
        for role in ("assistant", "tool", "system")
    ]
    assert found(check_pairs(Dataset.from_list(explicit))) == {"later_turns": [1, 2]}


@pytest.mark.parametrize("name", ["messages", "conversation", "question"])
@pytest.mark.parametrize("kind", ["text", "messages"])
def test_a_prompt_under_another_name_is_hinted_at(name, kind):
    told, chosen, rejected = {
        "text": ("Film:", " good", " bad"),
        "messages": (turns("Film"), turns("", "good")[1:], turns("", "bad")[1:]),
    }[kind]
    report = check_pairs(Dataset.from_list([{name: told, "chosen": chosen, "rejected": rejected}]))
    assert f"no column `{name}`; if it holds the prompt, rename it to `prompt`" in str(report)
    named = Dataset.from_list([{"prompt": told, "chosen": chosen, "rejected": rejected}])
    assert check_pairs(named).count("unread_prompt") == 0


def test_a_copy_of_the_chosen_conversation_is_no_prompt():
    row = {"messages": turns("Film", "good"), "chosen": turns("Film", "good"), "rejected": turns("Film", "bad")}
    assert check_pairs(Dataset.from_list([row])).findings == ()


@pytest.mark.parametrize("conversational", [True, False])
def test_tools_that_are_no_json_are_a_finding(conversational):
    texts = {"prompt": turns("Hi"), "chosen": turns("", "Hello")[1:], "rejected": turns("", "Go")[1:]}
    if not conversational:
        texts = {"prompt": "Hi", "chosen": " Hello", "rejected": " Go"}
    rows = [{**texts, "tools": tools} for tools in ("[]", "not json", None, "[" * 100_000)]
    for tokenizer in (None, tiny_tokenizer()):
        report = check_pairs(Dataset.from_list(rows), tokenizer)
        assert found(report) == {"bad_template_options": [1, 3], "duplicate": [2]}
    with pytest.raises(json.JSONDecodeError):
        prepared_by_trl(Dataset.from_list(rows[:2]), tiny_tokenizer())


@pytest.mark.parametrize("conversational", [True, False])
def test_a_row_without_the_templates_arguments_that_others_have_is_a_finding(conversational):
    """TRL ends in a TypeError on it: it unpacks None."""
    texts = {"prompt": turns("Hi"), "chosen": turns("", "Hello")[1:], "rejected": turns("", "Go")[1:]}
    if not conversational:
        texts = {"prompt": "Hi", "chosen": " Hello", "rejected": " Go"}
    rows = [{**texts, "chat_template_kwargs": {"terse": True}}, {**texts, "chat_template_kwargs": None}]
    data = Dataset.from_list(rows)
    for tokenizer in (None, tiny_tokenizer()):
        assert found(check_pairs(data, tokenizer)) == {"bad_template_options": [1]}
    with pytest.raises(TypeError):
        prepared_by_trl(data, tiny_tokenizer())
    assert len(prepared_by_trl(drop_bad(data, check_pairs(data)), tiny_tokenizer())) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tokenize", False),
        ("add_generation_prompt", False),
        ("return_dict", True),
        ("conversation", [1]),
        ("messages", []),
    ],
)
def test_a_rows_template_arguments_are_variables_of_the_template(name, value):
    texts = {"prompt": turns("Hi"), "chosen": turns("", "Hello")[1:], "rejected": turns("", "Go")[1:]}
    data = Dataset.from_list([{**texts, "chat_template_kwargs": {name: value}}])
    with pytest.raises(TypeError):
        prepared_by_trl(data, tiny_tokenizer())
    report = check_pairs(data, tiny_tokenizer())
    assert report.count("bad_template_options") == 1
    assert f"holds `{name}`" in str(report)
    fine = Dataset.from_list([{**texts, "chat_template_kwargs": {"terse": True}}])
    assert check_pairs(fine, tiny_tokenizer()).clean


IMAGE = {"type": "image"}
HELLO = {"type": "text", "text": "Hello"}
SAID = [{"role": "assistant", "content": "Hello"}]


@pytest.mark.parametrize(
    ("images", "prompt", "good"),
    [
        (1, [{"role": "user", "content": "Look"}], True),
        (2, [{"role": "user", "content": "Look"}], True),
        (1, [{"role": "user", "content": [IMAGE, HELLO]}], True),
        (0, [{"role": "user", "content": [HELLO]}], True),
        (2, [{"role": "user", "content": [IMAGE, HELLO]}], False),
        (0, [{"role": "user", "content": [IMAGE, HELLO]}], False),
        (1, [{"role": "system", "content": "Look"}], False),
        (1, [{"role": "developer", "content": "Look"}, {"role": "user", "content": "Look"}], False),
    ],
)
def test_rows_with_as_many_images_as_places_are_those_that_trl_takes(images, prompt, good):
    picture = Image.new("RGB", (2, 2))
    taken = True
    try:
        prepare_multimodal_messages(prompt, images=[picture] * images)
    except ValueError:
        taken = False
    assert taken == good
    other = [{"role": "assistant", "content": "Bye"}]
    row = {"prompt": prompt, "chosen": SAID, "rejected": other, "images": [picture] * images}
    other_row = {"prompt": [{"role": "user", "content": "x"}], "chosen": other, "rejected": SAID, "images": [picture]}
    report = check_pairs(images_of(row, other_row))
    assert (report.count("bad_images") == 0) == good
    assert report.dropped == (not good)


def images_of(*rows):
    """A data set whose messages are kept as written, and whose images are images."""
    features = Features({name: Json() for name in ("prompt", "chosen", "rejected")} | {"images": List(ImageFeature())})
    return Dataset.from_list(list(rows), features=features)


def test_faults_of_rows_with_images_are_found():
    picture, user = Image.new("RGB", (2, 2)), [{"role": "user", "content": "Look"}]
    same = {"prompt": user, "chosen": SAID, "rejected": SAID, "images": [picture]}
    lost = {**same, "rejected": [{"role": "assistant", "content": "Bye"}], "images": [None]}
    inside = {**lost, "chosen": [{"role": "assistant", "content": [IMAGE, HELLO]}], "images": [picture]}
    report = check_pairs(images_of({**lost, "images": [picture]}, same, lost, inside))
    assert found(report) == {"identical": [1], "bad_images": [2, 3], "images": []}
    with pytest.raises(DataError, match=r"3 of 4 pairs cannot be trained on"):
        drop_bad(images_of(same, lost, inside, {**lost, "images": [picture]}), report, "error")


def test_pairs_with_images_need_a_prompt():
    row = {"chosen": turns("Look", "a"), "rejected": turns("Look", "b"), "image": Image.new("RGB", (2, 2))}
    with pytest.raises(DataError, match="need the column `prompt`"):
        check_pairs(Dataset.from_list([row])).raise_if_unusable()


def test_rows_beyond_the_limits_are_named(monkeypatch):
    monkeypatch.setattr(_text, "MOST_CHARACTERS", 100)
    monkeypatch.setattr(_text, "MOST_MESSAGES", 4)
    plain = pairs_of(("p", "good", "bad"), ("p" * 101, "good", "bad"), ("p", "g" * 101, "bad"), ("p", "g" * 100, "bad"))
    for tokenizer in (None, tiny_tokenizer()):
        assert found(check_pairs(plain, tokenizer)) == {"too_long": [1, 2]}
    answers = {"chosen": turns("", "good")[1:], "rejected": turns("", "bad")[1:]}
    rows = [{"prompt": turns(*"abc"), **answers}, {"prompt": turns(*"abcde"), **answers}]
    assert found(check_pairs(Dataset.from_list(rows))) == {"too_long": [1]}
    monkeypatch.setattr(_text, "MOST_CHARACTERS", 60)  # the template writes 33 characters around each message
    assert found(check_pairs(Dataset.from_list(rows), tiny_tokenizer())) == {"too_long": [1, 0], "no_pairs": []}


def test_a_line_of_50_mb_costs_no_memory_to_refuse(tmp_path):
    path = tmp_path / "pairs.jsonl"
    row = {"prompt": "p", "chosen": " good" * 10_000_000, "rejected": " bad"}
    path.write_text(json.dumps(row) + "\n" + json.dumps({**row, "chosen": " good"}) + "\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = check_pairs(load_pairs(path), tiny_tokenizer(), max_length=64)
    assert found(report) == {"too_long": [0]}
    assert "10,000,000 characters" in report.findings[0].message
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000  # kB; tokenising took 7 GB
