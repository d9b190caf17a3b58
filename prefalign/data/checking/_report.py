"""What a check found: findings with counts and rows, lengths, and what follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..._errors import DataError
from .._layout import Layout
from ._agreement import Agreement

Severity = Literal["unusable", "drop", "warn", "note"]

_HEADINGS: dict[Severity, str] = {
    "unusable": "Cannot be used",
    "drop": "Cannot be trained on",
    "warn": "Worth a look",
    "note": "Good to know",
}


@dataclass(frozen=True)
class Finding:
    """One kind of fault in the data.

    Args:
        kind: Short name of the fault, as in the table of docs/data.md.
        severity: "unusable" (the whole set), "drop" (these rows), "warn" or "note".
        count: How many rows have it.
        rows: Indexes of the first of them, counted from 0.
        message: What is wrong and what to do about it.
    """

    kind: str
    severity: Severity
    count: int
    rows: tuple[int, ...]
    message: str


@dataclass(frozen=True)
class Lengths:
    """Distribution of one length over the rows, in tokens (or in characters where no tokenizer was given)."""

    mean: float
    p5: float
    p50: float
    p95: float
    p99: float
    longest: int

    @classmethod
    def of(cls, values: Sequence[int] | np.ndarray) -> Lengths:
        """Summarise lengths, of which there is at least one."""
        numbers = np.asarray(values)
        p5, p50, p95, p99 = (float(x) for x in np.percentile(numbers, [5, 50, 95, 99]))
        return cls(float(numbers.mean()), p5, p50, p95, p99, int(numbers.max()))


@dataclass(frozen=True, eq=False)
class DataReport:
    """What `check_pairs` found; `print(report)` shows it, `report.to_json()` is made of plain values.

    Args:
        rows: How many rows were read.
        layout: "explicit", "implicit" or "winners"; None where the columns are no layout of pairs.
        conversational: Whether the texts are lists of messages.
        unit: What lengths are counted in.
        max_length: Longest sequence that training keeps, in tokens; None for no limit.
        findings: The faults, the worst first.
        lengths: Distributions by name: "prompt", the completions, and "longest" (prompt and longer completion).
        truncated: Share of the rows of which training would cut something off, 0 to 1.
        chosen_longer: Share of the rows whose chosen completion is longer than the rejected one, 0 to 1.
        agreement: How the labels of repeated pairs agree; None where no two of them contradict each other.
        bad_rows: Indexes of all rows that cannot be trained on, in order.
    """

    rows: int
    layout: Layout | None
    conversational: bool
    unit: Literal["tokens", "characters"]
    max_length: int | None
    findings: tuple[Finding, ...]
    lengths: dict[str, Lengths]
    truncated: float
    chosen_longer: float
    agreement: Agreement | None
    bad_rows: np.ndarray

    @property
    def unusable(self) -> bool:
        """Whether the data set as a whole cannot be trained on."""
        return any(finding.severity == "unusable" for finding in self.findings)

    @property
    def dropped(self) -> int:
        """How many rows cannot be trained on."""
        return len(self.bad_rows)

    @property
    def clean(self) -> bool:
        """Whether there is neither a row to drop nor a warning."""
        return all(finding.severity == "note" for finding in self.findings)

    @property
    def flip_rate(self) -> float | None:
        """Label noise that the labels of repeated pairs point at, 0 to 0.5; None where there are too few to tell."""
        found = self.agreement
        return found.rate if found is not None and found.reason_against is None else None

    def count(self, kind: str) -> int:
        """How many rows have the fault `kind`; 0 if none."""
        return sum(finding.count for finding in self.findings if finding.kind == kind)

    def raise_if_unusable(self) -> None:
        """Raise the first fault that concerns the whole data set.

        Raises:
            DataError: There is one.
        """
        for finding in self.findings:
            if finding.severity == "unusable":
                raise DataError(finding.message)

    def to_json(self) -> dict[str, object]:
        """The report in values that `json.dumps` takes; of the bad rows only their number."""
        return {
            "rows": self.rows,
            "dropped": self.dropped,
            "unusable": self.unusable,
            "layout": self.layout,
            "conversational": self.conversational,
            "unit": self.unit,
            "max_length": self.max_length,
            "findings": [{**vars(finding), "rows": list(finding.rows)} for finding in self.findings],
            "lengths": {name: vars(lengths) for name, lengths in self.lengths.items()},
            "truncated": self.truncated,
            "chosen_longer": self.chosen_longer,
            "repeats": vars(self.agreement) if self.agreement is not None else None,
            "flip_rate": self.flip_rate,
        }

    def __str__(self) -> str:
        kind = "conversations" if self.conversational else "plain text"
        layout = {
            "explicit": "prompt, chosen, rejected",
            "implicit": "chosen, rejected (prompt implicit)",
            "winners": "prompt and chosen completions only",
            None: "no layout of pairs",
        }[self.layout]
        lines = [f"{self.rows:,} rows: {layout}; {kind}"]
        for severity, heading in _HEADINGS.items():
            found = [finding for finding in self.findings if finding.severity == severity]
            if found:
                lines += ["", heading]
                lines += [_finding_line(finding) for finding in found]
        if self.agreement is not None:
            lines += ["", _agreement_line(self.agreement)]
        lines += _length_table(self)
        return "\n".join([*lines, "", _verdict(self)])


def _agreement_line(found: Agreement) -> str:
    seen = f"{found.agreeing:,} of {found.compared:,} comparisons of repeated labels agree"
    if found.reason_against is not None:
        return f"{seen}. No flip rate follows: {found.reason_against}."
    return (
        f"{seen}, as if {found.rate:.1%} of the labels were flipped\n"
        f"(95 % interval {found.low:.1%} to {found.high:.1%}), provided that "
        f"each was given independently.\n`robust(dpo(beta=0.1), flip_rate={found.rate:.2g})` corrects for that."
    )


def _finding_line(finding: Finding) -> str:
    if not finding.count:
        return f"  {finding.message}"
    shown = ", ".join(map(str, finding.rows))
    more = ", ..." if finding.count > len(finding.rows) else ""
    rows = f"  (row{'s' if finding.count > 1 else ''} {shown}{more})" if finding.rows else ""
    return f"  {finding.count:>7,}  {finding.kind}: {finding.message}{rows}"


def _length_table(report: DataReport) -> list[str]:
    if not report.lengths:
        return []
    head = f"  {report.unit:<12}" + "".join(f"{name:>9}" for name in ("mean", "5 %", "median", "95 %", "99 %", "max"))
    lines = ["", "Lengths", head]
    for name, one in report.lengths.items():
        cells = (one.mean, one.p5, one.p50, one.p95, one.p99, one.longest)
        lines.append(f"  {name:<12}" + "".join(f"{cell:>9,.0f}" for cell in cells))
    if "rejected" in report.lengths:
        lines.append(f"  The chosen completion is the longer one in {report.chosen_longer:.1%} of the rows.")
    return lines


def _verdict(report: DataReport) -> str:
    if report.unusable:
        return "Verdict: this data set cannot be trained on."
    kept = report.rows - report.dropped
    by = ""
    if report.layout == "winners":
        by = (
            ", but only with `sft`, which needs no second completion, or `seppo`, whose second one is generated.\nAll "
            "other losses need the column `rejected`"
        )
    if report.dropped:
        return f"Verdict: {kept:,} rows can be trained on; {report.dropped:,} would be dropped{by}."
    return f"Verdict: all {kept:,} rows can be trained on{by}."
