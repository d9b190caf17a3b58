"""Dispatch: one table of commands, errors to stderr, exit codes (0 done, 2 refused, 130 interrupted)."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

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
    chosen = next((word for word in words if not word.startswith("-")), None)
    called = f"prefalign {chosen}" if chosen in COMMANDS else "prefalign"
    came: list[int] = []
    _print_anything()
    try:
        with _listening(came):
            return _run(words, chosen)
    except BaseException as error:
        if came or isinstance(error, KeyboardInterrupt):  # libraries make other errors of it, in imports above all
            return _stopped(called, came)
        if not isinstance(error, PrefalignError | OSError):
            raise
        return _refused(called, error)


def _refused(called: str, error: PrefalignError | OSError) -> int:
    """Say what is wrong, where it is nothing of ours."""
    if isinstance(error, BrokenPipeError):  # `prefalign … | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter's own flush complains
        return 0
    text = str(error)
    if isinstance(error, OSError):  # a full disk, a folder that is read-only
        if error.errno is None:
            raise error
        text = (f"{str(error.filename)!a:.300}: " if error.filename is not None else "") + str(error.strerror)
    print(f"{called}: {text}", file=sys.stderr)
    return 2


def _stopped(called: str, came: list[int]) -> int:
    """Say that a signal has ended this process."""
    if signal.SIGTERM not in came:
        print(f"{called}: interrupted", file=sys.stderr)
        return 130
    print(f"{called}: terminated by SIGTERM", file=sys.stderr, flush=True)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)  # whoever waits for this process learns how it ended
    return 128 + signal.SIGTERM


def _run(words: list[str], chosen: str | None) -> int:
    """Parse the arguments and run the command."""
    parser = argparse.ArgumentParser(
        prog="prefalign",
        description="Preference alignment with losses you can read: train them, derive their logic, generate new ones.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"prefalign {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, summary) in COMMANDS.items():
        sub = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        if name == chosen:  # only the command that runs is imported: `prefalign --help` stays instant
            command = importlib.import_module(f".{module}", __package__)
            command.configure(sub)
            sub.set_defaults(run=command.run)
    if chosen is not None and chosen not in COMMANDS:
        parser.error(f"{chosen!a:.99} is no command.{did_you_mean(chosen, COMMANDS)} `prefalign --help` lists them.")
    args = parser.parse_args(words)
    code = int(args.run(args))
    sys.stdout.flush()
    return code


def _print_anything() -> None:
    """Let output escape what its encoding does not have, such as the bytes of a path that is not UTF-8."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def _listening(came: list[int]) -> Iterator[None]:
    """Within, SIGTERM ends this process as SIGINT does; those that it forks die of it as ever.

    Args:
        came: Takes the signals that came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    mine = os.getpid()

    def stop(signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGTERM:
            signal.signal(signum, signal.SIG_DFL)  # a second one kills
            if os.getpid() != mine:
                os.kill(os.getpid(), signum)
        came.append(signum)
        raise KeyboardInterrupt

    heeded = [each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) != signal.SIG_IGN]
    before = {each: signal.signal(each, stop) for each in heeded}  # `nohup` and `&` have them ignored
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
