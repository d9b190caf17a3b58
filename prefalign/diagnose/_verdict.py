"""The run in plain words, and the next thing to try; every threshold stands in docs/report.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ._interval import Interval, paired_interval
from ._run import Run, Series

if TYPE_CHECKING:
    from ._remedy import Change

Level = Literal["good", "note", "warn", "bad"]

DISPLACED = 0.5  # share of pairs whose chosen completion lost probability
FAR = 0.1  # nats per token from the reference
GAP = 0.15  # training accuracy above evaluation accuracy
STILL = 0.01  # reward margin gained, in units of the reward
TELLS_APART = 0.55  # pair accuracy on held-out pairs
TURNED = 0.1  # share of the gold reward's whole range by which it lies below its best
CONTRADICTIONS = 0.02  # share of rows that contradict another


@dataclass(frozen=True)
class Remark:
    """One thing worth saying about a run.

    Args:
        level: How it is meant.
        headline: The finding, in one sentence.
        detail: The numbers, and how to read them.
        remedy: The next thing to try, or an empty string.
        code: What to write for it: a loss expression or an option, or an empty string.
    """

    level: Level
    headline: str
    detail: str
    remedy: str = ""
    code: str = ""


def gold_change(run: Run, seed: int = 0) -> Interval | None:
    """Mean change of the gold reward with its 95 % interval over prompts; None where no sample has one."""
    scored = [sample for sample in run.samples if sample.gold_before is not None and sample.gold_after is not None]
    if not scored:
        return None
    before = [float(sample.gold_before or 0.0) for sample in scored]
    after = [float(sample.gold_after or 0.0) for sample in scored]
    return paired_interval(before, after, seed, groups=[sample.prompt for sample in scored])


def judge(run: Run) -> list[Remark]:
    """What there is to say about a run: the gold reward where there is one, then what is wrong, then what went well."""
    makers = (_stopped, _gold, _turned, _two_sides, _learning, _overfitting, _noise, _displacement, _distance)
    remarks = [remark for maker in makers if (remark := maker(run)) is not None]
    if not remarks:
        remarks.append(
            Remark(
                "note",
                "The log holds too little to judge the run.",
                "No known metric was logged.",
                "Set `logging_steps`.",
            )
        )
    elif (missing := _not_compared(run)) is not None:
        remarks.append(missing)
    order = {"bad": 0, "warn": 1, "good": 2, "note": 3}
    gold = _gold(run)  # the one number that training could not see: it comes first whatever it says
    return sorted(remarks, key=lambda remark: (remark != gold, order[remark.level]))


def _not_compared(run: Run) -> Remark | None:
    """What is missing for telling apart beside writing."""
    missing = []
    if "rewards/accuracies" not in run.evaluation:
        missing.append("pair accuracy on held-out pairs (`eval_strategy`)")
    if gold_change(run) is None:
        missing.append("gold rewards of samples before and after (`gold_before` and `gold_after` of `write_samples`)")
    if not missing:
        return None
    return Remark("note", "Telling apart and writing are not compared.", f"Missing: {' and '.join(missing)}.")


def metric(run: Run, name: str) -> Series | None:
    """A metric of evaluation, which is measured on data that is not trained on, or else of training."""
    return run.evaluation.get(name) or run.train.get(name)


def _stopped(run: Run) -> Remark | None:
    if not run.max_steps or run.step >= run.max_steps:
        return None
    return Remark(
        "warn",
        f"The log ends at step {run.step} of {run.max_steps}.",
        "The run was stopped, is still going on, or its last checkpoint lies before its end.",
        "Go on from the last checkpoint.",
        "resume_from_checkpoint: true",
    )


def _gold(run: Run) -> Remark | None:
    change = gold_change(run)
    if change is None:
        return None
    shown = f"{change.mean:+.3f}, 95 % interval [{change.low:+.3f}, {change.high:+.3f}], bootstrapped over prompts"
    if change.low > 0:
        return Remark("good", "The gold reward rose, by more than its noise.", f"Mean change {shown}.")
    if change.high < 0:
        return Remark(
            "bad",
            "The gold reward fell.",
            f"Mean change {shown}. The model may fit the labels and not what they stand for.",
            "Stay closer to the reference: a larger beta, fewer steps, or a soup as the reference.",
            "reference: soup(a, b)",
        )
    return Remark(
        "note",
        "The gold reward did not change by more than its noise.",
        f"Mean change {shown}.",
        "Score more prompts before concluding anything, or train longer.",
    )


def gold_series(run: Run) -> tuple[Series, Series] | None:
    """A gold reward that was logged and the distance at the same steps; None where there are not three of both."""
    for side in (run.evaluation, run.train):
        gold = next((side[name] for name in sorted(side) if "gold" in name), None)
        if gold is None or "kl" not in side:
            continue
        steps, first, second = np.intersect1d(gold.steps, side["kl"].steps, return_indices=True)
        if len(steps) >= 3:
            return Series(steps, gold.values[first]), Series(steps, side["kl"].values[second])
    return None


def _turned(run: Run) -> Remark | None:
    both = gold_series(run)
    if both is None:
        return None
    gold, kl = both
    best, end = int(gold.values.argmax()), float(gold.end())
    top, whole = float(gold.values[best]), float(np.ptp(gold.values))
    farther = float(kl.end()) > float(kl.values[best])
    if not whole or best == len(gold.values) - 1 or top - end < TURNED * whole or not farther:
        return None
    change = _hold_chosen(run)
    return Remark(
        "bad",
        "The run is over-optimising: the gold reward turned while the policy moved on.",
        f"The gold reward was highest at step {int(gold.steps[best])} ({top:.3g}, {kl.values[best]:.3g} nats per token "
        f"from the reference); it ended at {end:.3g}, {kl.end():.3g} nats per token away.",
        f"Stop there, or pull harder: a larger beta, or a soup as the reference. {change.words}",
        change.code,
    )


def _two_sides(run: Run) -> Remark | None:
    """Telling pairs apart beside writing: the two come apart when a model over-optimises."""
    accuracy, change = run.evaluation.get("rewards/accuracies"), gold_change(run)
    if accuracy is None or change is None:
        return None
    share = accuracy.end()
    detail = (
        f"It prefers the chosen completion in {share:.0%} of the held-out pairs; the gold reward of what it writes "
        f"itself changed by {change.mean:+.3f} [{change.low:+.3f}, {change.high:+.3f}]."
    )
    if share >= TELLS_APART and change.high < 0:
        better = _hold_chosen(run)
        return Remark(
            "bad",
            "The policy tells good from bad, but writes worse.",
            f"{detail} Ranking given texts and writing good ones are learned apart.",
            f"{better.words} Or take pairs that the policy wrote itself.",
            better.code,
        )
    if share < TELLS_APART and change.low > 0:
        return Remark(
            "note",
            "The policy writes better, though it hardly tells the pairs apart.",
            f"{detail} Held-out labels may be noisy, or the pairs unlike what it writes.",
        )
    together = "Both sides moved together." if share >= TELLS_APART and change.low > 0 else "Neither is settled."
    return Remark("note", "Telling apart and writing, side by side.", f"{detail} {together}")


def _learning(run: Run) -> Remark | None:
    margins = metric(run, "rewards/margins")
    if margins is None:
        return None
    accuracy = metric(run, "rewards/accuracies")
    where = "on the evaluation data" if "rewards/margins" in run.evaluation else "on the training data"
    share = f"; it prefers the chosen completion in {accuracy.end():.0%} of the pairs" if accuracy is not None else ""
    gained = margins.end() - (margins.start() if len(margins.values) > 1 else 0.0)
    detail = f"The reward margin {where} went from {margins.start():.3g} to {margins.end():.3g}{share}."
    if gained < -STILL:
        return Remark(
            "bad",
            "The policy learned the opposite of the labels.",
            detail,
            "Check that chosen and rejected are not exchanged.",
        )
    if gained < STILL:
        return Remark(
            "warn",
            "The policy has hardly moved.",
            detail,
            "Raise the learning rate tenfold (LoRA takes 1e-5 to 5e-4), train longer, or take a smaller beta.",
        )
    if accuracy is not None and accuracy.end() < TELLS_APART:
        return Remark(
            "note",
            "The reward margin grew, but hardly more pairs than half are told apart.",
            f"{detail} A few pairs with large margins may carry the mean.",
            "Train longer, or evaluate on more pairs before concluding anything.",
        )
    return Remark("good", "The policy learned to prefer the chosen completions.", detail)


def _overfitting(run: Run) -> Remark | None:
    train, held_out = run.train.get("rewards/accuracies"), run.evaluation.get("rewards/accuracies")
    if train is None or held_out is None or train.end() - held_out.end() < GAP:
        return None
    detail = f"Accuracy is {train.end():.0%} in training, but {held_out.end():.0%} on the evaluation data."
    loss = run.evaluation.get("loss")
    if loss is not None and loss.values[-1] > loss.values.min() + 0.02:
        best = int(loss.steps[loss.values.argmin()])
        detail += (
            f" The evaluation loss was lowest at step {best} ({loss.values.min():.3g}; now {loss.values[-1]:.3g})."
        )
    change = _allow_for_flips(run)
    words = f"Train fewer epochs; if labels may be wrong, use a robust loss. {change.words}" if change else ""
    return Remark(
        "warn",
        "The training labels are being memorised.",
        detail,
        words.rstrip() or "Train fewer epochs.",
        change.code if change else "",
    )


def _noise(run: Run) -> Remark | None:
    injected = run.number("noise_rate")
    measured = run.number("data", "train", "flip_rate")
    rate = injected if injected is not None else measured
    loss = run.train.get("loss")
    below = loss.end() if loss is not None and loss.end() < 0 else None
    noisy = rate is not None and rate >= CONTRADICTIONS
    if below is None and not noisy:
        return None
    change = _allow_for_flips(run, rate)
    if change is None:
        return _below_zero(below) if below is not None else None
    if rate is None or not noisy:
        return None
    source = "were flipped on purpose" if injected is not None else "seem flipped, judging by repeated pairs"
    return Remark(
        "warn",
        f"About {rate:.0%} of the labels {source}, and the loss takes every label for right.",
        "A loss that knows the flip rate has, on average, the gradient of clean labels.",
        f"Tell the loss about the noise. {change.words}".rstrip(),
        change.code,
    )


def _below_zero(end: float) -> Remark:
    return Remark(
        "note",
        "The robust loss is below zero.",
        f"It ended at {end:.3g}. That is no fault: it subtracts the loss of the exchanged pair, so it has no lower "
        "bound. But memorised pairs keep pushing.",
        "Watch the evaluation metrics rather than this loss, and stop when they turn.",
    )


def _displacement(run: Run) -> Remark | None:
    share, change = metric(run, "displacement"), metric(run, "logps/chosen_change")
    if share is None or change is None:
        return None
    detail = (
        f"The chosen completion lost probability in {share.end():.0%} of the pairs, {change.end():+.1f} nats on average"
    )
    rejected = metric(run, "logps/rejected_change")
    detail += f"; the rejected one changed by {rejected.end():+.1f} nats." if rejected is not None else "."
    if share.end() <= DISPLACED or change.end() >= 0:
        return Remark("good", "The chosen completions kept their probability.", detail)
    better = _hold_chosen(run)
    return Remark(
        "warn",
        "The chosen completions became less likely (displacement).",
        f"{detail} What rewards only the difference lets both fall together, and the mass goes elsewhere.",
        better.words,
        better.code,
    )


def _distance(run: Run) -> Remark | None:
    distance = metric(run, "kl")
    if distance is None:
        return None
    end = distance.end()
    detail = f"It ended {end:.3g} nats per token away, estimated on the data's own tokens."
    if end <= FAR:
        return Remark("note", "The policy stayed near its reference.", detail)
    beta = run.number("loss", "beta")
    larger = f" (beta {beta:g} to {2 * beta:g})" if beta else ""
    return Remark(
        "warn",
        "The policy moved far from its reference.",
        f"{detail} Far away, the rewards that the loss sees say little about the texts that are sampled.",
        f"Pull harder{larger}, take fewer steps, or compare with a soup of two models, which moves with less loss.",
        "reference: soup(a, b)",
    )


def _hold_chosen(run: Run) -> Change:
    from ._remedy import hold_chosen  # loads torch, which a run without such a remark does not need

    return hold_chosen(run.text("loss", "expression"), run.number("loss", "beta"))


def _allow_for_flips(run: Run, rate: float | None = None) -> Change | None:
    """None where the loss knows of flips already."""
    from ._remedy import allow_for_flips, knows_flips

    expression = run.text("loss", "expression")
    if knows_flips(expression):
        return None
    shown = min(round(rate, 2), 0.45) if rate is not None else 0.1
    return allow_for_flips(expression, shown, run.number("loss", "beta"))
