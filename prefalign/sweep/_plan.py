"""The plan of a sweep: everything that decides its results, in one file, so that every process does the same."""

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

PLAN_FILE = "plan.json"
_FORMAT = 1
# What the sweep decides itself, run by run.
OWN = ("loss", "loss_type", "loss_weights", "beta", "seed", "output_dir", "resume_from_checkpoint")


@dataclass(frozen=True)
class Job:
    """One run: an arm with a seed."""

    name: str
    arm: Arm
    seed: int


@dataclass(frozen=True)
class Halving:
    """Successive halving: at each rung the losses are judged, and all but the best are stopped there.

    Args:
        factor: One in so many goes on, rounded up.
        rungs: Optimizer steps at which losses are judged, ascending.
        by: Key of the metric that they are judged by: its mean over the seeds, which stay together.
        baselines: Whether baselines are judged, too; else they run to the end whatever they show.
    """

    factor: int
    rungs: tuple[int, ...]
    by: str = "margin"
    baselines: bool = False

    def judges(self, arm: Arm) -> bool:
        """Whether an arm can be stopped."""
        return self.baselines or arm.kind == "candidate"


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
    """

    spec: str
    base: Mapping[str, Any]
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    gold_samples: int
    data: Mapping[str, str]
    halving: Halving | None = None

    @property
    def jobs(self) -> tuple[Job, ...]:
        """Every run; all arms with the first seed come first, so that a sweep that is stopped compares them all."""
        width = len(str(len(self.arms)))
        return tuple(
            Job(f"{place:0{width}}-{_slug(arm.name)}-seed{seed}", arm, seed)
            for seed in self.seeds
            for place, arm in enumerate(self.arms, 1)
        )

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
        text = json.dumps({"format": _FORMAT, **dataclasses.asdict(self)})
        made: dict[str, Any] = json.loads(text)
        return made


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
    """Refuse rungs that no run comes to, or at which nothing is known.

    Raises:
        ConfigError: A rung is out of range or not at an evaluation, or there are too few losses to stop any.
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
    wrong = next((rung for rung in halving.rungs if rung % every or not 0 < rung < steps), None)
    if wrong is not None or not halving.rungs or list(halving.rungs) != sorted(set(halving.rungs)):
        raise ConfigError(
            f"`--rungs` must be ascending steps of evaluations, multiples of `eval_steps` = {every} below `max_steps` "
            f"= {steps} (got {list(halving.rungs)})."
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


def store_plan(plan: Plan, folder: Path) -> Plan:
    """Write the plan into `folder`, or check that the one that is there is the same; of several at once, one writes.

    Raises:
        ConfigError: `folder` holds another sweep.
    """
    write_once(folder / PLAN_FILE, plan.to_json())
    there = load_plan(folder)
    if there != plan:
        fields = [f.name for f in dataclasses.fields(Plan) if getattr(there, f.name) != getattr(plan, f.name)]
        raise ConfigError(
            f"{folder} holds a sweep that differs in {', '.join(fields)}. Choose another folder with --out; to go on "
            f"with that one, give `prefalign sweep --out {folder}` alone."
        )
    return there


def write_once(file: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file unless it is there; of several processes that do so at once, one writes."""
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=file.parent, prefix=".once-", delete=False) as scratch:
        json.dump(content, scratch, indent=2, ensure_ascii=False)
    try:
        os.link(scratch.name, file)  # fails where another process was first; a rename would replace its file
    except FileExistsError:
        pass
    finally:
        os.unlink(scratch.name)


def job_folder(folder: Path, job: Job) -> Path:
    """Where a run lies."""
    return folder / "runs" / job.name


def load_plan(folder: Path) -> Plan:
    """The plan in `folder`.

    Raises:
        CheckpointError: There is none, or it is damaged.
    """
    file = folder / PLAN_FILE
    try:
        content = json.loads(file.read_text("utf-8"))
        arms = tuple(Arm(**{**arm, "atoms": tuple(arm["atoms"])}) for arm in content["arms"])
        known = {f.name: content[f.name] for f in dataclasses.fields(Plan) if f.name != "halving"}
        halving = content.get("halving")  # plans of before there was halving have none
        if halving is not None:
            halving = Halving(**{**halving, "rungs": tuple(halving["rungs"])})
        return Plan(**{**known, "arms": arms, "seeds": tuple(content["seeds"]), "halving": halving})
    except FileNotFoundError:
        raise CheckpointError(f"{folder} holds no sweep. Start one with --spec or --baselines, and --config.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file} is damaged: {error}. Name another folder with --out.") from error


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.")[:40] or "loss"
