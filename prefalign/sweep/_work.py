"""Working through a sweep: claim a run, train it in a process of its own, write down its result."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm.auto import tqdm

from .._errors import ConfigError, PrefalignError
from ..references import write_json
from ._claims import Claim, Claims
from ._halving import Leg, open_legs, stopped_arms
from ._job import CONFIG_FILE
from ._plan import Job, Plan, job_folder
from ._results import FAILED_FILE, RESULT_FILE, measure, rung_file

# How long a worker without work waits before it looks whether another one has given something back.
_PATIENCE = 2.0
# What trains one run; the run's folder, the number of samples, and the step of a rung or 0 follow.
COMMAND = [sys.executable, "-m", "prefalign.sweep._job"]


def work(plan: Plan, folder: Path, *, workers: int = 1, stale_after: float = 300.0, wait: bool = True) -> None:
    """Train until every run of the plan has a result or has failed; any number of processes may do so together.

    Args:
        plan: What is trained.
        folder: The sweep's directory, which a fleet shares.
        workers: Runs at the same time in this process's charge.
        stale_after: Seconds without a heartbeat after which another worker's run is taken over.
        wait: Stay until the runs of other workers are done, too.

    Raises:
        ConfigError: `workers` or `stale_after` is out of range.
        KeyboardInterrupt: It was interrupted; what was begun is given back.
    """
    if workers < 1:
        raise ConfigError(f"`--workers` must be at least 1 (got {workers}).")
    if not stale_after > 1:
        raise ConfigError(f"`--stale-after` must be more than one second (got {stale_after:g}).")
    crew = _Crew(plan, folder, Claims(folder / "claims", stale_after), wait)
    threads = [threading.Thread(target=crew.serve, daemon=True) for _ in range(workers)]
    with tqdm(total=len(plan.jobs), desc="Sweep", unit="run") as bar:
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads):
                bar.update(crew.finished() - bar.n)
                bar.set_postfix_str(", ".join(crew.running), refresh=False)
                for thread in threads:
                    thread.join(0.2 / len(threads))
        finally:
            crew.stop.set()
            for thread in threads:
                thread.join()
        bar.update(crew.finished() - bar.n)
    if crew.error is not None:
        raise crew.error


def retry_failed(plan: Plan, folder: Path) -> None:
    """Forget which runs have failed, so that they are done again, from their last checkpoints.

    Those of losses that halving has stopped in the meantime have failed for good.
    """
    stopped = stopped_arms(plan, folder)
    for job in plan.jobs:
        if job.arm.name not in stopped:
            (job_folder(folder, job) / FAILED_FILE).unlink(missing_ok=True)


class _Crew:
    """The threads of one process; each trains one run at a time."""

    def __init__(self, plan: Plan, folder: Path, claims: Claims, wait: bool) -> None:
        self.plan, self.folder, self.claims, self.wait = plan, folder, claims, wait
        self.stop = threading.Event()
        self.running: list[str] = []
        self.error: BaseException | None = None

    def finished(self) -> int:
        stopped = stopped_arms(self.plan, self.folder)
        return sum(job.arm.name in stopped or Leg(job).is_done(self.folder) for job in self.plan.jobs)

    def serve(self) -> None:
        try:
            while not self.stop.is_set():
                left = open_legs(self.plan, self.folder)
                if not left or (not self._serve_one(left) and not self._may_wait()):
                    return
        except BaseException as error:  # shown by the main thread, which stops the others
            self.error = error
            self.stop.set()

    def _serve_one(self, left: Sequence[Leg]) -> bool:
        for leg in left:
            claim = self.claims.take(leg.job.name)
            if claim is None:
                continue
            if leg.is_done(self.folder):  # between the look and the claim
                claim.release()
                continue
            self.running.append(leg.job.name)
            try:
                with claim.beating(min(30.0, self.claims.stale_after / 5)):
                    self._train(leg, claim)
            finally:
                self.running.remove(leg.job.name)
                claim.release()
            return True
        return False

    def _may_wait(self) -> bool:
        return self.wait and not self.stop.wait(_PATIENCE)

    def _train(self, leg: Leg, claim: Claim) -> None:
        job = leg.job
        folder = job_folder(self.folder, job)
        _write_config(self.plan, job, folder)
        began = time.monotonic()
        with (folder / "log.txt").open("ab") as log:
            words = [*COMMAND, str(folder), str(self.plan.gold_samples), str(leg.until)]
            # In a session of its own: Ctrl-C is for this process, which then ends the child itself.
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                while process.poll() is None and claim.is_mine and not self.stop.wait(0.1):
                    pass
            finally:
                _end(process)
        if self.stop.is_set() or not claim.is_mine:
            return  # interrupted, or given up for dead and taken over: not ours to write down
        seconds = time.monotonic() - began
        if process.returncode == 0:
            file = rung_file(self.folder, job, leg.until) if leg.until else folder / RESULT_FILE
            try:
                write_json(file, {**measure(folder), "seconds": round(seconds, 1)})
            except PrefalignError as error:  # this run's fault: the others go on
                write_json(folder / FAILED_FILE, {"code": 0, "reason": str(error)})
        elif process.returncode > 0:
            write_json(folder / FAILED_FILE, {"code": process.returncode, "reason": _reason(folder / "log.txt")})
        else:
            reason = f"the process was killed by signal {-process.returncode}"
            write_json(folder / FAILED_FILE, {"code": process.returncode, "reason": reason})


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
