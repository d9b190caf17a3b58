"""Reading pairs from a file, a saved data set or the Hub, with errors that say which line is wrong."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..._errors import DataError, did_you_mean
from .._layout import find_layout
from ._files import read_csv, read_json, read_jsonl, table_of

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

_READERS = {".jsonl": read_jsonl, ".ndjson": read_jsonl, ".json": read_json, ".csv": read_csv}
_SUFFIXES = (*_READERS, ".parquet")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)


def load_pairs(path_or_name: str | os.PathLike[str], *, split: str = "train", subset: str | None = None) -> Dataset:
    """Read pairs; what is not pairs is refused with the file and the line.

    Args:
        path_or_name: A .jsonl, .json, .csv or .parquet file, a folder written by `Dataset.save_to_disk`, or the name
            of a data set on the Hugging Face Hub ("owner/name"). What exists on disk wins over the Hub.
        split: Which split, where there are several (Hub, saved folder with splits).
        subset: Which configuration of a data set on the Hub.

    Returns:
        Pairs in one of TRL's layouts. Null values are kept: `check_pairs` reports them. JSON and CSV files are held in
        memory, Parquet and Hub data are memory-mapped.

    Raises:
        DataError: Nothing is there, it cannot be read, or its columns or values are no pairs.
    """
    path = os.fspath(path_or_name) if isinstance(path_or_name, str | os.PathLike) else path_or_name
    if not isinstance(path, str) or not path.strip():
        raise DataError(f"The data must be named by a path or a Hub name (got {path!r}).")
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        if os.path.islink(path):
            raise DataError(f"{path} is a symbolic link to {os.readlink(path)}, which does not exist.") from None
        return _from_hub(path, split, subset)
    except (OSError, ValueError) as error:  # a loop of links, a name too long, a NUL character, no permission
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path!a:.300} cannot be opened: {reason}.") from None
    if subset is not None:
        raise DataError(f"`subset` is for data sets on the Hub (got {subset!r} with the path {path}). Leave it out.")
    if stat.S_ISDIR(mode):
        return _from_folder(Path(path), split)
    if not stat.S_ISREG(mode):
        raise DataError(f"{path} is neither a file nor a folder (a device or a pipe). Save the data in a file first.")
    return _from_file(Path(path))


def _from_file(path: Path) -> Dataset:
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        near = did_you_mean(suffix, _SUFFIXES)
        raise DataError(f"{path} must end in one of {', '.join(_SUFFIXES)} (got {suffix or 'no suffix'!r}).{near}")
    try:
        if not path.stat().st_size:
            raise DataError(f"{path} is empty. One JSON object per line is expected, or a .csv or .parquet table.")
        if suffix == ".parquet":
            return _from_parquet(path)
        dataset = _from_table(table_of(_READERS[suffix](path), path), path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None
    return _checked(dataset, str(path))


def _from_table(table: pa.Table, path: Path) -> Dataset:
    import pyarrow as pa
    from datasets import Dataset

    try:
        return Dataset(table)
    except (pa.ArrowException, ValueError) as error:
        if any("\0" in name for name in _names(table.schema)):  # Arrow takes it, and forgets what is behind it
            raise DataError(f"{path}: the name of a column holds a NUL. Rename it.") from None
        raise DataError(f"{path}: the rows make no table: {_first_line(error)}. Is one nested too deeply?") from None
    except (RecursionError, TypeError, KeyError, AttributeError) as error:  # of the metadata, which is JSON
        raise DataError(
            f"{path}: what `datasets` wrote into its metadata cannot be read: {_first_line(error)}."
        ) from None


def _names(schema: pa.Schema) -> Iterator[str]:
    """The names of all columns and of what they hold; `schema.to_string` takes the depth's square."""
    waiting = list(schema)
    while waiting:
        field = waiting.pop()
        yield field.name
        waiting += [field.type.field(number) for number in range(field.type.num_fields)]


def _from_parquet(path: Path) -> Dataset:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, memory_map=True)
        table.validate(full=True)
    except (pa.ArrowException, ValueError) as error:
        raise DataError(f"{path} is no readable Parquet file: {_first_line(error)}.") from None
    return _checked(_from_table(table, path), str(path))


def _from_folder(path: Path, split: str) -> Dataset:
    from datasets import load_from_disk

    if not ((path / "state.json").is_file() or (path / "dataset_dict.json").is_file()):
        files = sorted(entry.name for entry in path.iterdir() if entry.suffix.lower() in _SUFFIXES)[:3]
        remedy = f"Name a file in it, such as {path / files[0]}." if files else "Name a file of pairs."
        raise DataError(f"{path} is a folder, and not one that `Dataset.save_to_disk` wrote. {remedy}")
    try:
        loaded = load_from_disk(str(path))
    except Exception as error:  # whatever a damaged folder makes the library raise
        raise DataError(f"{path} cannot be read as a saved data set: {_first_line(error)}.") from None
    if isinstance(loaded, dict):
        if split not in loaded:
            known = ", ".join(map(repr, loaded))
            raise DataError(f"{path} has no split {split!r} (it has {known}).{did_you_mean(split, loaded)}")
        loaded = loaded[split]
    return _checked(loaded, str(path))


def _from_hub(name: str, split: str, subset: str | None) -> Dataset:
    if Path(name).suffix.lower() in (*_SUFFIXES, ".gz", ".txt", ".tsv") or not _HUB_NAME.fullmatch(name):
        folder = Path(name).parent
        try:
            near = did_you_mean(Path(name).name, [entry.name for entry in folder.iterdir()] if folder.is_dir() else [])
        except OSError:
            near = ""
        raise DataError(f"There is no file {name!a}.{near}")
    from datasets import load_dataset

    try:
        loaded = load_dataset(name, subset, split=split)
    except Exception as error:  # the Hub client raises dozens of kinds
        raise DataError(
            f"{name!r} is no file here, and the Hub gave no split {split!r} of a data set by that name: "
            f"{type(error).__name__}: {_first_line(error)}"
        ) from None
    return _checked(loaded, name)


def _checked(dataset: Dataset, where: str) -> Dataset:
    """The data set, if its columns are pairs and hold texts or conversations."""
    from datasets import Value

    try:
        find_layout(dataset.column_names)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    if not len(dataset):
        raise DataError(f"{where} has columns but no rows.")
    for name in ("prompt", "chosen", "rejected", "completion"):
        feature = dataset.features.get(name)
        if isinstance(feature, Value) and feature.dtype not in ("string", "large_string", "null"):
            raise DataError(f"{where}: the column `{name}` must hold text or lists of messages (got {feature.dtype}).")
    return dataset


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
