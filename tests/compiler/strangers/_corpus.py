"""What a stranger's loss is, and what must become of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

COLUMNS = ("w", "l", "rw", "rl", "n_w", "n_l")
STRANGERS: list[Stranger] = []


@dataclass(frozen=True)
class Stranger:
    """A loss function as somebody might have written it.

    Args:
        function: Its code.
        call: The same on the columns of a batch that the function asks for: the oracle's way to call it.
        ratios: The ratio of each rule, by the paper; empty where that is left to the numbers.
        refused: A part of the true reason for which there is no reading; empty where there is one.
        given: Values for parameters that only the user knows.
        roles: What names mean that do not say it.
    """

    function: Callable[..., Any]
    call: Callable[..., Any]
    ratios: tuple[str, ...] = ()
    refused: str = ""
    given: tuple[tuple[str, Any], ...] = ()
    roles: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        return getattr(self.function, "__qualname__", type(self.function).__name__)


def stranger(columns: str, *ratios: str, refused: str = "", call: Any = None, given: Any = (), roles: Any = ()) -> Any:
    """Enter a function into the corpus.

    Args:
        columns: Its arguments in order, from `COLUMNS`: what each is, said here and not taken from its name.
        ratios, refused, given, roles: As in `Stranger`.
        call: Makes the call from those columns, where it is not `function(*columns)`.
    """
    places = [COLUMNS.index(name) for name in columns.split()]

    def enter(function: Any) -> Any:
        fixed = dict(given)

        def run(*batch: Any) -> Any:
            picked = [batch[place] for place in places]
            return call(function, *picked) if call else function(*picked, **fixed)

        STRANGERS.append(Stranger(function, run, ratios, refused, tuple(fixed.items()), tuple(dict(roles).items())))
        return function

    return enter
