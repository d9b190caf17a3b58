"""The shape of the package, read off the imports: the arrow between parts, no cycles, no way into another's rooms."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "prefalign"
ROOTS = {"_errors", "_scan", "_yaml", "_files", "_deadline", "_expressions", "_calls", "_numbers"}
MAY_IMPORT = {
    "logic": set(),
    "losses": set(),
    "compiler": {"logic", "losses"},
    "references": {"losses"},
    "data": set(),
    "diagnose": {"losses", "references", "data"},
    "train": {"references", "losses", "data", "diagnose"},
    "sweep": {"train", "compiler", "logic", "losses", "references", "data", "diagnose"},
    "explore": {"logic"},
    "demo": {"train", "compiler", "logic", "losses", "references", "data", "diagnose"},
}
NO_TORCH = {"logic", "explore"}
# How many imports deep the rooms of a part may stand on one another, and how many modules a folder may hold.
DEPTH = {"logic": 8}
DEFAULT_DEPTH = 6
MODULES_PER_FOLDER = 16
# Modules named in text and imported late, and why.
LATE = {
    "__init__.py": "the front door loads nothing heavy",
    "logic/__init__.py": "what a first look at a loss does not need",
    "cli/_main.py": "only the command that runs",
    "compiler/_load.py": "a user's own file",
    "_calls.py": "`logic(...)` in a loss expression, which stands above the losses",
}


def _modules() -> dict[str, Path]:
    found = {}
    for file in PACKAGE.rglob("*.py"):
        parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


MODULES = _modules()
FACES = {name for name, file in MODULES.items() if file.name == "__init__.py"}


def _imports(name: str) -> set[tuple[str, str | None]]:
    """(module, name or None) for every import, when it is loaded or called; TYPE_CHECKING blocks count too."""
    file = MODULES[name]
    here = name.split(".") if name in FACES else name.split(".")[:-1]
    found: set[tuple[str, str | None]] = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            above = here[: len(here) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                found.add((whole, None) if whole in MODULES else (base, alias.name))
        elif isinstance(node, ast.Import):
            found |= {(alias.name, None) for alias in node.names}
    return found


IMPORTS = {name: _imports(name) for name in MODULES}
# face -> {exported name: (module, its name there)}
EXPORTS = {
    face: {what: base for base, what in IMPORTS[face] if what is not None and base.startswith("prefalign.")}
    for face in FACES
}


def _home(module: str, what: str | None) -> str:
    """The module that a name imported through faces is defined in."""
    while module in FACES and what in EXPORTS[module]:
        module = EXPORTS[module][what]
    return module


GRAPH = {
    name: {home for module, what in IMPORTS[name] if (home := _home(module, what)) in MODULES and home != name}
    for name in MODULES
    if name not in FACES
}


def _part(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def _children(folder: str) -> dict[str, set[str]]:
    """What stands in a folder (a file, or a folder with all that is in it), and what each imports of its siblings."""
    place = folder.count(".") + 1
    graph: dict[str, set[str]] = {}
    for name, targets in GRAPH.items():
        if not name.startswith(f"{folder}."):
            continue
        child = name.split(".")[place]
        inside = {target.split(".")[place] for target in targets if target.startswith(f"{folder}.")}
        graph.setdefault(child, set()).update(inside - {child})
    return graph


def _depth(graph: dict[str, set[str]]) -> int:
    floors: dict[str, int] = {}
    for child in TopologicalSorter(graph).static_order():
        floors[child] = 1 + max((floors[below] for below in graph.get(child, ())), default=0)
    return max(floors.values(), default=0)


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_a_part_imports_only_what_the_arrow_allows(part):
    for name in MODULES:
        if _part(name) == part:
            ours = {_part(module) for module, _ in IMPORTS[name] if module.startswith("prefalign.")}
            assert ours <= MAY_IMPORT[part] | ROOTS | {part}, name


def test_every_part_has_its_place_in_the_arrow():
    parts = {_part(name) for name in MODULES if _part(name) and name.count(".") > 1}
    assert parts == {*MAY_IMPORT, "cli"}


def test_no_module_imports_itself_by_a_detour():
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("folder", sorted(FACES - {"prefalign"}))
def test_a_folder_is_small_and_its_rooms_stand_on_one_another_without_a_cycle(folder):
    graph = _children(folder)
    limit = DEPTH.get(_part(folder), DEFAULT_DEPTH)
    assert _depth(graph) <= limit
    if _part(folder) != "cli":  # one file per command
        assert len([name for name in graph if name.startswith("_")]) <= MODULES_PER_FOLDER


def test_nobody_enters_another_part_but_through_its_face():
    for name in MODULES:
        for module, what in IMPORTS[name]:
            if not module.startswith("prefalign.") or _part(module) in {_part(name), *ROOTS}:
                continue
            assert module.count(".") == 1, f"{name} imports {module}"
            assert not (what or "").startswith("_"), f"{name} imports {module}.{what}"


def test_a_room_is_entered_through_its_face():
    for name in GRAPH:
        for module, what in IMPORTS[name]:
            rooms = [face for face in FACES if face.count(".") > 1 and module.startswith(f"{face}.")]
            entered = [room for room in rooms if not name.startswith(f"{room}.")]
            assert what is None or not entered, f"{name} imports {what} from {module}"


def test_no_import_is_hidden_in_importlib():
    for file in PACKAGE.rglob("*.py"):
        if file.relative_to(PACKAGE).as_posix() in LATE:
            continue
        called = {ast.unparse(node.func) for node in ast.walk(ast.parse(file.read_text("utf-8"))) if _is_call(node)}
        assert not called & {"importlib.import_module", "import_module", "__import__"}, file


def _is_call(node: ast.AST) -> bool:
    return isinstance(node, ast.Call)


@pytest.mark.parametrize("part", sorted(NO_TORCH))
def test_the_logic_never_imports_torch(part):
    for name in MODULES:
        if _part(name) == part:
            assert not {module.split(".")[0] for module, _ in IMPORTS[name]} & {"torch", "trl", "transformers"}, name


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


def test_the_picture_of_the_parts_is_current():
    place = PACKAGE.parent / "docs" / "_hooks" / "architecture.py"
    spec = importlib.util.spec_from_file_location("prefalign_docs_architecture", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PICTURE.read_text("utf-8") == module.draw(), "run: python docs/_hooks/architecture.py"
