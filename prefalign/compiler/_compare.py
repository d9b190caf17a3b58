"""The front door of comparisons: losses and code beside equations and names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..logic import compare as compare_logic
from ..losses import Loss
from ._derive import Readable, derive

if TYPE_CHECKING:
    from ..logic import Comparison


def compare(*losses: Readable, names: tuple[str, ...] | None = None) -> Comparison:
    """How losses relate by preference entailment; see `prefalign.logic.compare`.

    Args:
        losses: Two or more: equations, names, structures, rule sets; and `Loss` objects and functions, whose code is
            read by `derive`.
        names: What to call them; default: as given, and the title of a loss or the name of a function.

    Raises:
        DerivationError: Code has no reading.
        SpecError: Fewer than two losses, or names that do not match them.

    Example:
        >>> from prefalign.losses import CPO, DPO
        >>> compare(DPO(beta=0.1), "cpo").relation(0, 1)
        'incomparable'
    """
    read = tuple(derive(loss) if isinstance(loss, Loss) or _is_code(loss) else loss for loss in losses)
    if names is None and len(losses) > 1 and any(loss is not found for loss, found in zip(losses, read, strict=True)):
        plain = compare_logic(*read)
        names = tuple(
            name if loss is found else _title(loss) for name, loss, found in zip(plain.names, losses, read, strict=True)
        )
    return compare_logic(*read, names=names)


def _is_code(loss: object) -> bool:
    return callable(loss) and not hasattr(loss, "free_symbols") and not hasattr(loss, "rows")


def _title(loss: object) -> str:
    return loss.title if isinstance(loss, Loss) else str(getattr(loss, "__qualname__", type(loss).__name__))
