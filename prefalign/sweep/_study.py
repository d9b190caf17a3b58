"""The study behind a sweep: Optuna keeps its losses, the results, and who trains what."""

from __future__ import annotations

import os
import platform
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack, suppress
from json import JSONDecodeError
from pathlib import Path
from typing import Any, cast

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from .._errors import CheckpointError, ConfigError
from ._arms import Arm
from ._plan import Halving, Plan

SQLITE_FILE, JOURNAL_FILE = "study.db", "study.journal"
PLAN, RUNS, FAILURES = "plan", "runs", "failures"
_NAME = "sweep"


class AllFailed(Exception):
    """Every run of a loss has failed, for a reason of its own."""


class Lost(Exception):
    """Another worker has taken the loss over."""


class Queue:
    """The losses of a sweep that are left; each is a trial of the study, with all its seeds.

    One worker at a time looks for a trial and takes it, under a lock of the directory. In a file, the worker then holds
    a lock of the loss, which the system releases when the worker ends, however it ends. In a database Optuna's
    heartbeats tell the dead from the living.

    Args:
        plan: What is trained.
        folder: The sweep's directory, which all workers share.
        study: Optuna's study.
        stale_after: Seconds without a heartbeat after which a worker counts as dead; None where locks tell.
    """

    def __init__(self, plan: Plan, folder: Path, study: Study, stale_after: float | None) -> None:
        self.plan, self.folder, self.study, self.stale_after = plan, folder, study, stale_after
        self._arms = {arm.name: arm for arm in plan.arms}
        self._silent: dict[int, float] = {}

    def latest(self) -> dict[str, FrozenTrial]:
        """The trial that counts for each loss: its last one."""
        return {trial.user_attrs["name"]: trial for trial in self.study.get_trials(deepcopy=False) if _is_ours(trial)}

    def is_done(self, trial: FrozenTrial | None) -> bool:
        """Whether nothing is left to do: there is a result, halving has stopped it, or all its runs have failed."""
        if trial is None or not trial.state.is_finished():
            return False
        return trial.state != TrialState.FAIL or len(trial.user_attrs.get(FAILURES, {})) == len(self.plan.seeds)

    def done(self) -> int:
        """How many losses are done."""
        return sum(map(self.is_done, self.latest().values()))

    def serve_one(self, train: Callable[[Trial, Arm], float]) -> bool:
        """Take the next loss that nobody has and train it.

        Args:
            train: Trains a loss and gives the value that the study compares.

        Returns:
            Whether there was one.
        """
        looking = _lock(self.folder, "study")
        taken: list[Trial] = []
        raised: list[Exception] = []

        def objective(trial: Trial) -> float:
            arm = self._arms.get(trial.user_attrs.get("name", ""))
            if arm is None:  # something else has put it into the study
                raise optuna.TrialPruned
            if self.stale_after is None:
                held.enter_context(self._lock_of(arm.name))
            trial.set_user_attr("worker", f"{platform.node()}:{os.getpid()}")
            looking.release()
            taken.append(trial)
            try:
                return train(trial, arm)
            except Exception as error:
                raised.append(error)
                raise

        with ExitStack() as held:  # the lock of the loss, until the study knows the result
            held.enter_context(looking)
            self._refill()
            if not self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                return False
            try:
                self.study.optimize(objective, n_trials=1, catch=(AllFailed,))
            except (UpdateFinishedTrialError, ValueError) as error:
                # Not the training's: Optuna refuses to finish what another worker has taken over.
                if not taken or error in raised:
                    raise
        return True

    def check_ours(self, trial: Trial) -> None:
        """Stop a worker that was taken for dead: its loss is another one's now.

        Raises:
            Lost: It was.
        """
        if self.stale_after is not None and trial.number not in self._running():
            raise Lost

    def retry_failed(self) -> None:
        """Train again what has failed, from its last checkpoints; what halving has stopped stays as it is."""
        with _lock(self.folder, "study"):
            for name, trial in self.latest().items():
                if self.is_done(trial) and trial.state != TrialState.PRUNED and trial.user_attrs[FAILURES]:
                    self._enqueue(self._arms[name])

    def fill(self) -> None:
        """Put every loss into the study that is not there, or whose worker has died."""
        latest = self.latest()
        for arm in self.plan.arms:
            trial = latest.get(arm.name)
            if trial is None or (trial.state.is_finished() and not self.is_done(trial)):
                self._enqueue(arm)

    def _refill(self) -> None:
        if self.stale_after is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                optuna.storages.fail_stale_trials(self.study)
        for trial in self._running().values():
            if self.stale_after is not None:
                # Optuna passes over a trial whose worker died before its first heartbeat.
                seen = self._silent.setdefault(trial.number, time.monotonic())
                if "worker" not in trial.user_attrs and time.monotonic() - seen > self.stale_after:
                    self.study.tell(trial.number, state=TrialState.FAIL)
            elif _is_ours(trial):
                with suppress(Timeout), self._lock_of(trial.user_attrs["name"]).acquire(blocking=False):
                    if trial.number in self._running():  # else it has ended meanwhile
                        self.study.tell(trial.number, state=TrialState.FAIL)
        self.fill()

    def _running(self) -> dict[int, FrozenTrial]:
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return {trial.number: trial for trial in running}

    def _lock_of(self, name: str) -> FileLock:
        return _lock(self.folder, self.plan.label(self._arms[name]))

    def _enqueue(self, arm: Arm) -> None:
        families = optuna.distributions.CategoricalDistribution(list(dict.fromkeys(a.family for a in self.plan.arms)))
        weights = optuna.distributions.CategoricalDistribution(list(dict.fromkeys(a.sft for a in self.plan.arms)))
        self.study.add_trial(
            optuna.create_trial(
                state=TrialState.WAITING,
                params={"loss": arm.family, "sft": arm.sft},
                distributions={"loss": families, "sft": weights},
                user_attrs={"name": arm.name, "expression": arm.loss, "rows": arm.rows, "kind": arm.kind},
            )
        )


def open_queue(
    folder: Path, storage: str | None = None, stale_after: float | None = None, plan: Plan | None = None
) -> Queue:
    """The study of a sweep, which is made if there is none; of several workers at once, one makes it.

    Args:
        folder: The sweep's directory.
        storage: "sqlite", "journal", or the URL of a database. Default: the file that is there, else SQLite.
        stale_after: Seconds without a heartbeat after which a worker counts as dead; of databases alone. Default: 300.
        plan: What is trained; None to go on with what is there.

    Raises:
        ConfigError: The folder holds another sweep, or the storage cannot be opened.
        CheckpointError: There is no sweep to go on with.
    """
    if (folder / "plan.json").exists():
        raise CheckpointError(
            f"{folder} holds a sweep of an older prefalign, which kept no study (`plan.json`). Choose another folder "
            "with --out, or finish that one with the version that began it."
        )
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # what fails is on the page
    storage = _which(folder, storage)
    file = _file(folder, storage)
    if plan is None and file is not None and not file.exists():
        raise CheckpointError(
            f"{folder} holds no sweep. Start one with --spec or --baselines, and --config. If its study is in a "
            "database, name that with --storage."
        )
    seconds = _seconds(stale_after, is_url=_is_url(storage))
    name = folder.resolve().name if _is_url(storage) else _NAME
    with _lock(folder, "study"), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            opened = _open(folder, storage, seconds)
            study, plan = _study(opened, name, plan, folder)
        except (StorageInternalError, SQLAlchemyError, ImportError, JSONDecodeError, OSError) as error:
            raise ConfigError(f"The study of {folder} cannot be opened: {_reason(error)}.") from error
        queue = Queue(plan, folder, study, seconds)
        queue.fill()
    return queue


def _study(storage: BaseStorage, name: str, plan: Plan | None, folder: Path) -> tuple[Study, Plan]:
    try:
        study = optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        study = None
    known = None if study is None else study.user_attrs.get(PLAN)
    if known is not None:
        found = Plan.from_json(known)
        if plan is not None and found != plan:
            raise ConfigError(
                f"{folder} holds a sweep that differs in {', '.join(found.differences(plan))}. Choose another folder "
                f"with --out; to go on with that one, give `prefalign sweep --out {folder}` alone."
            )
        plan = found
    if plan is None:
        raise CheckpointError(f"{folder} holds no sweep. Start one with --spec or --baselines, and --config.")
    if study is None:
        direction = StudyDirection.MAXIMIZE if plan.metric.up else StudyDirection.MINIMIZE
        study = optuna.create_study(storage=storage, study_name=name, direction=direction)
    if known is None:
        study.set_metric_names([plan.metric.title])
        study.set_user_attr(PLAN, plan.to_json())
    study.sampler = optuna.samplers.RandomSampler()  # nothing is sampled: the plan has every value
    study.pruner = _pruner(plan.halving)
    return study, plan


def _pruner(halving: Halving | None) -> optuna.pruners.BasePruner:
    return optuna.pruners.NopPruner() if halving is None else _Pruner(halving.first, halving.factor)


class _Pruner(optuna.pruners.SuccessiveHalvingPruner):
    """Optuna's successive halving among the trials that count: a dead worker's value would stand twice."""

    def __init__(self, first: int, factor: int) -> None:
        super().__init__(min_resource=first, reduction_factor=factor)

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        return super().prune(cast("Study", _Alive(study)), trial)


class _Alive:
    """A study without its failed trials."""

    def __init__(self, study: Study) -> None:
        self._prefalign_study = study

    def __getattr__(self, name: str) -> Any:
        return getattr(self._prefalign_study, name)

    def get_trials(self, deepcopy: bool = True) -> list[FrozenTrial]:
        trials = self._prefalign_study.get_trials(deepcopy=deepcopy)
        return [trial for trial in trials if trial.state != TrialState.FAIL]


def _open(folder: Path, storage: str, stale_after: float | None) -> BaseStorage:
    file = _file(folder, storage)
    if storage == "journal":
        # `filelock` instead of Optuna's own lock, which a killed worker keeps for half a minute.
        lock = cast("Any", FileLock(folder / "locks" / "journal.lock"))
        return JournalStorage(JournalFileBackend(str(file), lock_obj=lock))
    if file is not None:
        return RDBStorage(f"sqlite:///{file.resolve()}", engine_kwargs={"connect_args": {"timeout": 60}})
    assert stale_after is not None
    return RDBStorage(
        storage,
        engine_kwargs={"pool_pre_ping": True},
        heartbeat_interval=int(stale_after / 5),
        grace_period=int(stale_after),
    )


def _which(folder: Path, storage: str | None) -> str:
    there = [name for name in ("sqlite", "journal") if (file := _file(folder, name)) is not None and file.exists()]
    if storage is None:
        return there[0] if there else "sqlite"
    if storage not in ("sqlite", "journal") and not _is_url(storage):
        raise ConfigError(f"`--storage` must be sqlite, journal or the URL of a database (got {storage!r}).")
    if there and storage not in there:
        raise ConfigError(f"{folder} keeps its study in {there[0]}. Leave out --storage, or choose another --out.")
    return storage


def _seconds(stale_after: float | None, *, is_url: bool) -> float | None:
    if not is_url:
        if stale_after is not None:
            raise ConfigError("`--stale-after` would have no effect: locks tell at once. It is for a database.")
        return None
    if stale_after is not None and not 5 <= stale_after <= 86400:
        raise ConfigError(f"`--stale-after` must be 5 to 86400 seconds (got {stale_after:g}).")
    return 300.0 if stale_after is None else stale_after


def _file(folder: Path, storage: str) -> Path | None:
    return {"sqlite": folder / SQLITE_FILE, "journal": folder / JOURNAL_FILE}.get(storage)


def _is_url(storage: str) -> bool:
    return "://" in storage


def _lock(folder: Path, name: str) -> FileLock:
    (folder / "locks").mkdir(parents=True, exist_ok=True)
    return FileLock(folder / "locks" / f"{name}.lock")


def _is_ours(trial: FrozenTrial) -> bool:
    return "name" in trial.user_attrs


def _reason(error: Exception) -> str:
    """What a driver said, in one line and without the URL, which may hold a password."""
    lines = str(error.__cause__ or error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
