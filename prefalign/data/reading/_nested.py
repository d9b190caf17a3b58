"""Columns of lists and objects, kept as written.

Arrow gives every object of a column the keys of all of them, and fills in nulls: `weather(city=…)` beside
`search(query=…, top_k=…)` would be trained on as `weather(city=…, query=null, top_k=null)`. Where rows differ in their
keys, or in the kinds of their values, the column holds JSON, which data sets decode as it was.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..._errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa


class Shapes:
    """What the values of each nested column have in common so far; the columns of the two answers count as one."""

    def __init__(self) -> None:
        self._mixed: set[str] = set()
        self._shapes: dict[str, Any] = {}

    def add(self, name: str, value: object) -> None:
        """Take in one row's value."""
        if not isinstance(value, list | dict) or self.are_mixed(name):
            return
        twin = _twin(name)
        try:
            self._shapes[twin] = _merged(self._shapes.get(twin), value)
        except _Differs:
            self._mixed.add(twin)

    def are_mixed(self, name: str) -> bool:
        """Whether the column's rows differ in keys or kinds."""
        return _twin(name) in self._mixed


def _twin(name: str) -> str:
    return name.replace("rejected", "chosen")


class _Differs(Exception):
    pass


def _merged(shape: Any, value: object) -> Any:
    """The shape of all values so far: a kind, a list of one shape, or an object of shapes; None for nulls alone."""
    if value is None:
        return shape
    if isinstance(value, dict):
        if shape is None:
            shape = dict.fromkeys(value)
        if not isinstance(shape, dict) or shape.keys() != value.keys():
            raise _Differs
        return {key: _merged(shape[key], part) for key, part in value.items()}
    if isinstance(value, list):
        if shape is None:
            shape = [None]
        if not isinstance(shape, list):
            raise _Differs
        inner = shape[0]
        for part in value:
            inner = _merged(inner, part)
        return [inner]
    if shape is not None and shape is not type(value):
        raise _Differs
    return type(value)


def to_json(values: Sequence[object], wheres: Sequence[str], name: str) -> pa.Array:
    """A column of JSON: of lists of JSON where every value is a list, so that a conversation stays a list of messages.

    Args:
        values: One value per row.
        wheres: Where each row stands, for errors.
        name: The column.

    Raises:
        DataError: A number has more digits than data sets keep in JSON.
    """
    import pyarrow as pa

    for value, where in zip(values, wheres, strict=True):
        _check_exact(value, where, name)
    if all(value is None or isinstance(value, list) for value in values):
        texts = [None if value is None else [json.dumps(part) for part in value] for value in values]  # type: ignore[attr-defined]
        kept = pa.array(texts, pa.list_(pa.string()))
        return pa.ListArray.from_arrays(
            kept.offsets, kept.values.cast(pa.json_()), mask=kept.is_null() if kept.null_count else None
        )
    return pa.array([None if value is None else json.dumps(value) for value in values], pa.string()).cast(pa.json_())


def _check_exact(value: object, where: str, name: str) -> None:
    from datasets.utils.json import ujson_loads

    try:
        same = ujson_loads(json.dumps(value)) == value
    except ValueError:
        same = False
    if not same:
        raise DataError(
            f"{where}: `{name}` holds a number of more digits than can be kept beside rows with other keys. Write it "
            "with at most 15 digits, or as text."
        )
