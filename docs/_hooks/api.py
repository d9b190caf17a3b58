"""MkDocs hook: the API pages, one per part, listing what the part's `__init__.py` exports; and pages not in the nav."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

DOCS = Path(__file__).parents[1]
PACKAGE = DOCS.parent / "prefalign"
PARTS = ("losses", "logic", "compiler", "references", "data", "train", "diagnose")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put pages that `nav` does not name at the end of the guide, so that none is out of reach."""
    assert config.nav is not None
    named = set(_leaves(config.nav))
    found = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
    if rest := [path for path in found if path not in named]:
        config.nav.append({"More": rest})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    from mkdocs.structure.files import File

    for part in ("prefalign", *PARTS):
        files.append(File.generated(config, f"api/{part}.md", content=page(part)))
    return files


def page(part: str) -> str:
    """The Markdown of one part's page."""
    module = "prefalign" if part == "prefalign" else f"prefalign.{part}"
    source = PACKAGE / ("__init__.py" if part == "prefalign" else f"{part}/__init__.py")
    tree = ast.parse(source.read_text("utf-8"))
    lines = [f"# {module}", (ast.get_docstring(tree) or "").replace("*", "\\*")]
    for name in names(tree):
        own = _own_page(name) if part == "losses" else None
        if own is not None:
            continue
        lines.append(f"::: {module}.{name}\n    options:\n      heading_level: 2\n      show_root_heading: true")
    if part == "losses":
        lines.insert(2, "Each loss has [a page of its own](../losses.md).")
    if part == "prefalign":
        lines = lines[:2] + [f"- `{name}`: [{home}]({home}.md#{home_id})" for name, home, home_id in _front_door()]
        return "\n\n".join(lines[:2]) + "\n\n" + "\n".join(lines[2:]) + "\n"
    return "\n\n".join(lines) + "\n"


def names(tree: ast.Module) -> list[str]:
    """What a part exports, now or when it is first used: `from ._x import Y as Y`, in order of the alphabet."""
    found = {
        alias.asname
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
        if alias.asname and not alias.asname.startswith("_")
    }
    return sorted(found, key=lambda name: (name.islower(), name.lower()))


def _front_door() -> list[tuple[str, str, str]]:
    import prefalign

    homes = {name: home.strip(".") for name, home in prefalign._HOMES.items()}
    return [(name, home, f"prefalign.{home}.{name}") for name, home in homes.items() if home in PARTS]


def _own_page(name: str) -> str | None:
    return _losses().EXAMPLES.get(name)


def _losses() -> Any:
    spec = importlib.util.spec_from_file_location("prefalign_docs_losses", Path(__file__).with_name("losses.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _leaves(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    items = nav.values() if isinstance(nav, dict) else nav
    return [leaf for item in items for leaf in _leaves(item)]
