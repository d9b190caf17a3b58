"""Calls in expressions: what a name makes, and which argument goes to which parameter."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Literal, NoReturn, TypeVar, cast

from ._errors import ParseError, PrefalignError, did_you_mean
from ._expressions import Argument, Call, Constant, Node, Number, Text, plain_value

Made = TypeVar("Made")
Maker = TypeVar("Maker", bound=Callable[..., Any])


class Makers(Generic[Made]):
    """The table of one kind of thing that expressions name: a class, or a function that returns such a thing, by name.

    Args:
        kind, kinds: What is made ("loss", "losses"), for error messages.
        error: The error for a name that cannot be given.
        later: Makers that are imported when they are first used, "module:attribute" by name, so that parts above can
            offer some without being imported here.
    """

    def __init__(
        self, kind: str, kinds: str, error: type[PrefalignError], later: Mapping[str, str] | None = None
    ) -> None:
        self.kind, self.kinds, self.error = kind, kinds, error
        self._table: dict[str, Callable[..., Made] | str] = dict(later or {})
        self.others: dict[str, Callable[..., Made]] = {}  # names that serve where none of the table's is meant

    def register(self, *names: str) -> Callable[[Maker], Maker]:
        """A decorator that gives what makes the thing its names in expressions.

        Raises:
            PrefalignError: A name is taken, or is no lower-case identifier.
        """

        def enter(made: Maker) -> Maker:
            for each in names:
                if not each.isidentifier() or each != each.lower():
                    raise self.error(f"the name of a {self.kind} must be a lower-case identifier (got {each!r}).")
                if each in self._table and not _is_again(self._table[each], made):
                    raise self.error(
                        f"the {self.kind} name `{each}` is taken by {self._table[each]!r}; choose another."
                    )
            self._table |= dict.fromkeys(names, made)
            return made

        return enter

    def names(self) -> tuple[str, ...]:
        """Every name that an expression may use, sorted."""
        return tuple(sorted({*self._table, *self.others}))

    def find(self, name: str) -> Callable[..., Made]:
        """What makes the thing of that name; KeyError if there is none."""
        entry = self._table[name] if name in self._table else self.others[name]
        if isinstance(entry, str):
            module, _, attribute = entry.partition(":")
            return cast("Callable[..., Made]", getattr(importlib.import_module(module), attribute))
        return entry

    def make(
        self, text: str, node: Node, read: Callable[[object, Node], object] | None = None, unknown: str = ""
    ) -> Made:
        """What a call, or a name without brackets, makes.

        Args:
            text: The whole expression, for error messages.
            node: The part of it that is the call.
            read: Reads an argument that is more than a plain value, given its parameter's type; `NotImplemented` if
                the type takes a plain value.
            unknown: What to say, besides the known names, of a name that is not in the table.

        Raises:
            ParseError: A name, an argument or a type is wrong; points at the place.
            PrefalignError: A value is out of range; quotes the text.
        """
        return _Call(self, text, read).make(node, unknown)


class _Call(Generic[Made]):
    def __init__(self, makers: Makers[Made], text: str, read: Callable[[object, Node], object] | None) -> None:
        self.makers, self.text, self.read = makers, text, read

    def fail(self, message: str, at: int) -> NoReturn:
        raise ParseError(message, self.text, at)

    def make(self, node: Node, unknown: str) -> Made:
        assert isinstance(node, Call | Text)
        name, arguments = (node.name, node.arguments) if isinstance(node, Call) else (node.value, ())
        kind, names = self.makers.kind, self.makers.names()
        if name not in names:
            hint = did_you_mean(name, names) or f" Known {self.makers.kinds}: {', '.join(names)}.{unknown}"
            self.fail(f"There is no {kind} `{name[:60]}`.{hint}", node.start)
        make = self.makers.find(name)
        parameters = _parameters(make)
        given = self.bind(name, parameters, arguments, node.start)
        values = {key: self.value(key, parameters[key].hint, value) for key, (value, _) in given.items()}
        places = {key: place for key, (_, place) in given.items()}
        return quoting(lambda: make(**values), self.text, node.start, places)

    def bind(
        self, name: str, parameters: dict[str, Parameter], arguments: tuple[Argument, ...], start: int
    ) -> dict[str, tuple[Node | list[Node], int]]:
        """Each parameter's value and where it stands. Several unnamed ones go into a first parameter that is a list."""
        takes = ", ".join(parameters) or "no arguments"
        names = list(parameters)
        given: dict[str, tuple[Node | list[Node], int]] = {}
        unnamed = [argument for argument in arguments if argument.keyword is None]
        if len(unnamed) > 1 and names and _is_list(parameters[names[0]].hint):
            given[names[0]] = [each.value for each in unnamed], unnamed[0].start
            arguments = tuple(argument for argument in arguments if argument.keyword is not None)
        for index, argument in enumerate(arguments):
            key = argument.keyword
            if key is None:
                if index >= len(names):
                    self.fail(f"`{name}` takes {len(names)} arguments ({takes}).", argument.start)
                if index and arguments[index - 1].keyword is not None:
                    self.fail("An argument without its name cannot follow one with its name.", argument.start)
                key = names[index]
            if key not in parameters:
                near = did_you_mean(key, parameters)
                self.fail(f"`{name}` has no argument `{key[:60]}`; it takes {takes}.{near}", argument.start)
            if key in given:
                self.fail(f"The argument `{key}` is given twice.", argument.start)
            given[key] = argument.value, argument.start
        missing = [key for key, parameter in parameters.items() if parameter.required and key not in given]
        if missing:
            example = f" Write `{name}(beta=0.1)`." if missing == ["beta"] else ""
            self.fail(f"`{name}` needs the argument `{missing[0]}`; it takes {takes}.{example}", start)
        return given

    def value(self, key: str, hint: object, node: Node | list[Node]) -> object:
        if isinstance(node, list):
            return [self.value(key, None, each) for each in node]
        if self.read is not None and (found := self.read(hint, node)) is not NotImplemented:
            return found
        words = _words_beside_a_number(hint)
        if (hint is float or words) and not isinstance(node, Number):
            if isinstance(node, Text) and node.value in words:
                return node.value
            also = "".join(f" or {word!r}" for word in words)
            self.fail(f"`{key}` must be a number{also}.", node.start)
        if hint is bool and not (isinstance(node, Constant) and node.value is not None):
            self.fail(f"`{key}` must be True or False.", node.start)
        if typing.get_origin(hint) is Literal:
            choices = typing.get_args(hint)
            if not isinstance(node, Text) or node.value not in choices:
                near = did_you_mean(node.value, choices) if isinstance(node, Text) else ""
                self.fail(f"`{key}` must be one of {', '.join(map(repr, choices))}.{near}", node.start)
        try:
            return plain_value(node)
        except TypeError:
            self.fail(f"`{key}` cannot be a {self.makers.kind}.", node.start)


def quoting(make: Callable[[], Made], text: str, start: int, places: Mapping[str, int]) -> Made:
    """What `make` returns; its errors again, with the user's text and the place of the argument that they name."""
    try:
        return make()
    except ParseError as error:
        # From a language inside a string, such as the formula of `logic`: it quotes its own text.
        raise ParseError(str(error), text, start) from error
    except PrefalignError as error:
        named = re.match(r"`(\w+)`", str(error))
        place = places.get(named.group(1), start) if named else start
        raise type(error)(str(ParseError(str(error), text, place))) from error


class Parameter(typing.NamedTuple):
    """What an argument must be: its type, where that is known; and whether it is required."""

    hint: object
    required: bool


@functools.cache
def _parameters(make: Callable[..., Any]) -> dict[str, Parameter]:
    try:
        hints = typing.get_type_hints(make)  # of a dataclass: its fields
    except NameError:
        # Annotations that name what is imported for type checkers only: the maker checks its arguments itself.
        hints = {}
    return {
        name: Parameter(hints.get(name), parameter.default is inspect.Parameter.empty)
        for name, parameter in inspect.signature(make).parameters.items()
    }


def _words_beside_a_number(hint: object) -> tuple[str, ...]:
    """The words that may stand where a number would, as in `float | Literal["estimate"]`."""
    parts = typing.get_args(hint)
    if float not in parts:
        return ()
    return tuple(word for part in parts if typing.get_origin(part) is Literal for word in typing.get_args(part))


def _is_list(hint: object) -> bool:
    origin = typing.get_origin(hint)
    return isinstance(origin, type) and issubclass(origin, Sequence)


def _is_again(old: Any, new: Any) -> bool:
    """Whether `new` is `old` defined once more: in a module that is reloaded, or in a notebook's cell."""
    if isinstance(old, str) or old.__qualname__ != new.__qualname__:
        return False
    return bool(old.__module__ == new.__module__ or not old.__module__.startswith("prefalign."))
