"""Files that are there whole or not at all."""

from __future__ import annotations

from pathlib import Path

from .._errors import DataError
from .._files import new_file


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path` by way of a temporary file beside it.

    Raises:
        DataError: The folder cannot be written to.
    """
    try:
        with new_file(path) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}.") from None
