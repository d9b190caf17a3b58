"""Writes docs/loss-table.md: every public loss, read from its code. Run: python -m tests.compiler.loss_table."""

from __future__ import annotations

import importlib.metadata
import warnings
from pathlib import Path

from prefalign import derive
from prefalign._errors import DerivationError
from prefalign.compiler import Reading
from prefalign.logic import AnyRule, Rule, catalogue

from .public import LIGER, PUBLIC, Public

PAGE = Path(__file__).parents[2] / "docs" / "loss-table.md"
_HEAD = """# Public losses, read from their code

This page is written by `python -m tests.compiler.loss_table`. Each row is one public loss: its real code was run on
symbolic log-probabilities by [`derive`](code-to-logic.md), and the rules that came out were checked against the code's
values and gradients on random batches before they were printed. TRL is version {trl},
liger-kernel {liger} (its chunked losses of pairs, and KTO's; its `ipo` raises that it is not supported).

ρ is the log ratio in the column before it, in nats. A link *decreases* in ρ or *turns*; preference entailment orders
losses only under one decreasing link. Where a loss has several rows it is a sum of rules. "per token" marks
probabilities that are means over tokens, π^(1/|y|). A symbol with ° is detached. A loss of two ratios is
f(g(ρ₁) - g(ρ₂)): its link's ρ is that difference, and no single ratio is behind it.

{counts}

| library | loss | weight | ratio | structure of | link f(ρ) | f | where |
|---|---|---|---|---|---|---|---|
"""
_REFUSED = """
## Refused

| library | loss | reason |
|---|---|---|
"""


def page() -> str:
    """The page's text."""
    rows, refused, derived, ratios = [], [], 0, 0
    for public in (*PUBLIC, *LIGER):
        ratios += public.log_ratio
        try:
            reading = read(public)
        except DerivationError as error:
            refused.append(f"| {public.library} | {public.name} | {_cell(str(error))} |")
            continue
        derived += public.log_ratio
        rows += _rows(public, reading)
    counts = (
        f"{len(PUBLIC) + len(LIGER)} losses; {ratios} are functions of log ratios of model counts, of which {derived} "
        "are derived; the others are refused, each with its reason."
    )
    trl, liger = (importlib.metadata.version(library) for library in ("trl", "liger-kernel"))
    head = _HEAD.format(trl=trl, liger=liger, counts=counts)
    return head + "\n".join(rows) + "\n" + _REFUSED + "\n".join(refused) + "\n"


def attempt(public: Public) -> Reading | DerivationError:
    """What `derive` makes of a public loss, or why it refuses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            reading = derive(public.function, **public.given)
        except DerivationError as error:
            return error
    assert isinstance(reading, Reading)
    return reading


_KNOWN: dict[tuple[str, str], Reading | DerivationError] = {}


def read(public: Public) -> Reading:
    """`attempt`, made once for each loss."""
    key = (public.library, public.name)
    found = _KNOWN.setdefault(key, _KNOWN.get(key) or attempt(public))
    if isinstance(found, DerivationError):
        raise found
    return found


def _rows(public: Public, reading: Reading) -> list[str]:
    rows = []
    for i, (rule, meanings) in enumerate(zip(reading.rules, reading.meanings, strict=True)):
        per_token = any(s.name.startswith("n_") for e in meanings.values() for s in e.free_symbols)
        first = [public.library, public.name] if i == 0 else ["", ""]
        where = [str(rule.guard)] if rule.guard is not None else []
        where += ["per token"] if per_token else []
        cells = [
            *first,
            "" if rule.weight == 1 else f"`{rule.weight}`",
            " and ".join(f"`{structure.ratio}`" for structure in rule.structures),
            _of(rule),
            f"`{rule.link.expression}`",
            rule.link.direction,
            ", ".join(where),
        ]
        rows.append("| " + " | ".join(map(_cell, cells)) + " |")
    return rows


def _of(rule: AnyRule) -> str:
    if isinstance(rule, Rule):
        return catalogue.name_of(rule.structure) or ""
    return f"two ratios, g = `{rule.inner}`: {rule.inner.name}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    print(f"wrote {PAGE.name}")
