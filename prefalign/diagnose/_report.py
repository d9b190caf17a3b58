"""`prefalign report`: a run as one HTML page that needs nothing else, with its pictures beside it."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from ._curves import Picture, draw
from ._run import Run, read_run
from ._samples import Sample
from ._verdict import Remark, gold_change, judge, metric
from ._write import write_atomically

_LONGEST_TEXT = 1500


@dataclass(frozen=True)
class Tile:
    """A number at the top of the page."""

    label: str
    value: str
    note: str


@dataclass(frozen=True)
class Report:
    """What `write_report` made.

    Args:
        page: The HTML file.
        pictures: The PNG files.
        remarks: The verdict.
    """

    page: Path
    pictures: tuple[Path, ...]
    remarks: tuple[Remark, ...]

    def to_json(self) -> dict[str, object]:
        """The verdict and the paths, in values that `json.dumps` takes."""
        return {
            "page": str(self.page),
            "pictures": [str(path) for path in self.pictures],
            "verdict": [vars(remark) for remark in self.remarks],
        }


def write_report(
    run: str | os.PathLike[str], out: str | os.PathLike[str] | None = None, *, samples: int = 12
) -> Report:
    """Turn a run into `report.html`, and a folder of PNGs beside it that is named like the page.

    Args:
        run: The trainer's `output_dir`.
        out: The page; by default `report.html` in the run's folder.
        samples: How many samples the page shows; its numbers are of all of them.

    Raises:
        CheckpointError: There is no readable run.
        DataError: `samples.jsonl` is damaged, or the page cannot be written.
        ConfigError: matplotlib is not installed.
    """
    read = read_run(run)
    remarks = judge(read)
    pictures = draw(read)
    page = Path(out) if out is not None else read.folder / "report.html"
    html = _render(read, remarks, pictures, samples)
    paths = []
    for picture in pictures:
        path = page.with_suffix("") / f"{picture.name}.png"
        write_atomically(path, picture.png)
        paths.append(path)
    write_atomically(page, html.encode("utf-8", "replace"))
    return Report(page, tuple(paths), tuple(remarks))


def _render(run: Run, remarks: list[Remark], pictures: list[Picture], samples: int) -> str:
    import jinja2

    source = files(__package__).joinpath("templates/report.html.j2").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page: str = environment.from_string(source).render(
        name=run.folder.resolve().name,
        step=run.step,
        remarks=remarks,
        tiles=list(_tiles(run)),
        formula=run.text("loss", "formula"),
        expression=run.text("loss", "expression"),
        reference=run.text("reference", "identity"),
        model=run.text("model"),
        noise=run.number("noise_rate"),
        pictures=[(picture, base64.b64encode(picture.png).decode("ascii")) for picture in pictures],
        samples=[_shown(sample) for sample in run.samples[:samples]],
        sample_count=len(run.samples),
        has_gold=any(sample.gold_before is not None for sample in run.samples),
        data=_data(run),
        options=_plain(run, "options"),
        versions=_plain(run, "versions"),
        notes=run.notes,
    )
    return page


def _tiles(run: Run) -> Iterator[Tile]:
    """The numbers that matter most, of evaluation where there was one."""
    gold = gold_change(run)
    if gold is not None:
        yield Tile("Gold reward, change", f"{gold.mean:+.3f}", f"95 %: {gold.low:+.3f} to {gold.high:+.3f}")
    formats = (
        ("loss", "Loss", "{:.3f}"),
        ("rewards/accuracies", "Pair accuracy", "{:.0%}"),
        ("rewards/margins", "Reward margin", "{:.3f}"),
        ("displacement", "Displaced pairs", "{:.0%}"),
        ("kl", "KL, nats per token", "{:.3f}"),
    )
    for name, label, shape in formats:
        series = metric(run, name)
        if series is not None:
            where = "evaluation" if name in run.evaluation else "training"
            start = f"from {shape.format(series.start())}, " if len(series.values) > 1 else ""
            yield Tile(label, shape.format(series.end()), f"{start}{where}")


def _data(run: Run) -> list[dict[str, object]]:
    """The data reports of the record, as far as they have the shape that they should have."""
    shown: list[dict[str, object]] = []
    for name in run.table("data"):
        rows, dropped = run.number("data", name, "rows"), run.number("data", name, "dropped")
        if rows is None:
            continue
        report = run.table("data", name)
        findings = report.get("findings")
        lines = [
            f"{finding.get('count')} x {finding.get('kind')}: {finding.get('message')}"
            for finding in (findings if isinstance(findings, list) else [])
            if isinstance(finding, dict)
        ]
        shown.append({"name": name, "rows": f"{rows:,.0f}", "dropped": f"{dropped or 0:,.0f}", "findings": lines})
    return shown


def _plain(run: Run, key: str) -> list[tuple[str, str]]:
    return [(str(name), str(value)) for name, value in run.table(key).items() if value is not None]


def _shown(sample: Sample) -> dict[str, object]:
    """A sample as the page shows it."""
    change = None
    if sample.gold_before is not None and sample.gold_after is not None:
        change = sample.gold_after - sample.gold_before
    texts = {name: getattr(sample, name) for name in ("prompt", "before", "after")}
    cut = {name: text[:_LONGEST_TEXT] + " …" * (len(text) > _LONGEST_TEXT) for name, text in texts.items()}
    return {**cut, "gold_before": sample.gold_before, "gold_after": sample.gold_after, "change": change}
