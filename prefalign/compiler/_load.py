"""A function out of a file, for the command line."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any

from .._errors import DerivationError, did_you_mean
from ..logic import PreferenceStructure, RuleSet
from ._derive import derive


def load_function(target: str) -> Callable[..., Any]:
    """The function that `path/to/file.py:name` (or `package.module:Class.method`) names.

    The file is imported, which runs it: name only files that you would run.

    Args:
        target: A Python file or a module, a colon, and a function's name, dotted for a method.

    Raises:
        DerivationError: There is no such file, module or function, or importing it fails.
    """
    place, colon, name = target.rpartition(":")
    if not colon or not place or not name:
        raise DerivationError(f"The function must be given as path/to/file.py:name (got {target!r}).")
    found: Any = _module(place)
    for part in name.split("."):
        if not hasattr(found, part):
            names = [n for n in vars(found) if not n.startswith("_")]
            raise DerivationError(f"There is no `{part}` in {place}.{did_you_mean(part, names)}")
        found = getattr(found, part)
    if not callable(found):
        raise DerivationError(f"`{name}` in {place} is no function (got {type(found).__name__}).")
    return found  # type: ignore[no-any-return]


def derive_target(target: str, roles: Mapping[str, str] | None = None) -> PreferenceStructure | RuleSet:
    """`derive` for the command line, where no arguments can be given: what a target names, read.

    A method is read on an instance, `Class()`, if the class needs no arguments.

    Args:
        target: As in `load_function`.
        roles: As in `derive`.

    Raises:
        DerivationError: As in `load_function` and `derive`, with a remedy that the command line can follow.
    """
    function = load_function(target)
    name = target.rpartition(":")[2]
    if "." in name and inspect.isfunction(function) and [*inspect.signature(function).parameters][:1] == ["self"]:
        function = getattr(_instance(function.__globals__, name), name.rpartition(".")[2])
    try:
        return derive(function, roles=roles)
    except DerivationError as error:
        said = r'derive\(function, roles={"([^"]+)": "(\w+)"}\)'
        if re.search(said, str(error)):
            # "Say it: --roles rej_logps=l, or whatever it is; or give its value: …"
            text = re.sub(r"; or give its value: .*$", ".", re.sub(said, r"--roles \1=\2", str(error)))
            raise DerivationError(text) from error
        give = r"(?:Give it|Give the one that is something else): derive\(function, (\w+)=…\)\."
        remedy = r"Give `\1` a default in the file, or name a function there that calls this one with a value."
        if not re.search(give, str(error)):
            raise
        raise DerivationError(re.sub(give, remedy, str(error))) from error


def _instance(names: Mapping[str, Any], name: str) -> Any:
    path, _, method = name.rpartition(".")
    first, *others = path.split(".")
    try:
        return reduce(getattr, others, names[first])()
    except Exception as error:
        raise DerivationError(
            f"`{method}` is a method, and `{path}()` cannot be made without arguments ({error}). Put an instance into "
            f"the file, `mine = {path}(…)`, and name `mine.{method}`."
        ) from error


def _module(place: str) -> ModuleType:
    try:
        if not place.endswith(".py"):
            return importlib.import_module(place)
        path = Path(place)
        if not path.is_file():
            raise DerivationError(f"There is no file {place}.")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        # Dataclasses and their like look their module up while it is being imported.
        sys.modules.setdefault(path.stem, module)
        sys.path.insert(0, str(path.parent.resolve()))
        try:
            spec.loader.exec_module(module)
        finally:
            sys.path.pop(0)
        return module
    except DerivationError:
        raise
    except Exception as error:
        raise DerivationError(f"Importing {place} fails: {type(error).__name__}: {error}") from error
