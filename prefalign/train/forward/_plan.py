"""The plan of a packed batch: which tokens of the pairs are unique, and where each scored token is predicted.

A batch of B pairs comes as 2B padded rows, chosen rows first. Chosen and rejected of a pair share their longest common
prefix (the prompt and any common start of the completions), so each pair is laid out once as

    shared prefix + rest of chosen | rest of rejected

and all pairs stand behind one another in a single row without padding. Attention (`_shared_prefix.py`) sees the two
logical sequences of a pair; everything else in the model sees each unique token once.

Shapes: B pairs, L padded length, T packed tokens, S scored unique (position, target) rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

IGNORED = -100


@dataclass(frozen=True)
class Segment:
    """Where one pair stands in the packed row: `[start, split)` is the chosen stream, `[split, stop)` rejected's rest.

    The first `shared` tokens of the chosen stream are also the start of the rejected one.
    """

    start: int
    split: int
    stop: int
    shared: int


@dataclass(frozen=True)
class Lengths:
    """The logical sequences of a packed row as varlen kernels take them, N of them, in packed order.

    Args:
        keys: (K,) packed places of the keys: the row, with each shared prefix again before its rejected rest.
        queries_up_to, keys_up_to: (N + 1,) int32, where each sequence's queries and keys end.
        most_queries, most_keys: The largest sequence's.
    """

    keys: Tensor
    queries_up_to: Tensor
    keys_up_to: Tensor
    most_queries: int
    most_keys: int


@dataclass(frozen=True)
class PairPlan:
    """How a padded batch of pairs is packed and how its results are unpacked.

    Args:
        input_ids: (1, T) token ids of the packed row.
        position_ids: (1, T) positions, counted from the start of each logical sequence.
        segments: One per pair, in order.
        predictors: (S,) packed positions whose hidden states predict a scored token.
        targets: (S,) the scored tokens.
        source: (2B * (L - 1),) for every place of the padded, shifted layout the index of its row among the S,
            or S where nothing is scored.
        padded_shape: (2B, L - 1).
        padded_tokens: 2B * L, the positions that the plain forward computes.
        kept: What attention layers make of the plan and ask for again.
    """

    input_ids: Tensor
    position_ids: Tensor
    segments: tuple[Segment, ...]
    predictors: Tensor
    targets: Tensor
    source: Tensor
    padded_shape: tuple[int, int]
    padded_tokens: int
    kept: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def packed_tokens(self) -> int:
        """T, the positions that the packed forward computes."""
        return self.input_ids.shape[1]

    @property
    def stream_sizes(self) -> list[int]:
        """Tokens of each pair's chosen stream and, where there is one, of its rejected rest, in packed order."""
        sizes = [size for s in self.segments for size in (s.split - s.start, s.stop - s.split)]
        return [size for size in sizes if size]

    def streams(self) -> list[list[tuple[int, int]]]:
        """For each logical sequence the places of its keys, in packed order; the last span is its queries' too."""
        found: list[list[tuple[int, int]]] = []
        for s in self.segments:
            found.append([(s.start, s.split)])
            if s.stop > s.split:
                prefix = [(s.start, s.start + s.shared)] if s.shared else []
                found.append([*prefix, (s.split, s.stop)])
        return found

    def varlen(self) -> Lengths:
        """The logical sequences as varlen kernels take them."""
        if "lengths" not in self.kept:
            device = self.input_ids.device
            keys, queries_up_to, keys_up_to = [], [0], [0]
            for spans in self.streams():
                keys += [torch.arange(first, last) for first, last in spans]
                queries_up_to.append(spans[-1][1])
                keys_up_to.append(keys_up_to[-1] + sum(last - first for first, last in spans))
            ends = [torch.tensor(e, dtype=torch.int32) for e in (queries_up_to, keys_up_to)]
            most = [int(e.diff().max()) for e in ends]
            self.kept["lengths"] = Lengths(torch.cat(keys).to(device), ends[0].to(device), ends[1].to(device), *most)
        lengths: Lengths = self.kept["lengths"]
        return lengths

    def places(self) -> tuple[Tensor, Tensor, Tensor]:
        """For each packed token its pair, whether it is of a rejected rest, and whether of a shared prefix, (T,)."""
        pair = torch.empty(self.packed_tokens, dtype=torch.long)
        rejected, shared = torch.zeros_like(pair, dtype=torch.bool), torch.zeros_like(pair, dtype=torch.bool)
        for index, s in enumerate(self.segments):
            pair[s.start : s.stop] = index
            rejected[s.split : s.stop] = True
            shared[s.start : s.start + s.shared] = True
        device = self.input_ids.device
        return pair.to(device), rejected.to(device), shared.to(device)

    def unpack(self, rows: Tensor) -> Tensor:
        """Bring (S,) values of the scored rows back to TRL's padded layout (2B, L - 1), zero where nothing is scored.

        A row that both sequences of a pair share lands in both places, and its gradients add up.
        """
        padding = rows.new_zeros(1)
        return torch.cat([rows, padding])[self.source].view(self.padded_shape)


def plan_pairs(input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> PairPlan | None:
    """Make the plan of one batch.

    Args:
        input_ids: (2B, L) token ids, chosen rows first, padded on the right.
        attention_mask: (2B, L), 1 at tokens and 0 at padding.
        labels: (2B, L), the token id where it is scored and -100 elsewhere.

    Returns:
        The plan, or None where the batch cannot be packed: an odd number of rows, padding on the left, or nothing to
        score.
    """
    device = input_ids.device
    ids, mask, labels = input_ids.cpu(), attention_mask.cpu().bool(), labels.cpu()
    rows, length = ids.shape
    lengths = mask.sum(1)
    right_padded = torch.equal(mask, torch.arange(length)[None, :] < lengths[:, None])
    if rows % 2 or not right_padded or bool((lengths == 0).any()):
        return None
    pairs = rows // 2
    both = mask[:pairs] & mask[pairs:]
    shared = ((ids[:pairs] == ids[pairs:]) & both).long().cumprod(1).sum(1).tolist()
    sizes = lengths.tolist()

    segments, packed, positions = [], [], []
    # Packed place of the token at (row, column) of the padded batch.
    place = torch.zeros(rows, length, dtype=torch.long)
    start = 0
    for i in range(pairs):
        chosen, rejected, common = sizes[i], sizes[pairs + i], shared[i]
        split, stop = start + chosen, start + chosen + rejected - common
        segments.append(Segment(start, split, stop, common))
        packed += [ids[i, :chosen], ids[pairs + i, common:rejected]]
        positions += [torch.arange(chosen), torch.arange(common, rejected)]
        place[i, :chosen] = torch.arange(start, split)
        place[pairs + i, :common] = torch.arange(start, start + common)
        place[pairs + i, common:rejected] = torch.arange(split, stop)
        start = stop

    scored = (labels[:, 1:] != IGNORED) & mask[:, 1:]
    predictor, target = place[:, :-1][scored], place[:, 1:][scored]
    if len(target) == 0:
        return None
    # A scored token is one row however many sequences share it: tokens at one packed place have one predictor, but a
    # place that follows the shared prefix may not, so the pair of places is the key.
    keys, inverse = torch.unique(predictor * start + target, return_inverse=True)
    source = torch.full((rows, length - 1), len(keys), dtype=torch.long)
    source[scored] = inverse
    flat = torch.cat(packed)
    return PairPlan(
        input_ids=flat[None].to(device),
        position_ids=torch.cat(positions)[None].to(device),
        segments=tuple(segments),
        predictors=(keys // start).to(device),
        targets=flat[keys % start].to(device),
        source=source.flatten().to(device),
        padded_shape=(rows, length - 1),
        padded_tokens=rows * length,
    )
