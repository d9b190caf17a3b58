"""MkDocs hook: the notebooks, run when the site is built, as pages. They are kept without outputs."""

from __future__ import annotations

import base64
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

FOLDER = Path(__file__).parents[1] / "notebooks"
LIMIT = 300  # seconds for one cell, which takes a few where nothing else runs


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page per notebook, and the pictures that it draws. A cell that raises stops the build."""
    from mkdocs.structure.files import File

    for path in sorted(FOLDER.glob("*.ipynb")):
        pictures: dict[str, bytes] = {}
        text = "\n\n".join(_cells(execute(path), path.stem, pictures))
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=text))
        for name, content in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links to notebooks, which a reader of the source can follow, lead to their pages."""
    return re.sub(r"\]\(((?:\.\./)?notebooks/[\w-]+)\.ipynb\)", r"](\1.md)", markdown)


def execute(path: Path) -> Any:
    """The notebook with the outputs of its cells, which run in an empty folder.

    Raises:
        CellExecutionError: A cell raises.
    """
    import nbformat
    from nbclient import NotebookClient

    book = nbformat.read(path, as_version=4)
    environment = {**os.environ, "MPLBACKEND": "module://matplotlib_inline.backend_inline"}  # whatever is set outside
    with tempfile.TemporaryDirectory() as folder:
        where = {"metadata": {"path": folder}}
        return NotebookClient(book, timeout=LIMIT, kernel_name="python3", resources=where).execute(env=environment)


def _cells(book: Any, name: str, pictures: dict[str, bytes]) -> Iterator[str]:
    for cell in book.cells:
        if cell.cell_type == "markdown":
            yield re.sub(r"\]\(([\w-]+)\.ipynb\)", r"](\1.md)", cell.source)
            continue
        yield f"```python\n{cell.source}\n```"
        for output in cell.outputs:
            yield from _output(output, name, pictures)
    yield f"*Run when this site was built. The notebook: [{name}.ipynb]({name}.ipynb).*"


def _output(output: Any, name: str, pictures: dict[str, bytes]) -> Iterator[str]:
    if output.output_type == "stream":
        if output.name == "stdout":  # progress bars go to stderr
            yield _text(output.text)
        return
    data = output.get("data", {})
    if "image/svg+xml" in data:
        yield _picture(name, "svg", data["image/svg+xml"].encode("utf-8"), pictures)
    elif "image/png" in data:
        yield _picture(name, "png", base64.b64decode(data["image/png"]), pictures)
    elif "text/html" in data:
        yield "<div>" + re.sub(r"\s*\n\s*", " ", data["text/html"]) + "</div>"
    elif "text/plain" in data:
        yield _text(data["text/plain"])


def _picture(name: str, kind: str, content: bytes, pictures: dict[str, bytes]) -> str:
    file = f"{name}-{len(pictures) + 1}.{kind}"
    pictures[file] = content
    return f"![What the cell above draws]({file})"


def _text(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```"
