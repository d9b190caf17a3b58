"""A recipe on its way: what is left of it, what has become of the rest, and what is to be said."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import yaml

from ..._errors import ConfigError


class Translation:
    """What a recipe becomes.

    Args:
        recipe: Options of another trainer. Those without a value count as not given.

    Attributes:
        values: The options here.
        notes: What was decided on the way.
        left: What has no translation, and what to do about it.
    """

    def __init__(self, recipe: Mapping[str, Any]) -> None:
        self._recipe = {name: value for name, value in recipe.items() if value is not None}
        self.values: dict[str, Any] = {}
        self.notes: list[str] = []
        self.left: list[str] = []

    def __contains__(self, name: str) -> bool:
        return name in self._recipe

    def peek(self, name: str, default: Any = None) -> Any:
        """The value of an option, which stays."""
        return self._recipe.get(name, default)

    def take(self, name: str, default: Any = None) -> Any:
        """The value of an option, which counts as translated."""
        return self._recipe.pop(name, default)

    def number(self, name: str, default: float) -> float:
        """A number, taken; YAML takes 5e-7 for text.

        Raises:
            ConfigError: It is none.
        """
        return as_number(name, self.take(name, default))

    def rename(self, names: Mapping[str, str]) -> None:
        """Options that have another name here, and mean the same."""
        for theirs, ours in names.items():
            if theirs in self:
                self.values[ours] = self.take(theirs)

    def drop(self, names: Iterable[str]) -> None:
        """Options that nothing depends on here."""
        for name in names:
            self.take(name)

    def rest(self, known: Iterable[str], hints: Mapping[str, str]) -> None:
        """Pass on what has the same name here; the rest is left, but for what is switched off.

        Args:
            known: The options here.
            hints: What to do about options that are not known here.
        """
        names = set(known)
        for name, value in self._recipe.items():
            if name in names:
                self.values.setdefault(name, value)
            elif value not in (False, "", [], {}, 0):
                self.left.append(f"`{name}: {shown(value)}`. {hints.get(name, 'There is no such option here.')}")
        self._recipe = {}

    def as_yaml(self, origin: str) -> str:
        """The recipe, with what could not be translated as comments."""
        head = [f"# Converted from a recipe of {origin}."]
        head += [f"# NOT CONVERTED: {line}" for text in self.left for line in text.splitlines()]
        return "\n".join(head) + "\n" + yaml.safe_dump(self.values, sort_keys=False, allow_unicode=True)


def as_number(name: str, value: object) -> float:
    """A finite number.

    Raises:
        ConfigError: It is none.
    """
    number = math.nan
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        with suppress(ValueError, OverflowError):
            number = float(value)
    if not math.isfinite(number):
        raise ConfigError(f"`{name}` in the recipe must be a number (got {value!a:.60}).")
    return number


def shown(value: object) -> str:
    """A value as a message quotes it."""
    return f"{value!a:.60}" if not isinstance(value, str) else ascii(value)[1:-1][:60]


def written(number: float) -> str:
    """A number as an expression has it.

    Example:
        >>> written(0.1), written(2.0)
        ('0.1', '2.0')
    """
    return repr(float(number))


def words(name: str, value: object) -> list[str]:
    """A list of words, or text with commas between.

    Raises:
        ConfigError: It is neither.
    """
    if not isinstance(value, str | list):
        raise ConfigError(f"`{name}` in the recipe must be a list of names (got {value!a:.60}).")
    return [word.strip() for word in value.split(",")] if isinstance(value, str) else [str(word) for word in value]
