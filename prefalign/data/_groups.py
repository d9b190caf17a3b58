"""Judged groups of answers to pairs, and pairs that share a prompt to groups."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, get_args

from .._errors import DataError

Row = Mapping[str, Any]
Which = Literal["all", "adjacent", "best_worst", "best_rest"]
_JUDGEMENTS = ("ranks", "scores", "best", "labels")


def pairs_of(groups: Iterable[Row], which: Which = "all") -> list[dict[str, Any]]:
    """The pairs of rows with several judged answers.

    Args:
        groups: Rows with `completions`, K answers each, and one of `ranks` (1 is the best; equal numbers are ties),
            `scores` (higher is better), `best` (its place, from 0) or `labels` (true for desirable ones). Other columns
            go into each pair.
        which: "all" pairs of which one is judged better; of "adjacent" places; "best_worst"; or "best_rest", each other
            one against the best. Ties give no pair.

    Returns:
        Rows with `chosen` and `rejected`, with scores also `chosen_score` and `rejected_score`; in the groups' order.

    Raises:
        DataError: A row has no judgement or several, or one that does not fit its answers; names the row.

    Example:
        >>> pairs_of([{"prompt": "Hi", "completions": ["a", "b", "c"], "ranks": [2, 1, 2]}])
        [{'prompt': 'Hi', 'chosen': 'b', 'rejected': 'a'}, {'prompt': 'Hi', 'chosen': 'b', 'rejected': 'c'}]
    """
    if which not in get_args(Which):
        raise DataError(f"`which` must be one of {', '.join(map(repr, get_args(Which)))} (got {which!r}).")
    made: list[dict[str, Any]] = []
    for number, row in enumerate(groups, 1):
        answers, places, scores = _judged(row, number)
        rest = {name: value for name, value in row.items() if name not in ("completions", *_JUDGEMENTS)}
        for better, worse in _ordered(places, which):
            pair = {**rest, "chosen": answers[better], "rejected": answers[worse]}
            if scores is not None:
                pair |= {"chosen_score": scores[better], "rejected_score": scores[worse]}
            made.append(pair)
    return made


def groups_of(pairs: Iterable[Row]) -> list[dict[str, Any]]:
    """Pairs that share a prompt as groups: the answers once each, and the judgement that the pairs amount to.

    With scores on both sides a group has `scores`. Without, it has `ranks` where the pairs order every two of its
    answers, by chains too; where they leave some open, the prompt's pairs stay groups of two, because ranks would
    invent an order.

    Args:
        pairs: Rows with `prompt`, `chosen` and `rejected`, optionally `chosen_score` and `rejected_score`. Other
            columns must be the same in all rows of a prompt.

    Returns:
        Rows with `prompt`, `completions` and `ranks` or `scores`; prompts in the order in which they first come.

    Raises:
        DataError: A row lacks a column, pairs of a prompt contradict one another, or an answer has two scores; names
            the rows.

    Example:
        >>> groups_of([
        ...     {"prompt": "Hi", "chosen": "b", "rejected": "a"},
        ...     {"prompt": "Hi", "chosen": "a", "rejected": "c"},
        ... ])
        [{'prompt': 'Hi', 'completions': ['b', 'a', 'c'], 'ranks': [1, 2, 3]}]
    """
    prompts: dict[str, list[tuple[int, Row]]] = {}
    for number, row in enumerate(pairs, 1):
        missing = [name for name in ("prompt", "chosen", "rejected") if row.get(name) is None]
        if missing:
            raise DataError(f"row {number} has no `{missing[0]}`: pairs are grouped by their prompts.")
        prompts.setdefault(_key(row["prompt"]), []).append((number, row))
    return [group for rows in prompts.values() for group in _groups(rows)]


def _judged(row: Row, number: int) -> tuple[list[Any], list[float], list[float] | None]:
    """The answers, their places (the least is the best), and their scores where there are any."""
    answers = row.get("completions")
    if not isinstance(answers, list | tuple) or len(answers) == 0:
        raise DataError(f"row {number} must have `completions`, a list of at least one answer (got {answers!r:.60}).")
    given = [name for name in _JUDGEMENTS if row.get(name) is not None]
    if len(given) != 1:
        found = " and ".join(f"`{name}`" for name in given) or "none"
        raise DataError(f"row {number} must have one judgement, `ranks`, `scores`, `best` or `labels` (got {found}).")
    name, said = given[0], row[given[0]]
    if name == "best":
        if isinstance(said, bool) or not isinstance(said, int) or not 0 <= said < len(answers):
            raise DataError(f"row {number}: `best` must be a place from 0 to {len(answers) - 1} (got {said!r}).")
        return list(answers), [float(i != said) for i in range(len(answers))], None
    if not isinstance(said, list | tuple) or len(said) != len(answers):
        size = len(said) if isinstance(said, list | tuple) else repr(said)
        raise DataError(f"row {number}: `{name}` must have one entry for each of {len(answers)} answers (got {size}).")
    if name == "labels":
        if not all(isinstance(label, bool) or label in (0, 1) for label in said):
            raise DataError(f"row {number}: `labels` must be true or false (got {said!r:.60}).")
        return list(answers), [float(not label) for label in said], None
    if not all(isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in said):
        raise DataError(f"row {number}: `{name}` must be finite numbers (got {said!r:.60}).")
    if name == "ranks":
        return list(answers), [float(x) for x in said], None
    return list(answers), [-float(x) for x in said], list(said)


def _ordered(places: list[float], which: Which) -> Iterator[tuple[int, int]]:
    steps = sorted(set(places))
    for i, first in enumerate(places):
        for j, second in enumerate(places):
            near = steps.index(second) - steps.index(first)
            if near > 0 and (
                which == "all"
                or (which == "adjacent" and near == 1)
                or (which == "best_rest" and first == steps[0])
                or (which == "best_worst" and first == steps[0] and second == steps[-1])
            ):
                yield i, j


def _groups(rows: list[tuple[int, Row]]) -> list[dict[str, Any]]:
    answers: dict[str, Any] = {}
    for _, row in rows:
        for side in ("chosen", "rejected"):
            answers.setdefault(_key(row[side]), row[side])
    names = list(answers)
    rest = _rest(rows)
    if all(row.get("chosen_score") is not None and row.get("rejected_score") is not None for _, row in rows):
        scores = _scores(rows)
        return [{**rest, "completions": list(answers.values()), "scores": [scores[name] for name in names]}]
    below = _closed({name: {_key(r["rejected"]) for _, r in rows if _key(r["chosen"]) == name} for name in names})
    for name, under in below.items():
        if name in under:
            numbers = ", ".join(str(number) for number, _ in rows)
            raise DataError(f"rows {numbers} contradict one another: by them an answer is better than itself.")
    if any(a not in below[b] and b not in below[a] for i, a in enumerate(names) for b in names[:i]):
        return [{**rest, "completions": [row["chosen"], row["rejected"]], "ranks": [1, 2]} for _, row in rows]
    return [{**rest, "completions": list(answers.values()), "ranks": [len(names) - len(below[name]) for name in names]}]


def _rest(rows: list[tuple[int, Row]]) -> dict[str, Any]:
    own = {"chosen", "rejected", "chosen_score", "rejected_score"}
    number, first = rows[0]
    rest = {name: value for name, value in first.items() if name not in own}
    for other, row in rows[1:]:
        changed = [name for name in {*rest, *row} - own if rest.get(name) != row.get(name)]
        if changed:
            raise DataError(f"rows {number} and {other} have one prompt and different `{changed[0]}`: drop it.")
    return rest


def _scores(rows: list[tuple[int, Row]]) -> dict[str, float]:
    found: dict[str, tuple[float, int]] = {}
    for number, row in rows:
        if not row["chosen_score"] > row["rejected_score"]:
            raise DataError(f"row {number} does not score its chosen answer above the rejected one.")
        for side in ("chosen", "rejected"):
            score, key = row[f"{side}_score"], _key(row[side])
            known, before = found.setdefault(key, (score, number))
            if known != score:
                raise DataError(f"rows {before} and {number} give one answer the scores {known} and {score}.")
    return {key: score for key, (score, _) in found.items()}


def _closed(below: dict[str, set[str]]) -> dict[str, set[str]]:
    """Everything that is below each, by chains too."""
    for middle in below:
        for under in below.values():
            if middle in under:
                under |= below[middle]
    return below


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
