"""From the text of a reference expression to the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from .._calls import Makers
from .._errors import ConfigError, ParseError
from .._expressions import Call, Text, read_expression
from ._base import Reference

Made = TypeVar("Made", bound=Callable[..., Any])

_REFERENCES: Makers[Reference] = Makers("reference", "references", ConfigError)


def register_reference(name: str) -> Callable[[Made], Made]:
    """Give a class of references, or a function that returns one, its name in expressions.

    Args:
        name: A lower-case identifier; `reference.expression` uses it.

    Raises:
        ConfigError: The name is taken, or is no lower-case identifier.

    Example:
        >>> from prefalign.references import Checkpoint
        >>> @register_reference("our_teacher")
        ... def teacher(size: str) -> Reference:
        ...     return Checkpoint(f"models/{size}")
        >>> parse_reference("our_teacher(large)")
        Checkpoint(path='models/large')
    """

    def enter(made: Made) -> Made:
        registered = _REFERENCES.register(name)(made)
        if isinstance(registered, type) and issubclass(registered, Reference):
            registered.registered_as = name
        return registered

    return enter


def reference_names() -> tuple[str, ...]:
    """Every name that a reference expression may use, sorted."""
    return _REFERENCES.names()


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
    node = read_expression(text, "reference expression")
    if isinstance(node, Call) or (isinstance(node, Text) and not node.quoted):
        name = node.name if isinstance(node, Call) else node.value
        return _REFERENCES.make(text, node, unknown=f" For a model write `checkpoint({name[:60]})`.")
    raise ParseError("expected a reference, such as `initial` or `checkpoint(PATH)`.", text, node.start)
