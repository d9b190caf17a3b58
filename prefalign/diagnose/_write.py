"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from .._errors import DataError


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path` by way of a temporary file beside it.

    Raises:
        DataError: The folder cannot be written to.
    """
    partial = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp", delete=False) as file:
            partial = file.name
            file.write(content)
        # A temporary file is private; this one is a result, readable by whom the user's mask allows.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(partial, 0o666 & ~mask)
        os.replace(partial, path)
    except OSError as error:
        if partial:
            Path(partial).unlink(missing_ok=True)
        raise DataError(f"{path} cannot be written: {error.strerror or error}.") from None
