"""What the demo prints."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._errors import DerivationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datasets import Dataset

    from ..losses import Loss
    from ._measurement import Measurement
    from ._settings import Settings

SHOWN = 3


def introduce(path: str, loss: Loss, noisy: Dataset, heldout: Dataset, data: Path) -> None:
    """Say what is about to be trained, on what, with which loss, and what that loss asks for in logic."""
    wrong = sum(noisy["flipped"])
    print("Film reviews: the gold reward is VADER's sentiment, the labels say which of two samples has more of it.")
    print(f"  model  {path}")
    print(
        f"  data   {data}: {len(noisy)} pairs, {wrong} of them with the wrong label; {len(heldout)} held out, all right"
    )
    print(f"  loss   {loss.expression}")
    print(f"  logic  {_logic(loss)}")
    print(flush=True)


def _logic(loss: Loss) -> str:
    """The rules that the loss's own code compiles to."""
    from ..compiler import derive
    from ..logic import Rule, RuleSet

    try:
        reading = derive(loss)
    except DerivationError as error:
        return f"no reading as rules: {error}"
    rules = reading.rules if isinstance(reading, RuleSet) else ()
    read = "  and  ".join(str(rule.structure.P) if isinstance(rule, Rule) else str(rule) for rule in rules)
    return f"{read}    (read off the loss's code; M: the model finds it valid, R: the reference does)"


def report(
    out: Path,
    result: dict[str, Any],
    before: Measurement,
    after: Measurement,
    prompts: Sequence[str],
    settings: Settings,
) -> None:
    """Print the table, the samples, the files and what to try next."""
    minutes, cpu = result["training_seconds"] / 60, result["training_cpu_seconds"] / 60
    since = ", since it was resumed" if result["resumed"] else ""
    print(f"\nTrained for {minutes:.1f} minutes ({cpu:.1f} of processor time{since})")
    print(f"On {result['prompts']} held-out prompts, {result['samples']} samples each [95 % bootstrap interval]")
    for line in table(result):
        print(f"  {line}")
    print(f"\nThe first sample of the first {SHOWN} held-out prompts, with its gold reward, before (-) and after (+)")
    for place in range(min(SHOWN, len(prompts))):
        print(f"  {_one_line(prompts[place])} …")
        for sign, measured in (("-", before), ("+", after)):
            index = place * result["samples"]
            text = f"{sign} {measured.gold[index]:+.2f}  …{_one_line(measured.texts[index])}"
            print(textwrap.fill(text, 110, initial_indent="    ", subsequent_indent=" " * 13))
    print(f"\nPicture {out / 'demo.png'}, report {out / 'report.html'}, numbers {out / 'result.json'}, adapter {out}")
    print("Next:")
    for line in hints(settings):
        print(f"  {line}")


def table(result: dict[str, Any]) -> list[str]:
    """The lines of the result, one per number."""
    return [
        f"gold reward (-1 to 1)    {_number(result['gold_before'])} before, {_number(result['gold_after'])} after",
        f"  change, paired         {_number(result['gold_change'])}",
        f"pair accuracy, truth     {_percent(result['accuracy'])} after; 50.0 % before, when every margin is 0",
        f"displaced pairs          {_percent(result['displaced'])}: the better completion's log-probability fell",
        f"  better completion      {_number(result['chosen_change'], 2)} nats, sum over tokens",
        f"  worse completion       {_number(result['rejected_change'], 2)} nats, sum over tokens",
        f"words in a sample        {result['words_before']:.1f} before, {result['words_after']:.1f} after",
    ]


def hints(settings: Settings) -> list[str]:
    """Two commands worth trying after this one."""
    plain = "dpo(beta=0.1)"
    here = Path(sys.executable).parent / "prefalign"
    program = "prefalign" if shutil.which("prefalign") else os.path.relpath(here)
    other = plain if settings.loss != plain else "robust(dpo(beta=0.1), flip_rate=0.3)"
    return [
        f"{program} demo --loss {shlex.quote(other)} --out runs/demo-other    # the same labels, another loss",
        f"{program} derive dpo    # the logic of the loss inside",
    ]


def _number(estimate: dict[str, float], places: int = 3) -> str:
    return "{mean:+.{p}f} [{low:+.{p}f}, {high:+.{p}f}]".format(p=places, **estimate)


def _percent(estimate: dict[str, float]) -> str:
    return "{:.1f} % [{:.1f}, {:.1f}]".format(*(100 * estimate[key] for key in ("mean", "low", "high")))


def _one_line(text: str) -> str:
    return " ".join(text.split())
