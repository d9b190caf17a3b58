"""From the text of a loss expression to the loss."""

from __future__ import annotations

from .._calls import quoting
from .._errors import ParseError
from .._expressions import Call, Node, Text, Weighted, read_expression
from ._loss import Loss, parts_of, simplest
from ._registry import LOSSES


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
    return _read(text, read_expression(text, "loss expression"))


def _read(text: str, node: Node) -> Loss:
    if isinstance(node, Weighted):
        parts = tuple(
            (weight * inner, part) for weight, term in node.terms for inner, part in parts_of(_read(text, term))
        )
        return quoting(lambda: simplest(parts), text, node.start, {})
    if isinstance(node, Call) or (isinstance(node, Text) and not node.quoted):
        found: Loss = LOSSES.make(
            text, node, lambda hint, inner: _read(text, inner) if hint is Loss else NotImplemented
        )
        return found
    raise ParseError("expected a loss, such as `dpo(beta=0.1)`.", text, node.start)
