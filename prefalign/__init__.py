"""prefalign: preference alignment with losses you can read.

One loss object that the trainer runs, that the logic reads, and that the logic writes. Importing this module loads
neither torch nor SymPy: each public name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._errors import PrefalignError as PrefalignError
    from .compiler import compare as compare
    from .compiler import derive as derive
    from .compiler import to_loss as to_loss
    from .logic import generate as generate
    from .train import PrefConfig as PrefConfig
    from .train import PrefTrainer as PrefTrainer

__version__ = "0.1.0"

# Public name -> the part that holds it.
_HOMES = {
    "PrefTrainer": ".train",
    "PrefConfig": ".train",
    "derive": ".compiler",
    "compare": ".compiler",
    "to_loss": ".compiler",
    "generate": ".logic",
    "PrefalignError": "._errors",
}

__all__ = ["PrefConfig", "PrefTrainer", "PrefalignError", "compare", "derive", "generate", "to_loss"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'prefalign' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES} - {"TYPE_CHECKING", "annotations", "importlib"})
