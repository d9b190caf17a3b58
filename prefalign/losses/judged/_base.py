"""The base of losses of judged groups."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor

from ..._errors import LossError
from .._groups import GroupLogps, group_of
from .._loss import Loss
from .._loss import Reads as Reads
from .._pairs import PairLogps


@dataclass(frozen=True)
class JudgedLoss(Loss):
    """A pure function from the log-probabilities of judged groups to one value per group, in nats.

    It takes `PairLogps` too, as groups of two.
    """

    def __call__(self, group_logps: GroupLogps | PairLogps) -> Tensor:
        """The loss of every group, shape (groups,).

        Raises:
            LossError: The groups lack the judgement that the loss reads, a reference, or token counts.
        """
        groups = group_of(group_logps) if isinstance(group_logps, PairLogps) else group_logps
        if self.needs_reference and groups.ref_logps is None:
            raise LossError(f"`{self.title}` needs the reference's log-probabilities: give `ref_logps`.")
        return self.of_groups(groups)

    @abstractmethod
    def of_groups(self, groups: GroupLogps) -> Tensor:
        """The loss of every group."""

    @property
    def swap_obstacle(self) -> str | None:
        """A ranking has no one way to be turned."""
        return None if self.reads == "label" else "a ranking cannot be swapped; wrap the loss inside `pairs(...)`"
