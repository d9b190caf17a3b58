"""One description for each field of the arguments: `--help` says what the docstring says."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from types import MappingProxyType
from typing import TypeVar

Arguments = TypeVar("Arguments", bound=type)


def with_help(cls: Arguments) -> Arguments:
    """Give the fields of a dataclass the texts of its docstring's `Args` as their help on the command line.

    Example:
        >>> @with_help
        ... @dataclass
        ... class Options:
        ...     '''Options.
        ...
        ...     Args:
        ...         beta: Pull towards the reference,
        ...             above 0.
        ...     '''
        ...
        ...     beta: float = 0.1
        >>> fields(Options)[0].metadata["help"]
        'Pull towards the reference, above 0.'
    """
    # Python that strips docstrings (-OO) has no help to show.
    section = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", inspect.cleandoc(cls.__doc__ or ""), re.MULTILINE | re.DOTALL)
    said = dict(re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section.group(1) if section else "", re.MULTILINE))
    for each in fields(cls):
        if each.name in said:
            text = " ".join(said[each.name].split()).replace("%", "%%")
            each.metadata = MappingProxyType({**each.metadata, "help": text})
    return cls
