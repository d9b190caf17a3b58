"""From the text of a loss expression to the loss."""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import Callable
from typing import Literal, NoReturn

from .._errors import ParseError, PrefalignError, did_you_mean
from .._expressions import Argument, Call, Constant, Node, Number, Text, Weighted, plain_value, read_expression
from ._loss import Loss, parts_of, simplest
from ._registry import find_loss, loss_names

_WHAT = "loss expression"


def parse_loss(text: str) -> Loss:
    """The loss that an expression names; the inverse of `loss.expression`. The text is parsed, never evaluated.

    Losses are calls by their lower-case names, with positional or keyword arguments; they add, and multiply with
    numbers. A loss all of whose arguments have defaults may go without brackets. TRL's names are read too.

    Args:
        text: Such as "robust(dpo(beta=0.1), flip_rate=0.2) + 0.005*sft(reduction='sum')".

    Returns:
        The loss.

    Raises:
        ParseError: The text is not in the grammar, or a name, an argument or a type is wrong; points at the place.
        LossError: A value is out of range; quotes the text.

    Example:
        >>> parse_loss("robust(dpo(beta=0.1), flip_rate=0.2)")
        Robust(loss=DPO(beta=0.1, mean=False), flip_rate=0.2)
        >>> parse_loss("dpo(betta=0.1)")
        Traceback (most recent call last):
        prefalign._errors.ParseError: `dpo` has no argument `betta`; it takes beta, mean. Did you mean `beta`?
            dpo(betta=0.1)
                ^
    """
    return _Builder(text).loss(read_expression(text, _WHAT))


class _Builder:
    def __init__(self, text: str) -> None:
        self.text = text

    def fail(self, message: str, at: int) -> NoReturn:
        raise ParseError(message, self.text, at)

    def loss(self, node: Node) -> Loss:
        match node:
            case Call(name=name, arguments=arguments, start=start):
                return self.call(name, arguments, start)
            case Text(value=name, start=start, quoted=False):
                return self.call(name, (), start)
            case Weighted(terms=terms, start=start):
                parts = tuple(
                    (weight * inner, part) for weight, term in terms for inner, part in parts_of(self.loss(term))
                )
                return self.guarded(lambda: simplest(parts), (), start)
        self.fail("expected a loss, such as `dpo(beta=0.1)`.", node.start)

    def call(self, name: str, arguments: tuple[Argument, ...], start: int) -> Loss:
        if name not in loss_names():
            near = did_you_mean(name, loss_names())
            known = "" if near else f" Known losses: {', '.join(loss_names())}."
            self.fail(f"There is no loss `{name[:60]}`.{near}{known}", start)
        make = find_loss(name)
        parameters = _parameters(make)
        given = self.bind(name, parameters, arguments, start)
        values = {key: self.value(key, parameters[key], argument.value) for key, argument in given.items()}
        places = tuple((key, argument.start) for key, argument in given.items())
        return self.guarded(lambda: make(**values), places, start)

    def bind(
        self, name: str, parameters: dict[str, Parameter], arguments: tuple[Argument, ...], start: int
    ) -> dict[str, Argument]:
        """Which argument goes to which parameter."""
        takes = ", ".join(parameters) or "no arguments"
        given: dict[str, Argument] = {}
        for index, argument in enumerate(arguments):
            key = argument.keyword
            if key is None:
                if index >= len(parameters):
                    self.fail(f"`{name}` takes {len(parameters)} arguments ({takes}).", argument.start)
                if index and arguments[index - 1].keyword is not None:
                    self.fail("An argument without its name cannot follow one with its name.", argument.start)
                key = list(parameters)[index]
            if key not in parameters:
                near = did_you_mean(key, parameters)
                self.fail(f"`{name}` has no argument `{key[:60]}`; it takes {takes}.{near}", argument.start)
            if key in given:
                self.fail(f"The argument `{key}` is given twice.", argument.start)
            given[key] = argument
        missing = [key for key, parameter in parameters.items() if parameter.required and key not in given]
        if missing:
            example = f" Write `{name}(beta=0.1)`." if missing == ["beta"] else ""
            self.fail(f"`{name}` needs the argument `{missing[0]}`; it takes {takes}.{example}", start)
        return given

    def value(self, key: str, parameter: Parameter, node: Node) -> object:
        if parameter.hint is Loss:
            return self.loss(node)
        words = _words_beside_a_number(parameter.hint)
        if (parameter.hint is float or words) and not isinstance(node, Number):
            if isinstance(node, Text) and node.value in words:
                return node.value
            also = "".join(f" or {word!r}" for word in words)
            self.fail(f"`{key}` must be a number{also}.", node.start)
        if parameter.hint is bool and not (isinstance(node, Constant) and node.value is not None):
            self.fail(f"`{key}` must be True or False.", node.start)
        if typing.get_origin(parameter.hint) is Literal:
            choices = typing.get_args(parameter.hint)
            if not isinstance(node, Text) or node.value not in choices:
                near = did_you_mean(node.value, choices) if isinstance(node, Text) else ""
                self.fail(f"`{key}` must be one of {', '.join(map(repr, choices))}.{near}", node.start)
        try:
            return plain_value(node)
        except TypeError:
            self.fail(f"`{key}` cannot be a loss.", node.start)

    def guarded(self, make: Callable[[], Loss], places: tuple[tuple[str, int], ...], start: int) -> Loss:
        """What `make` returns; its errors again, with the user's text and the place of the argument they name."""
        try:
            return make()
        except ParseError as error:
            # From a language inside a string, such as the formula of `logic`: it quotes its own text.
            raise ParseError(str(error), self.text, start) from error
        except PrefalignError as error:
            named = re.match(r"`(\w+)`", str(error))
            place = dict(places).get(named.group(1), start) if named else start
            raise type(error)(str(ParseError(str(error), self.text, place))) from error


def _words_beside_a_number(hint: object) -> tuple[str, ...]:
    """The words that may stand where a number would, as in `float | Literal["estimate"]`."""
    parts = typing.get_args(hint)
    if float not in parts:
        return ()
    return tuple(word for part in parts if typing.get_origin(part) is Literal for word in typing.get_args(part))


class Parameter(typing.NamedTuple):
    """What an argument must be: its type, where the expression language knows it; and whether it is required."""

    hint: object
    required: bool


@functools.cache
def _parameters(make: Callable[..., Loss]) -> dict[str, Parameter]:
    try:
        hints = typing.get_type_hints(make)
    except NameError:
        # Annotations that name what is imported for type checkers only: the maker checks its arguments itself.
        hints = {}
    return {
        name: Parameter(hints.get(name), parameter.default is inspect.Parameter.empty)
        for name, parameter in inspect.signature(make).parameters.items()
    }
