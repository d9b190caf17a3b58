"""Reader of call expressions: `name(value, key=value)`, numbers, strings, words and paths, lists, `+`, `-` and `*`.

    sum     = ["-"] product (("+" | "-") product)*
    product = factor ("*" factor)*                    all factors but one are numbers
    factor  = ["+" | "-"] number | string | word | name "(" [argument ("," argument)*] ")" | "[" [sum ("," sum)*] "]"
            | "(" sum ")"
    argument = [name "="] sum

It knows nothing of losses or references: it gives a tree whose nodes know where they stand, and each language makes of
it what it wants. A string is what stands between its quotes, without escapes. A word may be a path or a hub id.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from ._errors import ParseError
from ._scan import Token, TokenStream, compile_pattern

# Possessive quantifiers keep a long run of digits linear. What follows a number must not make a word of it: 2024/ckpt.
_WORD = r"[\w./\\~@:%-]"
_PATTERN = compile_pattern(
    number=rf"(?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][+-]?\d++)?+(?!{_WORD})",
    word=rf"[\w./\\~]{_WORD}*+",
    string=r"'[^']*+'|\"[^\"]*+\"",
    unclosed=r"['\"]",
    sign=r"[-+*=,()\[\]]",
)
_CONSTANTS = {"True": True, "true": True, "False": False, "false": False, "None": None, "null": None}
_MAX_DIGITS = 50


@dataclass(frozen=True, slots=True)
class Number:
    """A number, an int where it was written without point and exponent."""

    value: int | float
    start: int


@dataclass(frozen=True, slots=True)
class Text:
    """A string, or a bare word or path (`quoted` is False)."""

    value: str
    start: int
    quoted: bool


@dataclass(frozen=True, slots=True)
class Constant:
    """True, False or None."""

    value: bool | None
    start: int


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    items: tuple[Node, ...]
    start: int


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of a call, with its keyword if it has one."""

    keyword: str | None
    value: Node
    start: int


@dataclass(frozen=True, slots=True)
class Call:
    """`name(arguments)`."""

    name: str
    arguments: tuple[Argument, ...]
    start: int


@dataclass(frozen=True, slots=True)
class Weighted:
    """A sum of weighted things, of which there is at least one; none of them is a number."""

    terms: tuple[tuple[float, Node], ...]
    start: int


Read = TypeVar("Read")
Node = Number | Text | Constant | Items | Call | Weighted


def read_expression(text: str, what: str) -> Node:
    """The tree of `text`.

    Args:
        text: At most 100 000 characters, nested at most 100 levels deep.
        what: What the text is ("loss expression"), for error messages.

    Raises:
        ParseError: `text` is not in the grammar; the error points at the place.

    Example:
        >>> read_expression("soup(a/b, weights=[.5])", "reference")  # doctest: +NORMALIZE_WHITESPACE
        Call(name='soup', arguments=(Argument(keyword=None, value=Text(value='a/b', start=5, quoted=False), start=5),
        Argument(keyword='weights', value=Items(items=(Number(value=0.5, start=19),), start=18), start=10)), start=0)
    """
    if not isinstance(text, str):
        raise ParseError(f"{what} must be text (got {type(text).__name__}).", "", 0)
    stream = TokenStream(text, _PATTERN, what)
    if stream.peek.kind == "end":
        stream.fail("it is empty")
    node = _sum(stream)
    if stream.peek.kind != "end":
        stream.fail(f"expected `+`, `-`, `*` or the end, found `{stream.peek.text[:30]}`")
    return node


def plain_value(node: Node) -> object:
    """The Python value of a number, string, word, constant or list of these.

    Raises:
        TypeError: The node is, or holds, a call or a sum.
    """
    match node:
        case Number(value=number):
            return number
        case Text(value=word):
            return word
        case Constant(value=constant):
            return constant
        case Items(items=items):
            return [plain_value(item) for item in items]
        case _:
            raise TypeError("a call or a sum has no plain value")


def _sum(stream: TokenStream) -> Node:
    start = stream.peek.start
    terms: list[tuple[float, Node]] = []
    weight, node = _product(stream)
    while True:
        terms.append((weight, node))
        operator = stream.take("+", "-")
        if operator is None:
            break
        place = stream.peek
        weight, node = _product(stream)
        if isinstance(node, Number) or isinstance(terms[0][1], Number):
            stream.fail("a number cannot be a term of a sum", place if isinstance(node, Number) else start)
        weight = -weight if operator.text == "-" else weight
    if len(terms) == 1 and (terms[0][0] == 1.0 or isinstance(terms[0][1], Number)):
        return terms[0][1]
    return Weighted(tuple(terms), start)


def _product(stream: TokenStream) -> tuple[float, Node]:
    """The product of the numbers, and what they multiply: (1.0, Number) where there is nothing else."""
    numbers: list[Number] = []
    other: Node | None = None
    sign = 1.0
    while True:
        place = stream.peek
        negative = False
        while (operator := stream.take("+", "-")) is not None:
            negative ^= operator.text == "-"
            if stream.peek.text in ("+", "-"):
                stream.fail("one sign is enough")
        node = _factor(stream)
        if isinstance(node, Number):
            numbers.append(Number(-node.value if negative else node.value, place.start))
        elif other is None:
            other, sign = node, (-sign if negative else sign)
        else:
            stream.fail("expected a number on at least one side of `*`", place)
        if stream.take("*") is None:
            break
    if other is None:
        return 1.0, (numbers[0] if len(numbers) == 1 else Number(_multiply(numbers), numbers[0].start))
    return sign * _multiply(numbers), other


def _multiply(numbers: list[Number]) -> float:
    product = 1.0
    for number in numbers:
        product *= number.value
    return product


def _factor(stream: TokenStream) -> Node:
    token = stream.peek
    if token.kind == "number":
        return Number(_number(stream, stream.next()), token.start)
    if token.kind == "string":
        return Text(stream.next().text[1:-1], token.start, quoted=True)
    if token.kind == "unclosed":
        stream.fail("this quote is not closed")
    if token.kind == "word":
        return _word(stream)
    if stream.take("["):
        with stream.nested():
            return Items(_listed(stream, "]", _sum), token.start)
    if stream.take("("):
        with stream.nested():
            inner = _sum(stream)
            stream.expect(")", "to close the bracket")
            return inner
    _unexpected(stream)


def _word(stream: TokenStream) -> Node:
    token = stream.next()
    if stream.take("("):
        if not token.text.isidentifier():
            stream.fail(f"`{token.text[:60]}` is no name that could be called", token)
        with stream.nested():
            return Call(token.text, _listed(stream, ")", _argument), token.start)
    if token.text in _CONSTANTS:
        return Constant(_CONSTANTS[token.text], token.start)
    return Text(token.text, token.start, quoted=False)


def _argument(stream: TokenStream) -> Argument:
    token = stream.peek
    if token.kind == "word" and stream.ahead(1).text == "=":
        stream.next()
        stream.next()
        if not token.text.isidentifier():
            stream.fail(f"`{token.text[:60]}` is no name of an argument", token)
        return Argument(token.text, _sum(stream), token.start)
    return Argument(None, _sum(stream), token.start)


def _listed(stream: TokenStream, close: str, read: Callable[[TokenStream], Read]) -> tuple[Read, ...]:
    """What stands between brackets, separated by commas, up to and with the closing one."""
    items: list[Read] = []
    while stream.take(close) is None:
        items.append(read(stream))
        if stream.peek.text != close or stream.peek.kind != "sign":
            stream.expect(",", f"or `{close}` after this")
    return tuple(items)


def _number(stream: TokenStream, token: Token) -> int | float:
    if len(token.text) > _MAX_DIGITS:
        stream.fail(f"a number has at most {_MAX_DIGITS} characters", token)
    if token.text.isdigit():
        return int(token.text)
    value = float(token.text)
    if value == float("inf"):
        stream.fail("this number is too large", token)
    return value


def _unexpected(stream: TokenStream) -> NoReturn:
    found = "the end" if stream.peek.kind == "end" else f"`{stream.peek.text[:30]}`"
    stream.fail(f"expected a name, a number, a string, `[` or `(`, found {found}")
