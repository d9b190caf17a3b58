"""The plan of a sweep: everything that decides its results, so that every process does the same."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._errors import CheckpointError, ConfigError
from .._yaml import read_mapping
from ._arms import Arm

CONFIG_FILE, GOLD_FILE = "config.yaml", "gold.json"  # in the folder of a run
# What the sweep decides itself, run by run.
OWN = ("loss", "loss_type", "loss_weights", "beta", "seed", "output_dir", "resume_from_checkpoint")


@dataclass(frozen=True)
class Job:
    """One run: an arm with a seed."""

    name: str
    arm: Arm
    seed: int


@dataclass(frozen=True)
class Metric:
    """A number that is compared: its key, what the page calls it, its unit, and whether more is better."""

    key: str
    title: str
    unit: str
    up: bool


METRICS = (
    Metric("gold", "Gold reward", "VADER compound, mean over samples", True),
    Metric("margin", "Margin gained", "nats, sum over tokens", True),
    Metric("chosen", "Chosen, change", "nats, sum over tokens", True),
    Metric("rejected", "Rejected, change", "nats, sum over tokens", False),
    Metric("displacement", "Displacement", "share of pairs", False),
)


@dataclass(frozen=True)
class Halving:
    """Asynchronous successive halving by Optuna: losses are judged at `first`, `first * factor`, … steps.

    Args:
        factor: Of the losses that have come to a rung, one in so many goes on.
        first: Optimizer step of the first rung.
        baselines: Whether baselines are judged, too; else they run to the end whatever they show.
    """

    factor: int
    first: int
    baselines: bool = False

    def judges(self, arm: Arm) -> bool:
        """Whether an arm can be stopped."""
        return self.baselines or arm.kind == "candidate"

    def rungs(self, steps: int, every: int) -> tuple[int, ...]:
        """The evaluations at which losses are judged, of a run of `steps` with an evaluation `every` few."""
        found = (-(-self.first * self.factor**power // every) * every for power in range(steps.bit_length()))
        return tuple(sorted({rung for rung in found if rung < steps}))


@dataclass(frozen=True)
class Plan:
    """What is trained.

    Args:
        spec: The specification as text; empty for none.
        base: The options that all runs share, as in a config file of `prefalign train`.
        arms: The losses.
        seeds: Every arm is trained with each.
        gold_samples: Samples for each held-out prompt, scored by VADER; 0 is none.
        data: SHA-256 of the data files.
        halving: Where losses are stopped early; None for nowhere.
        judge_by: Key of the metric that the study compares, as a mean over the seeds.
    """

    spec: str
    base: Mapping[str, Any]
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    gold_samples: int
    data: Mapping[str, str]
    halving: Halving | None = None
    judge_by: str = "margin"

    @property
    def metric(self) -> Metric:
        """What the study compares."""
        return next(metric for metric in METRICS if metric.key == self.judge_by)

    @property
    def jobs(self) -> tuple[Job, ...]:
        """Every run, in the order of the losses."""
        return tuple(Job(f"{self.label(arm)}-seed{seed}", arm, seed) for arm in self.arms for seed in self.seeds)

    def label(self, arm: Arm) -> str:
        """What files are called after an arm."""
        place = f"{self.arms.index(arm) + 1:0{len(str(len(self.arms)))}}"
        return f"{place}-{re.sub(r'[^A-Za-z0-9.]+', '-', arm.name).strip('-.')[:40] or 'loss'}"

    def rungs(self, arm: Arm) -> tuple[int, ...]:
        """The steps at which an arm may be stopped, ascending."""
        if self.halving is None or not self.halving.judges(arm):
            return ()
        return self.halving.rungs(self.base["max_steps"], self.base["eval_steps"])

    def config(self, job: Job, folder: Path) -> dict[str, Any]:
        """The config file of a run, for `prefalign train --config`."""
        from ..losses import parse_loss

        base = dict(self.base)
        if not parse_loss(job.arm.loss).needs_reference:
            for name in ("reference", "reference_cache"):
                base.pop(name, None)  # it would have no effect, which is an error
        own = {"loss": job.arm.loss, "seed": job.seed, "output_dir": str(folder / "run")}
        # Without a look at the untrained model, a loss without a reference has no start to measure changes from.
        quiet = {"logging_steps": 1, "report_to": "none", "save_strategy": "no", "samples": 0}
        # The first run computes the reference's log-probabilities; the others read them.
        return {"eval_on_start": True, "reference_cache": "shared", **quiet, **base, **own}

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON takes it."""
        made: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return made

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Plan:
        """What `to_json` gave.

        Raises:
            CheckpointError: It is damaged, or of another version.
        """
        try:
            arms = tuple(Arm(**{**arm, "atoms": tuple(arm["atoms"])}) for arm in content["arms"])
            halving = None if content["halving"] is None else Halving(**content["halving"])
            return cls(**{**content, "arms": arms, "seeds": tuple(content["seeds"]), "halving": halving})
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"The plan of the sweep cannot be read: {error}. Choose another --out.") from error

    def differences(self, other: Plan) -> list[str]:
        """The fields in which two plans differ."""
        return [f.name for f in dataclasses.fields(self) if getattr(self, f.name) != getattr(other, f.name)]


def read_base(path: Path) -> dict[str, Any]:
    """The options that all runs share, from a config file.

    Raises:
        ConfigError: It cannot be read, decides what the sweep decides, or does not evaluate.
    """
    content = read_mapping(path, "--config", "The config file")
    for name in OWN:
        if name in content:
            raise ConfigError(f"`{name}` in '{path}' would be overridden: a sweep decides it run by run. Leave it out.")
    if str(content.get("eval_strategy", "no")) in ("no", "False"):
        raise ConfigError(
            f"'{path}' must evaluate: runs are compared on held-out pairs. Set `eval_strategy: steps`, `eval_steps` "
            "and `eval_dataset_name`."
        )
    return content


def check_base(plan: Plan) -> None:
    """Read the config of one run of every arm as `prefalign train` will, so that a mistake stops no fleet half-way.

    Raises:
        PrefalignError: An option is unknown, out of range, or has no effect.
    """
    import argparse

    import yaml

    from ..train import add_training_arguments, read_options

    parser = argparse.ArgumentParser()
    add_training_arguments(parser)
    actions = parser.get_default("actions")
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "config.yaml"
        for job in plan.jobs[: len(plan.arms)]:
            file.write_text(yaml.safe_dump(plan.config(job, Path("runs"))), "utf-8")
            read_options(str(file), {}, actions)


def check_halving(plan: Plan) -> None:
    """Refuse rungs that no run comes to.

    Raises:
        ConfigError: No rung lies before the end, or there are too few losses to stop any.
    """
    halving = plan.halving
    if halving is None:
        return
    steps, every = (plan.base.get(name) for name in ("max_steps", "eval_steps"))
    for name, value in (("max_steps", steps), ("eval_steps", every)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"`--halving` needs `{name}` in the config, a whole number >= 1 (got {value!r}).")
    assert isinstance(steps, int)
    assert isinstance(every, int)
    if halving.first < 1 or not halving.rungs(steps, every):
        raise ConfigError(
            f"`--first-rung` must be a step >= 1 with an evaluation (`eval_steps` = {every}) before the end "
            f"(`max_steps` = {steps}; got {halving.first})."
        )
    judged = sum(halving.judges(arm) for arm in plan.arms)
    if judged < 2:
        raise ConfigError(
            f"`--halving` would have no effect: {judged} of the losses can be stopped. Ask for more candidates with "
            "--spec and --top, or judge the baselines, too, with --judge-baselines."
        )


def hash_data(base: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of the data sets that are files."""
    names = (base.get("dataset_name"), base.get("eval_dataset_name"))
    files = [name for name in names if isinstance(name, str) and os.path.isfile(name)]
    return {name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in files}


def job_folder(folder: Path, job: Job) -> Path:
    """Where a run lies."""
    return folder / "runs" / job.name
