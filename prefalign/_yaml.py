"""YAML from a user: plain values only, within limits that keep hostile text cheap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ._errors import ConfigError, ParseError

# PyYAML reads some 50 000 characters a second, and no configuration is longer.
_MAX_TEXT = 50_000
# Nodes after every alias was followed: a dozen lines of aliases can stand for more values than memory holds.
_MAX_NODES = 10_000
_MAX_DEPTH = 50


def load_yaml(text: str, what: str) -> object:
    """The value of a YAML (or JSON) document: mappings, lists, text, numbers, dates, nothing else.

    Args:
        text: One document, at most 50 000 characters.
        what: What it should be ("the config file 'a.yaml'"), for error messages.

    Raises:
        ParseError: It is not YAML, has a tag, a name twice, an alias of itself, or is too long or too deep.

    Example:
        >>> load_yaml("loss: dpo(beta=0.1)", "a config")
        {'loss': 'dpo(beta=0.1)'}
    """
    if len(text) > _MAX_TEXT:
        raise ParseError(f"{what} must have at most {_MAX_TEXT} characters (got {len(text)}).", text[:200], 0)
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            return None
        _Walk(text, what).visit(root, 0)
        value: object = loader.construct_document(root)
    except yaml.reader.ReaderError as error:
        place = min(error.position, len(text))
        raise ParseError(f"{what} is malformed: {error.reason}.", text, place) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = error.problem or "it is not YAML"
        raise ParseError(f"{what} is malformed: {reason[:200]}.", text, mark.index if mark else 0) from None
    except RecursionError:
        raise ParseError(f"{what} is nested too deeply.", text[:200], 0) from None
    except ValueError as error:  # a date with 13 months, an integer of thousands of digits
        raise ParseError(f"{what} is malformed: {error}.", text[:200], 0) from None
    return value


def read_mapping(path: str | Path, option: str, what: str) -> dict[str, Any]:
    """The `name: value` lines of a YAML file.

    Args:
        path: The file.
        option: The option that names it, for error messages.
        what: What the file is ("The config file").

    Raises:
        ConfigError: It cannot be read, or holds something else.
        ParseError: It is not YAML, or over the limits of `load_yaml`.
    """
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, ValueError) as error:  # a ValueError: bytes that are no UTF-8, or a NUL in the name
        reason = getattr(error, "strerror", None) or error
        shown = f"{str(path)!a:.200}"
        raise ConfigError(f"`{option}` must name a YAML file that can be read (got {shown}): {reason}") from None
    content = load_yaml(text, f"{what} {str(path)!r}")
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"{what} {str(path)!r} must hold `name: value` lines.")
    return content


class _Loader(yaml.SafeLoader):
    """Refuses depth while it reads: PyYAML takes a stack frame, and ever more time, for each level."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise RecursionError
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


class _Walk:
    """Visits a document as often as its aliases say, until the budget is spent."""

    def __init__(self, text: str, what: str) -> None:
        self.text, self.what, self.count = text, what, 0

    def visit(self, node: yaml.Node, depth: int) -> None:
        self.count += 1
        if self.count > _MAX_NODES or depth > _MAX_DEPTH:
            limit = f"{_MAX_NODES} values" if self.count > _MAX_NODES else f"{_MAX_DEPTH} levels"
            self._fail(f"holds more than {limit} (aliases count each time, and none may hold itself)", node)
        if isinstance(node, yaml.MappingNode):
            names = set()
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                    if key.value in names:
                        self._fail(f"says `{key.value[:60]}` twice", key)
                    names.add(key.value)
                self.visit(key, depth + 1)
                self.visit(value, depth + 1)
        elif isinstance(node, yaml.SequenceNode):
            for item in node.value:
                self.visit(item, depth + 1)

    def _fail(self, reason: str, node: yaml.Node) -> None:
        raise ParseError(f"{self.what} {reason}.", self.text, node.start_mark.index)
