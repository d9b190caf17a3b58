"""Specifications from text, YAML or JSON: mappings with the arguments of `Spec`, and `all`, `any`, `not`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import reduce
from operator import and_, or_
from pathlib import Path
from typing import Any

from ...._errors import SpecError, did_you_mean
from ...._yaml import load_yaml
from ._spec import Spec, Specification
from ._text import read_clauses

_ARGUMENTS = {item.name for item in fields(Spec)}
_WHOLE = ("atoms", "reference")
_MAX_DEPTH = 100


def read_spec(path: str | Path) -> Specification:
    """Read a specification from a YAML or JSON file, or from text in any other file.

    Raises:
        SpecError: The file cannot be read, or holds an unknown key.
        ParseError: It is not YAML, or not in the grammar of specifications.
    """
    file = Path(path)
    try:
        text = file.read_text("utf-8")
    except (OSError, ValueError) as error:  # a ValueError: bytes that are no UTF-8, or a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise SpecError(f"`{str(file)!a:.200}` cannot be read as a specification: {reason}.") from None
    if file.suffix.lower() not in (".yaml", ".yml", ".json"):
        return parse_spec(text)
    data = load_yaml(text, f"`{file}`")
    if isinstance(data, str):
        return parse_spec(data)
    if not isinstance(data, Mapping):
        raise SpecError(f"`{file}` must hold a mapping of the arguments of Spec (got {type(data).__name__}).")
    return spec_from_mapping(data)


def parse_spec(text: str) -> Specification:
    """Read a specification: clauses joined by `;` or `and`, by `or`, with `not` and parentheses.

    The clauses are the arguments of `Spec`: `atoms w, l, rw, rl`, `between A and B`, `above A`, `below A`, `monotone`,
    `monotone w+ l-`, `monotone ratio`, `symmetric swap`, `rows TF = v, F* = xo`, `forall top >> M(w)`,
    `conditional`, `reference`, `max literals 6`, `survives sum`, `survives sum contrast`, `no displacement`,
    `no displacement joint`, `satisfiable`, `nontrivial`, `nonconstant`,
    `bounded loss`, `bounded gradient`, `distinct ratio`. A loss is a name of the
    catalogue, a column such as `ovxo`, or an equation in quotes.

    Raises:
        ParseError: The text is not in the grammar; the message points at the character.
        SpecError: Its parts contradict each other.

    Example:
        >>> spec = parse_spec("between cpo and unCPO; monotone; max literals 4")
        >>> count(spec)
        3
        >>> parse_spec("between cpo and unCPU")
        Traceback (most recent call last):
        ...
        prefalign._errors.ParseError: Malformed specification: expected a loss's name, a column such as ovxo, or an \
equation in quotes. Did you mean `uncpo`?
            between cpo and unCPU
                            ^
    """
    return spec_from_mapping(read_clauses(text))


def spec_from_mapping(data: Mapping[str, Any]) -> Specification:
    """A specification from a mapping with the arguments of `Spec` and, for combinations, `all`, `any` and `not`.

    What stands beside `all`, `any` or `not` must hold too; `atoms` and `reference` carry over into them. A part may
    also be text.

    Raises:
        SpecError: A key is unknown, or the parts contradict each other.

    Example:
        >>> spec = spec_from_mapping({"monotone": True, "nonconstant": True, "not": {"rows": {"FF": "v"}}})
        >>> count(spec)
        12
    """
    return _build(data, {}, 0)


def _build(data: Any, whole: dict[str, Any], depth: int) -> Specification:
    if depth > _MAX_DEPTH:
        raise SpecError(f"the specification is nested more than {_MAX_DEPTH} levels deep.")
    if isinstance(data, str):
        data = read_clauses(data)
    if not isinstance(data, Mapping):
        raise SpecError(f"a part of a specification must be a mapping or text (got {data!r}).")
    known = {*_ARGUMENTS, "all", "any", "not"}
    for key in data:
        if key not in known:
            raise SpecError(f"a specification has no part `{key}`.{did_you_mean(str(key), known)}")
    whole = {**whole, **{name: data[name] for name in _WHOLE if name in data}}
    built = [_build(part, whole, depth + 1) for part in _parts(data, "all")]
    if alternatives := _parts(data, "any"):
        built.append(reduce(or_, (_build(part, whole, depth + 1) for part in alternatives)))
    if "not" in data:
        built.append(~_build(data["not"], whole, depth + 1))
    own = {name: _value(name, value) for name, value in data.items() if name in _ARGUMENTS}
    if own.keys() - whole.keys() or not built:
        built.append(Spec(**{**whole, **own}))
    return reduce(and_, built)


def _parts(data: Mapping[str, Any], key: str) -> list[Any]:
    parts = data.get(key, [])
    if not isinstance(parts, list) or (key in data and not parts):
        raise SpecError(f"`{key}` must be a list of specifications (got {parts!r}).")
    return parts


def _value(name: str, value: Any) -> Any:
    """YAML has lists where `Spec` takes tuples."""
    return tuple(value) if name in ("atoms", "between") and isinstance(value, list) else value


def as_spec(given: Specification | str | Mapping[str, Any]) -> Specification:
    """A specification from an object, its text, or a mapping as YAML gives it."""
    if isinstance(given, Specification):
        return given
    if isinstance(given, str):
        return parse_spec(given)
    if isinstance(given, Mapping):
        return spec_from_mapping(given)
    raise SpecError(f"`spec` must be a Spec, its text, or a mapping (got {type(given).__name__}).")
