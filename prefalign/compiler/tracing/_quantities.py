"""The quantities a loss function may ask for, as symbols, as places of a batch, and as random numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from ...losses import PairLogps, TokenLogps
from ..symbols import _symbols as sy
from ._roles import Kind, holds_logps, role_of
from ._tensor import TRACE, SymTensor, wrap

TOKENS = {"w": 7, "l": 11}  # primes, so that a mean over tokens shows as a denominator


SPREAD = {"w": sp.Symbol("spread_w", real=True), "l": sp.Symbol("spread_l", real=True)}


@dataclass(frozen=True)
class Quantities:
    """Where every input of the code comes from: symbols, or a batch of random pairs.

    Args:
        logps: Summed log-probabilities in nats of "w", "l", "rw", "rl" (and "y", shape (groups, K)), shape (pairs,).
        counts: Token counts of "w" and "l".
        token_logps: Log-probabilities of single tokens, shape (pairs, tokens) for each of the four.
        hypers: The value of each hyperparameter, by name; symbolic ones are `SymFloat`.
    """

    logps: Mapping[str, Tensor]
    counts: Mapping[str, Tensor]
    token_logps: Mapping[str, Tensor]
    hypers: Callable[[str, float], float]

    def role(self, name: str) -> Tensor | None:
        """The tensor that a name such as `reference_chosen_logps` asks for; None if it asks for none."""
        if "y" in self.logps:
            return self.logps["y"] if holds_logps(name) else None
        asked = role_of(name)
        if asked is None:
            return None
        model = "r" if asked.reference else ""
        if asked.side:
            return self._of_side(asked.kind, asked.side, model)
        if asked.kind == "ratio":
            return self.logps[model + "w"] - self.logps[model + "l"]
        return torch.cat([self._of_side(asked.kind, side, model) for side in ("w", "l")])

    def _of_side(self, kind: Kind, side: str, model: str) -> Tensor:
        logp, count = self.logps[model + side], self.counts[side]
        if kind in ("tokens", "mask"):
            return self._of_tokens(kind, side, self.token_logps[model + side])
        if kind == "index":
            return torch.arange(len(logp)) + (0 if side == "w" else len(logp))
        made = {"count": lambda: count, "ratio": lambda: logp - self.logps["r" + side], "prob": logp.exp}
        return made.get(kind, lambda: logp / count if kind == "mean" else logp)()

    def _of_tokens(self, kind: Kind, side: str, logps: Tensor) -> Tensor:
        known = isinstance(logps, SymTensor)
        if known:
            TRACE.get().tokens = True
        if kind == "tokens":
            return logps
        counts = torch.tensor([TOKENS[side]]) if known else self.counts[side]
        return (torch.arange(logps.shape[1])[None, :] < counts[:, None]).long()

    def rows(self) -> Iterator[Quantities]:
        """Each pair alone."""
        for i in range(len(self.counts["w"])):
            one, tokens, given = (
                {name: value[i : i + 1].detach().requires_grad_(value.requires_grad) for name, value in part.items()}
                for part in (self.counts, self.token_logps, self.logps)
            )
            logps = {name: tokens[name].sum(1) if name in tokens else value for name, value in given.items()}
            yield Quantities(logps, one, tokens, self.hypers)

    def pair_logps(self, single: bool = False) -> PairLogps:
        """The library's own batch of pairs, with single tokens or without."""
        p, n = self.logps, self.counts
        return PairLogps(p["w"], p["l"], p["rw"], p["rl"], n["w"], n["l"], single=self._single() if single else None)

    def _single(self) -> TokenLogps:
        """Single tokens; log(sum of p**2) is that of one distribution at all of them."""
        found = tokens(self)
        if isinstance(found.log_probs, SymTensor):
            TRACE.get().tokens = True
        return TokenLogps(found.log_probs, found.mask, found.ref_log_probs, torch.full(found.mask.shape, -1.0))


def symbolic(hypers: Callable[[str, float], float], groups: int = 0) -> Quantities:
    """One pair of symbols (and one group of `groups` answers)."""
    logps = {name: _vector(symbol) for name, symbol in sy.LOGPS.items()}
    if groups:
        logps["y"] = SymTensor(np.array([[place(k) for k in range(1, groups + 1)]], dtype=object))
    counts = {"w": _vector(sy.N_W), "l": _vector(sy.N_L)}
    tokens = {name: _tokens(name, symbol) for name, symbol in sy.LOGPS.items()}
    return Quantities(logps, counts, tokens, hypers)


def place(k: int) -> sp.Symbol:
    """The log-probability of the k-th answer of a group."""
    return sp.Symbol(f"Y{k}", negative=True)


_LONGEST = (6, 40, 2000, 12)  # tokens of the longest answer, draw by draw


def random(
    seed: int, pairs: int, scale: float, hypers: Callable[[str, float], float], dtype: torch.dtype, groups: int = 0
) -> Quantities:
    """Random pairs; log-probabilities in (-scale, 0); chosen answers that are shorter, as long, and longer."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    # In turn from pair to pair and draw to draw, so that every branch on lengths is met.
    longest = _LONGEST[seed % len(_LONGEST)]
    short = torch.randint(1, longest // 2 + 1, (pairs,), generator=generator)
    more = torch.randint(1, longest // 2 + 1, (pairs,), generator=generator)
    turn = (torch.arange(pairs) + seed) % 3
    counts = {"w": short + more * (turn == 2), "l": short + more * (turn == 0)}
    width = int(max(int(n.max()) for n in counts.values()))
    logps, tokens = {}, {}
    for name in sy.LOGPS:
        total = -scale * (0.01 + draw(pairs)) / 1.01
        mask = torch.arange(width)[None, :] < counts[name[-1]][:, None]
        shares = (0.2 + draw(pairs, width)) * mask
        per_token = (total[:, None] * shares / shares.sum(1, keepdim=True)).to(dtype)
        tokens[name] = per_token.requires_grad_(not name.startswith("r"))
        logps[name] = tokens[name].sum(1)
    if groups:
        logps["y"] = (-scale * (0.01 + draw(pairs, groups)) / 1.01).to(dtype).requires_grad_()
    return Quantities(logps, {k: n.to(dtype) for k, n in counts.items()}, tokens, hypers)


def _vector(symbol: sp.Symbol) -> SymTensor:
    array = np.empty(1, dtype=object)
    array[0] = symbol
    return wrap(array)


def _tokens(name: str, total: sp.Symbol) -> SymTensor:
    count = TOKENS[name[-1]]
    array = np.full((1, max(TOKENS.values())), sp.S.Zero, dtype=object)
    array[0, :count] = total / count
    # The total must not depend on how it is spread over the tokens; if it does, this symbol survives.
    array[0, 0] += SPREAD[name]
    array[0, count - 1] -= SPREAD[name]
    return wrap(array)


@dataclass(frozen=True)
class Tokens:
    """One padded batch of token log-probabilities, chosen rows first, as trainers see it.

    `log_probs` and `ref_log_probs` have the shape (2 * pairs, tokens); `mask` is 1 on the tokens that count.
    """

    log_probs: Tensor
    ref_log_probs: Tensor
    mask: Tensor
    ref_sums: tuple[Tensor, Tensor]


def tokens(quantities: Quantities) -> Tokens:
    """The batch of a trainer that starts from token log-probabilities."""
    t = quantities.token_logps
    pairs, width = t["w"].shape
    if isinstance(t["w"], SymTensor):
        counts = {k: torch.full((pairs,), n) for k, n in TOKENS.items()}
    else:
        counts = {k: n.long() for k, n in quantities.counts.items()}
    rows = torch.cat([counts["w"], counts["l"]])
    mask = (torch.arange(width)[None, :] < rows[:, None]).long()
    return Tokens(
        torch.cat([t["w"], t["l"]]),
        torch.cat([t["rw"], t["rl"]]),
        mask,
        (quantities.logps["rw"], quantities.logps["rl"]),
    )
