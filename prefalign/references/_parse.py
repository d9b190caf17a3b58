"""From the text of a reference expression to the reference."""

from __future__ import annotations

import importlib
import inspect
import re
import typing
from collections.abc import Callable, Sequence
from typing import NoReturn, cast

from .._errors import ParseError, PrefalignError, did_you_mean
from .._expressions import Argument, Call, Node, Text, plain_value, read_expression
from ._base import Reference

# Name in expressions -> where what makes the reference is found; imported when it is first used.
_TABLE = {
    "initial": "prefalign.references:Initial",
    "none": "prefalign.references:NoReference",
    "checkpoint": "prefalign.references:Checkpoint",
    "soup": "prefalign.references:Soup",
    "past": "prefalign.references:PastCheckpoints",
    "ditto": "prefalign.references:Ditto",
    "moving_average": "prefalign.references:MovingAverage",
    "bema": "prefalign.references:BEMA",
}


def reference_names() -> tuple[str, ...]:
    """Every name that a reference expression may use, sorted."""
    return tuple(sorted(_TABLE))


def parse_reference(text: str) -> Reference:
    """The reference that an expression names; the inverse of `reference.expression`. Parsed, never evaluated.

    Args:
        text: "initial", "none", "checkpoint(PATH)", "soup(PATH, PATH, weights=[0.5, 0.5])", "past(keep=7, every=30)" or
            "moving_average(...)". Paths may be bare or in quotes.

    Returns:
        The reference.

    Raises:
        ParseError: The text is not in the grammar, or a name or an argument is wrong; points at the place.
        PrefalignError: A value is out of range; quotes the text.

    Example:
        >>> parse_reference("checkpoint(models/sft-a)")
        Checkpoint(path='models/sft-a')
    """
    node = read_expression(text, "a reference expression")
    match node:
        case Call(name=name, arguments=arguments, start=start):
            return _make(text, name, arguments, start)
        case Text(value=name, start=start, quoted=False):
            return _make(text, name, (), start)
    _fail("expected a reference, such as `initial` or `checkpoint(PATH)`.", text, node.start)


def _make(text: str, name: str, arguments: tuple[Argument, ...], start: int) -> Reference:
    if name not in _TABLE:
        near = (
            did_you_mean(name, _TABLE) or f" Known: {', '.join(_TABLE)}. For a model write `checkpoint({name[:60]})`."
        )
        _fail(f"There is no reference `{name[:60]}`.{near}", text, start)
    module, _, attribute = _TABLE[name].partition(":")
    make = cast("Callable[..., Reference]", getattr(importlib.import_module(module), attribute))
    parameters = [p for p in inspect.signature(make).parameters.values() if p.name != "self"]
    given = _bind(text, name, make, parameters, arguments)
    for parameter in parameters:
        if parameter.default is inspect.Parameter.empty and parameter.name not in given:
            _fail(f"`{name}` needs the argument `{parameter.name}`.", text, start)
    values = {key: value for key, (value, _) in given.items()}
    try:
        return make(**values)
    except ParseError:
        raise
    except PrefalignError as error:
        named = re.match(r"`(\w+)`", str(error))
        place = given[named.group(1)][1] if named and named.group(1) in given else start
        raise type(error)(str(ParseError(str(error), text, place))) from error


def _bind(
    text: str,
    name: str,
    make: Callable[..., Reference],
    parameters: Sequence[inspect.Parameter],
    arguments: tuple[Argument, ...],
) -> dict[str, tuple[object, int]]:
    """Each parameter's value and where it stands. Several unnamed values go into a first parameter that is a list."""
    names = [parameter.name for parameter in parameters]
    takes = ", ".join(names) or "no arguments"
    unnamed = [argument for argument in arguments if argument.keyword is None]
    given: dict[str, tuple[object, int]] = {}
    if len(unnamed) > 1 and names and _is_list(make, names[0]):
        given[names[0]] = ([_value(text, each.value) for each in unnamed], unnamed[0].start)
        arguments = tuple(argument for argument in arguments if argument.keyword is not None)
    for index, argument in enumerate(arguments):
        key = argument.keyword or (names[index] if index < len(names) else None)
        if key is None:
            _fail(f"`{name}` takes {len(names)} arguments ({takes}).", text, argument.start)
        if key not in names:
            near = did_you_mean(key, names)
            _fail(f"`{name}` has no argument `{key[:60]}`; it takes {takes}.{near}", text, argument.start)
        if key in given:
            _fail(f"The argument `{key}` is given twice.", text, argument.start)
        given[key] = (_value(text, argument.value), argument.start)
    return given


def _is_list(make: Callable[..., Reference], name: str) -> bool:
    hints = typing.get_type_hints(make)  # of a dataclass: its fields
    origin = typing.get_origin(hints.get(name))
    return isinstance(origin, type) and issubclass(origin, Sequence)


def _value(text: str, node: Node) -> object:
    try:
        return plain_value(node)
    except TypeError:
        _fail("expected a path, a number or a list.", text, node.start)


def _fail(message: str, text: str, at: int) -> NoReturn:
    raise ParseError(message, text, at)
