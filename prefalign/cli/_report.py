"""`prefalign report RUN`: a run as one HTML page with curves, samples and a verdict."""

from __future__ import annotations

import argparse
import json

from .._errors import ConfigError


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("run_folder", metavar="RUN", help="the trainer's output_dir")
    parser.add_argument("--out", metavar="FILE", help="the page (default: report.html in RUN); PNGs go beside it")
    parser.add_argument("--samples", type=int, default=12, metavar="N", help="samples on the page (default: 12)")
    parser.add_argument("--json", action="store_true", help="print the verdict and the paths as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Write the report, print its verdict, and return 0."""
    from ..diagnose import write_report

    if args.samples < 0:
        raise ConfigError(f"`--samples` must be >= 0 (got {args.samples}).")
    report = write_report(args.run_folder, args.out, samples=args.samples)
    if args.json:
        print(json.dumps(report.to_json(), indent=2, ensure_ascii=False))
        return 0
    for remark in report.remarks:
        print(f"{remark.headline}\n  {remark.detail}")
        if remark.remedy:
            print(f"  Try: {remark.remedy} {remark.code}".rstrip())
    print(f"Report: {report.page}")
    return 0
