"""The arrow of the design: which part may import which, read off the imports themselves."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "prefalign"
ROOTS = {"_errors", "_scan", "_yaml"}
MAY_IMPORT = {
    "logic": set(),
    "losses": set(),
    "compiler": {"logic", "losses"},
    "references": {"losses"},
    "data": set(),
    "train": {"references", "losses", "data"},
    "diagnose": {"losses", "references", "data"},
}
NO_TORCH = {"logic"}


def _imports(file: Path) -> set[str]:
    """The top parts of prefalign that `file` imports when it is loaded or called; TYPE_CHECKING blocks count too."""
    here = ("prefalign", *file.relative_to(PACKAGE).parts[:-1])
    found = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else ()
            module = (*base, *(node.module.split(".") if node.module else ()))
            names = [module] if len(module) > 1 else [(*module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        found |= {name[1] if name[0] == "prefalign" and len(name) > 1 else f"<{name[0]}>" for name in names}
    return found


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_a_part_imports_only_what_the_arrow_allows(part):
    for file in (PACKAGE / part).rglob("*.py"):
        ours = {name for name in _imports(file) if not name.startswith("<")}
        assert ours <= MAY_IMPORT[part] | ROOTS | {part}, file


@pytest.mark.parametrize("part", sorted(NO_TORCH))
def test_the_logic_never_imports_torch(part):
    for file in (PACKAGE / part).rglob("*.py"):
        assert not _imports(file) & {"<torch>", "<trl>", "<transformers>"}, file


@pytest.mark.parametrize("module", ["prefalign", "prefalign.logic", "prefalign.cli"])
def test_the_front_door_loads_no_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_signpost_cannot_be_imported():
    signpost = PACKAGE.parent / "logic"
    if not signpost.is_symlink():
        pytest.skip("this checkout does not support symbolic links")
    assert os.readlink(signpost) == "prefalign/logic"
    run = subprocess.run(
        [sys.executable, "-c", "import logic"], cwd=PACKAGE.parent, capture_output=True, text=True, check=False
    )
    assert run.returncode != 0
    assert "relative import" in run.stderr


def test_modules_stay_small_enough_to_read():
    for file in PACKAGE.rglob("*.py"):
        assert len(file.read_text("utf-8").splitlines()) <= 400, file
