"""Rows out of JSON Lines, JSON and CSV files, each with the number of the line it begins on."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ..._errors import DataError, did_you_mean
from .._layout import TEXT_COLUMNS, find_layout
from ._nested import Shapes, to_json

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, object]
Numbered = Iterator[tuple[int, Row]]

_BATCH = 5000
# The longest line that is read: a file without line ends (a disk image, say) must not fill the memory.
_MAX_LINE = 1 << 28


def read_jsonl(path: Path) -> Numbered:
    """One JSON object per line; blank lines are skipped."""
    for number, line in _lines(path):
        if line.strip():
            yield number, _object(_parse(line.rstrip("\r\n"), path, number), path, number)


def read_json(path: Path) -> Numbered:
    """A JSON list of objects; a file that begins with an object is read as JSON Lines."""
    first = next((line.lstrip()[0] for _, line in _lines(path) if line.strip()), "")
    if first == "{":
        yield from read_jsonl(path)
        return
    text = "".join(line for _, line in _lines(path))
    rows = _parse(text, path, 1)
    if not isinstance(rows, list):
        raise DataError(f"{path} must hold a list of objects (got {_name(rows)}).")
    for index, row in enumerate(rows):
        yield index, _object(row, path, index, "entry")


def read_csv(path: Path) -> Numbered:
    """A comma-separated table with a header; in further columns, numbers become numbers and true/false booleans."""
    limit = csv.field_size_limit(_MAX_LINE)  # the module's own limit is shorter than a long conversation
    try:
        yield from _csv_rows(path)
    finally:
        csv.field_size_limit(limit)


def table_of(rows: Numbered, path: Path) -> pa.Table:
    """Collect rows in an Arrow table.

    Raises:
        DataError: There are none, their columns are no pairs, or a column mixes kinds of values.
    """

    import pyarrow as pa

    place = "entry" if path.suffix.lower() == ".json" else "line"
    batches: list[pa.Table] = []
    batch: list[tuple[int, Row]] = []
    kinds: dict[str, str] = {}
    required: list[str] = []
    shapes = Shapes()
    for number, row in rows:
        where = f"{path}, {place} {number}"
        if not required:
            required = _required(row, where)
        _check_row(row, required, kinds, where)
        for name, value in row.items():
            shapes.add(name, value)
        batch.append((number, row))
        if len(batch) == _BATCH:
            batches.append(_to_arrow(batch, path, place, shapes))
            batch = []
    if batch:
        batches.append(_to_arrow(batch, path, place, shapes))
    if not batches:
        raise DataError(f"{path} has no rows.")
    batches = [_mixed(table, shapes, path) for table in batches]
    try:
        table = pa.concat_tables(batches, promote_options="permissive")
    except pa.ArrowException as error:
        raise DataError(f"{path}: a column mixes kinds of values: {str(error).splitlines()[0]}") from None
    return _typed(table) if path.suffix.lower() == ".csv" else table


def _csv_rows(path: Path) -> Numbered:
    reader = csv.reader((line for _, line in _lines(path)), strict=True)
    header: list[str] = []
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError(f"{path}, line {number}: malformed CSV: {error}.") from None
        if cells is None:
            return
        if not header:
            header = cells
            repeated = sorted({name for name in header if header.count(name) > 1})
            if repeated:
                raise DataError(f"{path}, line {number}: the column `{repeated[0]}` stands there twice. Rename one.")
        elif cells:
            if len(cells) != len(header):
                raise DataError(
                    f"{path}, line {number}: {len(cells)} cells under {len(header)} columns. "
                    "Text with commas or line ends must stand in double quotes."
                )
            yield number, dict(zip(header, cells, strict=True))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with path.open("rb") as file:
        number = 0
        while raw := file.readline(_MAX_LINE + 1):
            number += 1
            if len(raw) > _MAX_LINE:
                raise DataError(f"{path}, line {number} is longer than {_MAX_LINE >> 20} MiB. Write one row per line.")
            try:
                # The byte order mark of some editors is no part of the first line.
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}, line {number} is not UTF-8: byte 0x{raw[error.start]:02x} at column {error.start + 1} "
                    f"({error.reason}). Convert the file, for example with `iconv -t utf-8`."
                ) from None


def _parse(text: str, path: Path, number: int) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = number + error.lineno - 1
        cut = text.split("\n")[error.lineno - 1]
        shown = cut[max(0, error.colno - 31) : error.colno + 29]
        raise DataError(
            f"{path}, line {line}, column {error.colno}: malformed JSON: {error.msg} near {shown!a}."
        ) from None
    except RecursionError:
        raise DataError(f"{path}, line {number}: the JSON is nested too deeply.") from None
    except ValueError as error:  # an integer of more digits than Python converts
        raise DataError(f"{path}, line {number}: malformed JSON: {error}.") from None


def _object(value: object, path: Path, number: int, place: str = "line") -> Row:
    if not isinstance(value, dict):
        raise DataError(f"{path}, {place} {number} must be an object with named texts (got {_name(value)}).")
    return value


def _required(first: Row, where: str) -> list[str]:
    """The columns that every row must have, which the first row decides."""
    try:
        find_layout(first)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    return [name for name in TEXT_COLUMNS if name in first]


def _check_row(row: Row, required: list[str], kinds: dict[str, str], where: str) -> None:
    for name in required:
        if name not in row:
            near = did_you_mean(name, sorted(set(row) - set(TEXT_COLUMNS))).partition("`")[2].partition("`")[0]
            hint = f" Is `{near}` meant to be `{name}`?" if near else ""
            raise DataError(f"{where} has no `{name}`.{hint}")
        value = row[name]
        if value is None:
            continue
        if not isinstance(value, (str, list)):
            raise DataError(
                f"{where}: `{name}` must be text or a list of messages (got {_name(value)}: {value!a:.60})."
            )
        kind = kinds.setdefault(name, _name(value))
        if _name(value) != kind:
            raise DataError(f"{where}: `{name}` is {_name(value)}, but {kind} in the rows before.")


def _mixed(table: pa.Table, shapes: Shapes, path: Path) -> pa.Table:
    """The table with columns as JSON whose rows were all alike until a later batch."""
    for index, name in enumerate(table.column_names):
        if shapes.are_mixed(name) and "json" not in str(table.schema.field(name).type):
            values = table.column(name).to_pylist()
            table = table.set_column(index, name, to_json(values, [str(path)] * len(values), name))
    return table


def _to_arrow(batch: list[tuple[int, Row]], path: Path, place: str, shapes: Shapes) -> pa.Table:

    import pyarrow as pa

    names = {name: None for _, row in batch for name in row}
    schema = list(names)
    for number, row in batch:
        for name in row:
            if not name.isascii() and any("\ud800" <= c <= "\udfff" for c in name):
                raise DataError(f"{path}, {place} {number}: the name {name!a} holds half of a surrogate pair.")
    try:
        table = _arrow([row for _, row in batch], [name for name in schema if not shapes.are_mixed(name)])
        for name in schema:
            if shapes.are_mixed(name):
                wheres = [f"{path}, {place} {number}" for number, _ in batch]
                table = table.append_column(name, to_json([row.get(name) for _, row in batch], wheres, name))
        return table.select(schema)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        _blame(batch, [name for name in schema if not shapes.are_mixed(name)], path, place, error)


def _arrow(rows: list[Row], names: list[str]) -> pa.Table:

    import pyarrow as pa

    return pa.table({name: pa.array([row.get(name) for row in rows]) for name in names})


def _blame(
    batch: list[tuple[int, Row]],
    names: list[str],
    path: Path,
    place: str,
    error: Exception,
) -> NoReturn:
    """Raise with the first line up to which the rows do not fit together."""
    for name in names:
        low, high = 0, len(batch)
        try:
            _arrow([row for _, row in batch], [name])
            continue
        except Exception:
            pass
        while high - low > 1:  # rows [0, low) convert, rows [0, high) do not
            middle = (low + high) // 2
            try:
                _arrow([row for _, row in batch[:middle]], [name])
                low = middle
            except Exception:
                high = middle
        number, row = batch[low]
        if isinstance(error, UnicodeEncodeError):
            raise DataError(f"{path}, {place} {number}: `{name}` holds half of a surrogate pair, which is no text.")
        raise DataError(
            f"{path}, {place} {number}: `{name}` does not fit its column (got {_name(row.get(name))}: "
            f"{row.get(name)!a:.60}). A column holds values of one kind."
        )
    raise DataError(f"{path}: the rows do not make a table: {error}")


def _typed(table: pa.Table) -> pa.Table:
    """The table with each further column of CSV text turned into numbers or booleans, where all of it is."""

    import pyarrow as pa
    import pyarrow.compute as pc

    for index, name in enumerate(table.column_names):
        if name in TEXT_COLUMNS:
            continue
        for kind in (pa.int64(), pa.float64(), pa.bool_()):
            try:
                table = table.set_column(index, name, pc.cast(table.column(name), kind))
                break
            except pa.ArrowInvalid:
                continue
    return table


def _name(value: object) -> str:
    """A kind of JSON value, in words."""
    if value is None:
        return "null"
    kinds: dict[type, str] = {str: "text", list: "a list", dict: "an object", bool: "true/false"}
    return kinds.get(type(value), "a number")
