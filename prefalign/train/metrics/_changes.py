"""What is watched beyond TRL's metrics: changes since the start, displacement, distance to the reference, terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...losses import PairLogps
from ...references import State
from .._host import Gather


def before_end(mask: Tensor) -> Tensor:
    """The mask of completion tokens, (rows, length), without each row's last one: the end of text.

    A completion that was cut, or written by somebody else, ends where the reference would not have ended it.
    """
    return mask * (mask.flip(1).cumsum(1).flip(1) > 1)


def divergence(policy: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """Estimate of KL(reference || policy) per token, for each row, summed over its tokens.

    With r = pi(token) / ref(token): r - 1 - log r >= 0, whose mean over tokens that the *reference* samples is the
    Kullback-Leibler divergence of its next-token distribution from the policy's, in nats. A single token that the
    reference would not have sampled, and that the policy has learned, rules that mean: see `before_end`.

    Args:
        policy: Per-token log-probabilities in nats, (rows, length).
        reference: Likewise.
        mask: 1 at the tokens to be counted, (rows, length).

    Returns:
        (rows,), float64, on the CPU: some devices have no float64.
    """
    log_ratio = (policy.detach().float() - reference.detach().float()).cpu().double()
    return ((log_ratio.expm1() - log_ratio) * mask.cpu()).sum(dim=1)


@dataclass
class Watch:
    """Metrics of a batch of pairs, averaged over all processes.

    Args:
        from_reference: The reference is the policy's start, so that changes since the start are the log-ratios. If not,
            the start of a pair is the first time that this run scored it.

    Attributes:
        first_seen: For each pair's number its (chosen, rejected) log-probabilities when it was first scored, in nats.
    """

    from_reference: bool
    first_seen: dict[int, tuple[float, float]] = field(default_factory=dict)

    def changes(self, pairs: PairLogps, numbers: Tensor | None, gather: Gather) -> dict[str, float]:
        """Mean changes of summed log-probabilities since the start, in nats, and the share of displaced pairs."""
        now = _rows([pairs.chosen, pairs.rejected], gather)
        if self.from_reference and pairs.ref_chosen is not None and pairs.ref_rejected is not None:
            change = now - _rows([pairs.ref_chosen, pairs.ref_rejected], gather)
        elif numbers is None or self.from_reference:
            return {}
        else:
            change = self._since_first_seen(now, gather(numbers).cpu())
        if not len(change):
            return {}
        chosen, rejected = change.mean(dim=0).tolist()
        return {
            "logps/chosen_change": chosen,
            "logps/rejected_change": rejected,
            "displacement": (change[:, 0] < 0).double().mean().item(),
        }

    def _since_first_seen(self, now: Tensor, numbers: Tensor) -> Tensor:
        rows = []
        for number, row in zip(numbers.tolist(), now.tolist(), strict=True):
            if number in self.first_seen:
                first = self.first_seen[number]
                rows.append([row[0] - first[0], row[1] - first[1]])
            else:
                self.first_seen[number] = (row[0], row[1])
        return torch.tensor(rows, dtype=torch.float64)

    def state_dict(self) -> State:
        """The pairs' starts, for a checkpoint."""
        return {
            "numbers": torch.tensor(list(self.first_seen), dtype=torch.int64),
            "first_seen": torch.tensor(list(self.first_seen.values()), dtype=torch.float64).reshape(-1, 2),
        }

    def load_state_dict(self, state: State) -> None:
        """Take back what `state_dict` gave."""
        starts = state["first_seen"].tolist()
        self.first_seen = {n: (c, r) for n, (c, r) in zip(state["numbers"].tolist(), starts, strict=True)}


def kl_metric(per_row: Tensor, tokens: Tensor, gather: Gather, device: torch.device) -> dict[str, float]:
    """The mean of `divergence` over the `tokens` of the batch, chosen and rejected, on all processes."""
    sums = torch.stack([per_row.sum(), tokens.sum().cpu().double()]).float().to(device)
    total, count = gather(sums[None]).double().sum(dim=0).tolist()
    return {"kl": total / count} if count else {}


def _rows(columns: Sequence[Tensor], gather: Gather) -> Tensor:
    return gather(torch.stack([column.detach().float() for column in columns], dim=1)).cpu().double()
