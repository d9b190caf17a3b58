"""Dispatch: one table of commands, errors to stderr, exit codes (0 done, 2 refused, 130 interrupted)."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from .. import __version__
from .._errors import PrefalignError, did_you_mean

# Command -> (module in this folder, one line of help). Each module has `configure(parser)` and `run(args) -> int`.
COMMANDS: dict[str, tuple[str, str]] = {
    "train": ("_train", "Train a model on preference pairs."),
    "check": ("_check", "Report what training on a set of pairs would trip over."),
    "convert": ("_convert", "Translate a recipe of TRL, alignment-handbook, Axolotl or LLaMA-Factory."),
    "noise": ("_noise", "Estimate how many labels are flipped, and list the pairs that look it."),
    "demo": ("_demo", "Fine-tune a real model on noisy preferences, and see that it got better."),
    "soup": ("_soup", "Average checkpoints or adapters into one."),
    "cache": ("_cache", "List, verify or clear the log-probabilities of references that are kept."),
    "path": ("_path", "Measure and draw the loss between checkpoints."),
    "report": ("_report", "Turn a run into one HTML page with curves, samples and a verdict."),
    "derive": ("_derive", "Read an equation or a named loss into logic."),
    "explain": ("_explain", "Say what a loss means and how it behaves, on a page."),
    "generate": ("_generate", "Count or list the losses that a specification allows, the simplest first."),
    "sweep": ("_sweep", "Train the losses of a specification beside known ones, and compare them."),
    "compare": ("_compare", "Say how losses relate by preference entailment."),
    "explore": ("_explore", "Click through the order of losses, their tables, gradients and facts, in a browser."),
    "lattice": ("_lattice", "Order losses by entailment, and draw the order."),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `prefalign` with `argv` (default: the process's arguments) and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="prefalign",
        description="Preference alignment with losses you can read: train them, derive their logic, generate new ones.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"prefalign {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = next((word for word in words if not word.startswith("-")), None)
    for name, (module, summary) in COMMANDS.items():
        sub = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        if name == chosen:  # only the command that runs is imported: `prefalign --help` stays instant
            command = importlib.import_module(f".{module}", __package__)
            command.configure(sub)
            sub.set_defaults(run=command.run)
    if chosen is not None and chosen not in COMMANDS:
        parser.error(f"{chosen!a:.99} is no command.{did_you_mean(chosen, COMMANDS)} `prefalign --help` lists them.")
    args = parser.parse_args(words)
    try:
        code = int(args.run(args))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `prefalign … | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter's own flush complains
        return 0
    except PrefalignError as error:
        print(f"prefalign {args.command}: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a folder that is read-only: nothing of ours is wrong
        if error.errno is None:
            raise
        where = f"{str(error.filename)!a:.300}: " if error.filename is not None else ""
        print(f"prefalign {args.command}: {where}{error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"prefalign {args.command}: interrupted", file=sys.stderr)
        return 130
