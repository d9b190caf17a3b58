"""Working through a sweep: take a loss, train it with every seed in processes of their own, tell the study."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
from optuna.trial import Trial
from tqdm.auto import tqdm

from .._errors import ConfigError, PrefalignError
from ._arms import Arm
from ._plan import CONFIG_FILE, Job, Plan, job_folder
from ._results import measure
from ._study import FAILURES, RUNS, AllFailed, Queue

# How long a worker without work waits before it looks whether another one has died.
_PATIENCE = 2.0
# How often a worker makes sure that it was not taken for dead, in seconds.
_LOOK = 5.0
# What trains one run; the run's folder, the number of samples, and the step of a rung or 0 follow.
COMMAND = [sys.executable, "-m", "prefalign.sweep._job"]


class _Failed(Exception):
    """A run failed; the others go on."""


class _Ended(Exception):
    """This worker is interrupted."""


def work(queue: Queue, *, workers: int = 1) -> None:
    """Train until every loss of the plan is done; any number of processes may do so together.

    Args:
        queue: What is left.
        workers: Losses at the same time in this process's charge.

    Raises:
        ConfigError: `workers` is out of range.
        KeyboardInterrupt: It was interrupted; what was begun is given back.
    """
    if workers < 1:
        raise ConfigError(f"`--workers` must be at least 1 (got {workers}).")
    crew = _Crew(queue)
    threads = [threading.Thread(target=crew.serve, daemon=True) for _ in range(workers)]
    with tqdm(total=len(queue.plan.arms), desc="Sweep", unit="loss") as bar:
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads):
                bar.update(queue.done() - bar.n)
                bar.set_postfix_str(", ".join(crew.running), refresh=False)
                for thread in threads:
                    thread.join(1 / len(threads))
        finally:
            crew.stop.set()
            for thread in threads:
                thread.join()
        bar.update(queue.done() - bar.n)
    if crew.error is not None:
        raise crew.error


class _Crew:
    """The threads of one process; each trains one loss at a time."""

    def __init__(self, queue: Queue) -> None:
        self.queue, self.plan, self.folder = queue, queue.plan, queue.folder
        self.stop = threading.Event()
        self.running: list[str] = []
        self.error: BaseException | None = None

    def serve(self) -> None:
        try:
            while not self.stop.is_set():
                if self.queue.serve_one(self._train):
                    continue
                if self.queue.done() == len(self.plan.arms) or self.stop.wait(_PATIENCE):
                    return
        except _Ended:
            return
        except BaseException as error:  # shown by the main thread, which stops the others
            self.error = error
            self.stop.set()

    def _train(self, trial: Trial, arm: Arm) -> float:
        """All seeds of a loss, rung by rung: they are judged together, by their mean."""
        jobs = [job for job in self.plan.jobs if job.arm == arm]
        failures: dict[str, str] = {}
        reported = -1
        for until in (*self.plan.rungs(arm), 0):
            runs: dict[str, dict[str, Any]] = {}
            for job in jobs:
                if str(job.seed) not in failures:
                    try:
                        runs[str(job.seed)] = self._run(job, until, trial)
                    except _Failed as error:
                        failures[str(job.seed)] = str(error)
            trial.set_user_attr(RUNS, runs)
            trial.set_user_attr(FAILURES, failures)
            if not runs:
                raise AllFailed
            value = self._report(trial, runs, after=reported)
            reported = until
            if until and trial.should_prune():
                raise optuna.TrialPruned
        return value

    def _report(self, trial: Trial, runs: Mapping[str, Mapping[str, Any]], after: int) -> float:
        """Tell the study the mean over seeds at every evaluation behind a step; the last of them."""
        curves = [dict(zip(*run["curves"][self.plan.judge_by], strict=True)) for run in runs.values()]
        shared = sorted(set.intersection(*map(set, curves)))
        for step in shared:
            if step > after:
                trial.report(fmean(curve[step] for curve in curves), int(step))
        return fmean(run["final"][self.plan.judge_by] for run in runs.values())

    def _run(self, job: Job, until: int, trial: Trial) -> dict[str, Any]:
        folder = job_folder(self.folder, job)
        self.running.append(job.name)
        try:
            _write_config(self.plan, job, folder)
            self._serve_process([*COMMAND, str(folder), str(self.plan.gold_samples), str(until)], folder, trial)
            found = measure(folder, until)
        except PrefalignError as error:  # this run's fault
            raise _Failed(str(error)) from error
        finally:
            self.running.remove(job.name)
        if self.plan.judge_by not in found["final"]:
            raise _Failed(f"No evaluation has the {self.plan.metric.title.lower()}.")
        return found

    def _serve_process(self, words: list[str], folder: Path, trial: Trial) -> None:
        # In a session of its own: Ctrl-C is for this process, which then ends the child. When this process dies, the
        # child's standard input ends, and with it the child.
        with (
            (folder / "log.txt").open("ab") as log,
            subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            ) as process,
        ):
            looked = time.monotonic()
            try:
                while process.poll() is None:
                    if self.stop.wait(0.1):
                        raise _Ended
                    if time.monotonic() - looked > _LOOK:
                        looked = time.monotonic()
                        self.queue.check_ours(trial)
            finally:
                _end(process)
        if process.returncode > 0:
            raise _Failed(_reason(folder / "log.txt"))
        if process.returncode < 0:
            raise _Failed(f"the process was killed by signal {-process.returncode}")


def _write_config(plan: Plan, job: Job, folder: Path) -> None:
    import yaml

    from ..diagnose import write_atomically

    text = yaml.safe_dump(plan.config(job, folder), sort_keys=False, allow_unicode=True)
    write_atomically(folder / CONFIG_FILE, text.encode("utf-8"))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a child that still runs, and wait for it."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _reason(log: Path) -> str:
    """The last line of a log that says something."""
    lines = log.read_text("utf-8", "replace").replace("\r", "\n").splitlines()
    said = [line.strip() for line in lines if line.strip()]
    errors = [line for line in said if "Error" in line or line.startswith("prefalign ")]
    return (errors or said or ["nothing was said"])[-1][:500]
