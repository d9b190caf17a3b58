"""Groups to pairs and back: what a ranking, scores, a best answer or labels amount to."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefalign._errors import DataError
from prefalign.data import groups_of, pairs_of

ROW = {"prompt": "p", "completions": ["a", "b", "c"], "source": "x"}


def sides(rows):
    return [(row["chosen"], row["rejected"]) for row in rows]


@pytest.mark.parametrize(
    ("judgement", "which", "wanted"),
    [
        ({"ranks": [2, 1, 3]}, "all", {("b", "a"), ("a", "c"), ("b", "c")}),
        ({"ranks": [2, 1, 3]}, "adjacent", {("b", "a"), ("a", "c")}),
        ({"ranks": [2, 1, 3]}, "best_worst", {("b", "c")}),
        ({"ranks": [2, 1, 3]}, "best_rest", {("b", "a"), ("b", "c")}),
        ({"ranks": [1, 1, 2]}, "all", {("a", "c"), ("b", "c")}),
        ({"ranks": [1, 1, 1]}, "all", set()),
        ({"scores": [0.5, -1.0, 2]}, "adjacent", {("c", "a"), ("a", "b")}),
        ({"best": 2}, "all", {("c", "a"), ("c", "b")}),
        ({"labels": [True, False, True]}, "all", {("a", "b"), ("c", "b")}),
    ],
)
def test_a_judgement_gives_its_pairs(judgement, which, wanted):
    pairs = pairs_of([{**ROW, **judgement}], which)
    assert set(sides(pairs)) == wanted
    assert len(pairs) == len(wanted)
    assert all(pair["prompt"] == "p" and pair["source"] == "x" for pair in pairs)
    assert all(("chosen_score" in pair) == ("scores" in judgement) for pair in pairs)


@given(st.lists(st.lists(st.integers(-3, 3), min_size=2, max_size=6), min_size=1, max_size=4), st.booleans())
def test_all_pairs_and_back_lose_nothing(judgements, scored):
    # Distinct judgements, so that every two answers are ordered.
    groups = []
    for number, said in enumerate(judgements):
        values = [10 * value + place for place, value in enumerate(said)]
        order = sorted(values, reverse=True)
        told = {"scores": values} if scored else {"ranks": [order.index(v) + 1 for v in values]}
        groups.append({"prompt": f"p{number}", "completions": [f"y{i}" for i in range(len(said))], **told})
    back = groups_of(pairs_of(groups, "all"))
    name = "scores" if scored else "ranks"
    told = [dict(zip(g["completions"], g[name], strict=True)) for g in groups]
    assert [dict(zip(g["completions"], g[name], strict=True)) for g in back] == told
    # Of a ranking its neighbours say all.
    if not scored:
        near = groups_of(pairs_of(groups, "adjacent"))
        assert [dict(zip(g["completions"], g["ranks"], strict=True)) for g in near] == told


def test_what_pairs_leave_open_is_not_invented():
    open_pairs = [{"prompt": "p", "chosen": "a", "rejected": b} for b in "bc"]
    assert [group["completions"] for group in groups_of(open_pairs)] == [["a", "b"], ["a", "c"]]


def test_conversations_are_answers_too():
    said = [[{"role": "assistant", "content": text}] for text in "ab"]
    pairs = [{"prompt": [{"role": "user", "content": "p"}], "chosen": said[0], "rejected": said[1]}]
    assert groups_of(pairs)[0]["completions"] == said
    assert pairs_of(groups_of(pairs)) == pairs


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: pairs_of([{"prompt": "p"}]), "row 1 must have `completions`"),
        (lambda: pairs_of([{**ROW, "best": 0}, ROW]), "row 2 must have one judgement"),
        (lambda: pairs_of([{**ROW, "ranks": [1, 2, 3], "best": 0}]), "got `ranks` and `best`"),
        (lambda: pairs_of([{**ROW, "ranks": [1, 2]}]), "one entry for each of 3"),
        (lambda: pairs_of([{**ROW, "scores": [1, 2, float("nan")]}]), "finite numbers"),
        (lambda: pairs_of([{**ROW, "best": 3}]), "from 0 to 2"),
        (lambda: pairs_of([{**ROW, "labels": [1, 0, "good"]}]), "true or false"),
        (lambda: pairs_of([{**ROW, "best": 0}], "some"), "`which` must be"),
        (lambda: groups_of([{"prompt": "p", "chosen": "a"}]), "has no `rejected`"),
        (
            lambda: groups_of([{"prompt": "p", "chosen": a, "rejected": b} for a, b in ("ab", "bc", "ca")]),
            "rows 1, 2, 3 contradict",
        ),
        (
            lambda: groups_of(
                [
                    {"prompt": "p", "chosen": "a", "rejected": b, "chosen_score": s, "rejected_score": 0}
                    for b, s in (("b", 1), ("c", 2))
                ]
            ),
            "rows 1 and 2 give one answer the scores 1 and 2",
        ),
        (
            lambda: groups_of(
                [{"prompt": "p", "chosen": "a", "rejected": "b", "chosen_score": 1, "rejected_score": 2}]
            ),
            "row 1 does not score its chosen answer above",
        ),
        (
            lambda: groups_of([{"prompt": "p", "chosen": "a", "rejected": b, "source": b} for b in "bc"]),
            "different `source`",
        ),
    ],
)
def test_bad_rows_are_named(call, reason):
    with pytest.raises(DataError, match=reason):
        call()


def test_many_ranked_answers_are_quick():
    row = {"prompt": "p", "completions": list(map(str, range(40))), "ranks": list(range(1, 41))}
    pairs = pairs_of([row])
    assert len(pairs) == len(list(itertools.combinations(range(40), 2)))
    assert groups_of(pairs)[0]["ranks"] == row["ranks"]
