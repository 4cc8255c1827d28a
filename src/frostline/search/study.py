"""A study: which points of the search space were tried, by whom, and how they did.

The budget of a study is a pool of waiting trials, made when the study is. A worker takes one out, and whom Optuna lets
take it is alone with it. A trial that pauses goes back to the pool with what it has reported, as does one whose worker
died. So there are never more trials than asked for, and none is left running.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState
from optuna.trial import Trial as Trial

from frostline.core import atomic
from frostline.search import storages
from frostline.search.rungs import Score
from frostline.search.sampling import (
    CHEAP,
    LOSSES,
    Advisor,
    Points,
    Settings,
    distribution,
    in_memory,
    quiet,
    standings,
)
from frostline.search.space import Dimension, Value

# What is written to a trial.
WORKER, REASON, SAME_AS = "worker", "reason", "same_as"
SECONDS, RUN = "seconds", "mlflow.run_id"

# What is written to a study.
BEGAN, IDENTITY = "began", "identity"

STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


@dataclass(frozen=True)
class Tried:
    """A trial as it stands.

    state: complete, pruned, failed, running, paused or waiting; value: of the metric at the end, or the last one that
    was reported; reported: value by images seen; reason: why it failed; same_as: the trial that it repeats; ended:
    when, local time.
    """

    number: int
    state: str
    values: dict[str, Value]
    value: float | None
    reported: dict[int, float]
    notes: dict[str, Any]
    ended: datetime | None

    @property
    def reason(self) -> str | None:
        return self.notes.get(REASON)

    @property
    def same_as(self) -> int | None:
        return self.notes.get(SAME_AS)

    @property
    def is_cheap(self) -> bool:
        """Whether it was trained to its end at once."""
        return CHEAP in self.notes

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in {"complete", "pruned", "failed"}


class Study:
    """A study as one worker sees it."""

    def __init__(self, name: str, storage: BaseStorage, folder: Path, space: Sequence[Dimension], settings: Settings):
        """folder: for what the workers on this machine tell one another."""
        self.name, self.folder, self.space, self.settings = name, folder, space, settings
        self.storage = storage
        self.distributions = {dimension.key: distribution(dimension) for dimension in space}
        self.worker = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        atomic.require_writable(folder)
        with self.alone():  # a file that has no lock is a dead worker's then
            self._clear()
            self._alive = (folder / self._file(self.worker)).open("w")
            fcntl.flock(self._alive, fcntl.LOCK_EX)
        self._current: int | None = None
        self.advisor = Advisor(settings, space)
        self._has_heartbeat = isinstance(storage, RDBStorage) and storage.get_heartbeat_interval() is not None
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with self.alone():
            self.optuna = optuna.create_study(
                study_name=name,
                storage=storage,
                sampler=self.advisor,
                pruner=_pruner(settings),
                direction="maximize" if settings.maximize else "minimize",
                load_if_exists=True,
            )
            self.advisor.study = self.optuna
            if IDENTITY not in self.optuna.user_attrs:
                self.optuna.set_user_attr(BEGAN, datetime.now().isoformat())
                self.optuna.set_user_attr(IDENTITY, f"{name}-{uuid.uuid4().hex[:6]}")
            missing = settings.trials - len(self.optuna.get_trials(deepcopy=False))
            for _ in range(missing):
                storage.create_new_trial(self.optuna._study_id, optuna.trial.create_trial(state=TrialState.WAITING))
        if self._has_heartbeat:
            threading.Thread(target=self._beat, daemon=True).start()

    @property
    def identity(self) -> str:
        """Its name, made unique: what snapshots and runs belong to, should a study of the same name be begun anew."""
        return str(self.optuna.user_attrs[IDENTITY])

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep the other workers on this machine out of the block."""
        with atomic.lock(self.folder / "lock"):
            yield

    def tried(self) -> list[Tried]:
        """All trials within the budget, by number."""
        found = self.optuna.get_trials(deepcopy=False)
        return [_tried(trial) for trial in found if trial.number < self.settings.trials]

    def take(self, number: int | None) -> Trial | None:
        """Take a paused trial, or any new one (None), out of the pool; None where others were quicker."""
        with self.alone():
            for trial in self._new() if number is None else self._waiting(number):
                with contextlib.suppress(UpdateFinishedTrialError):
                    if self._win(trial._trial_id):
                        self._current = trial._trial_id
                        taken = Trial(self.optuna, trial._trial_id)
                        for key, known in self.distributions.items():
                            taken._suggest(key, known)
                        return taken
        return None

    def _new(self) -> list[FrozenTrial]:
        """Trials that nobody has begun."""
        waiting = self.optuna.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        return [trial for trial in waiting if not trial.intermediate_values and trial.number < self.settings.trials]

    def _waiting(self, number: int) -> list[FrozenTrial]:
        """That trial alone, if nobody is at it; reading all of them would take longer."""
        known = self.storage.get_trial_id_from_study_id_trial_number(self.optuna._study_id, number)
        trial = self.storage.get_trial(known)
        return [trial] if trial.state == TrialState.WAITING else []

    def _win(self, trial: int) -> bool:
        """Set a trial running, unless another worker was quicker.

        The worker's name is there before the trial runs, so that a kill in between is noticed; with several machines
        it is the heartbeat that is.
        """
        if self._has_heartbeat:
            self.storage.record_heartbeat(trial)  # type: ignore[attr-defined]
        else:
            self.storage.set_trial_user_attr(trial, WORKER, self.worker)
        return self.storage.set_trial_state_values(trial, TrialState.RUNNING)

    def put_back(self, trial: Trial) -> None:
        """Return a trial to the pool, to be resumed later."""
        self._current = None
        with contextlib.suppress(UpdateFinishedTrialError):
            self.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)

    def report(self, trial: Trial, images: int, value: float, loss: float) -> None:
        """Record the metric and the validation loss after so many images."""
        if images not in reported(trial):
            with contextlib.suppress(UpdateFinishedTrialError):  # another worker took this one for dead
                trial.set_user_attr(LOSSES, {**trial.user_attrs.get(LOSSES, {}), str(images): loss})
                trial.report(value, images)

    def note(self, trial: Trial, key: str, value: Any) -> None:
        """Write something JSON-able to a trial."""
        with contextlib.suppress(UpdateFinishedTrialError):
            trial.set_user_attr(key, value)

    def finish(self, trial: Trial, state: str, value: float | None = None) -> None:
        """End a trial. state: complete (with the metric's value), pruned or failed."""
        self._current = None
        states = {name: known for known, name in STATES.items()}
        with contextlib.suppress(UpdateFinishedTrialError):  # another worker took this one for dead, and finished it
            self.storage.set_trial_state_values(trial._trial_id, states[state], None if value is None else [value])

    def repeated(self, trial: Trial) -> Tried | None:
        """Another trial with the same values that began before."""
        same = [
            other
            for other in self.tried()
            if other.number < trial.number and other.state != "failed" and other.values == trial.params
        ]
        return same[0] if same else None

    def reclaim(self) -> list[int]:
        """Put those trials back whose worker is dead; their numbers."""
        freed = []
        with self.alone():
            running = self.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            silent = self._silent() if running else set()
            for trial in running:
                if trial._trial_id != self._current and self._is_dead(trial, silent):
                    with contextlib.suppress(UpdateFinishedTrialError):
                        self.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
                        freed.append(trial.number)
        return freed

    def scores(self, tried: Sequence[Tried] | None = None) -> dict[int, list[Score]]:
        """Each trial's standing at the rungs that it has reached. tried: all trials, where they were just read."""
        known = [trial for trial in tried or self.tried() if trial.state != "failed" and trial.same_as is None]
        return {trial.number: standings(self.settings, trial.reported, trial.notes.get(LOSSES, {})) for trial in known}

    def best(self, tried: Sequence[Tried] | None = None) -> Tried | None:
        """The complete trial with the best value; of equals the first. tried: all trials, where they were just read."""
        done = [trial for trial in tried or self.tried() if trial.state == "complete" and trial.value is not None]
        sign = -1.0 if self.settings.maximize else 1.0
        return min(done, key=lambda trial: (sign * (trial.value or 0.0), trial.number), default=None)

    def importances(self) -> dict[str, float]:
        """Share of each key in how the metric varies (PED-ANOVA: Watanabe et al., IJCAI 2023), most important first.

        Trials are compared after as many images as all of them saw. Empty where too few trials tell.
        """
        scored = [trial for trial in self.tried() if trial.reported and trial.state != "failed"]
        common = set.intersection(*(set(trial.reported) for trial in scored)) if scored else set()
        if len(scored) < 4 or not common or len(self.distributions) < 2:
            return {}
        place = max(common)
        copy = in_memory(self.settings.maximize)
        points = Points(self.space)
        for trial in scored:
            params = points.places(trial.values)
            value = trial.reported[place]
            copy.add_trial(optuna.trial.create_trial(params=params, distributions=points.distributions, value=value))
        try:
            with quiet():
                evaluator = optuna.importance.PedAnovaImportanceEvaluator()
                return dict(optuna.importance.get_param_importances(copy, evaluator=evaluator))
        except (ValueError, RuntimeError, ZeroDivisionError):  # all alike
            return {}

    def began(self) -> datetime:
        """When the study was begun, local time."""
        return datetime.fromisoformat(self.optuna.user_attrs[BEGAN])

    def close(self) -> None:
        """Leave; a trial that was taken goes back."""
        taken, self._current = self._current, None
        try:
            if taken is not None:
                with contextlib.suppress(UpdateFinishedTrialError):
                    self.storage.set_trial_state_values(taken, TrialState.WAITING)
        finally:
            (self.folder / self._file(self.worker)).unlink(missing_ok=True)
            self._alive.close()

    def _clear(self) -> None:
        """Remove the files of workers that were killed."""
        for left in self.folder.glob(self._file("*")):
            with contextlib.suppress(FileNotFoundError), left.open("r") as file:
                if _is_free(file):
                    left.unlink()

    @staticmethod
    def _file(worker: str) -> str:
        return f"worker-{worker}"

    def _is_dead(self, trial: FrozenTrial, silent: set[int]) -> bool:
        """With several machines the heartbeat tells, on one the lock that each worker holds on its file."""
        if self._has_heartbeat:
            return trial._trial_id in silent
        worker = str(trial.user_attrs.get(WORKER, ""))
        try:
            with (self.folder / self._file(worker)).open("r") as file:
                return _is_free(file) or worker == self.worker  # not what this worker is at
        except FileNotFoundError:
            return True

    def _silent(self) -> set[int]:
        if not self._has_heartbeat:
            return set()
        return set(self.storage._get_stale_trial_ids(self.optuna._study_id))  # type: ignore[attr-defined]

    def _beat(self) -> None:
        while True:
            current = self._current
            if current is not None:
                with contextlib.suppress(Exception):  # the next beat tries again
                    self.storage.record_heartbeat(current)  # type: ignore[attr-defined]
            time.sleep(storages.HEARTBEAT)


@contextlib.contextmanager
def join(
    name: str, opened: BaseStorage, folder: Path, space: Sequence[Dimension], settings: Settings
) -> Iterator[Study]:
    """Take part in a study, which is made where it is new; what this worker is at when it leaves goes back."""
    joined = Study(name, opened, folder, space, settings)
    try:
        yield joined
    finally:
        joined.close()


def _is_free(file: IO[str]) -> bool:
    """Whether no process holds a lock on a worker's file: that worker is dead."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _pruner(settings: Settings) -> optuna.pruners.BasePruner:
    """`halving` is in `rungs`, because Optuna's can't go on with what it has stopped."""
    if settings.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=settings.images - 1)
    if settings.pruner == "hyperband":
        whole = settings.images * max(1, settings.epochs)
        return optuna.pruners.HyperbandPruner(min_resource=settings.images, max_resource=whole)
    return optuna.pruners.NopPruner()


def reported(trial: Trial) -> dict[int, float]:
    """What a taken trial has reported so far: the metric by images seen."""
    return trial._cached_frozen_trial.intermediate_values


def _tried(trial: FrozenTrial) -> Tried:
    reported = trial.intermediate_values
    value = trial.values[0] if trial.values else (reported[max(reported)] if reported else None)
    state = STATES[trial.state]
    if state == "waiting" and reported:
        state = "paused"
    return Tried(
        trial.number, state, dict(trial.params), value, dict(reported), dict(trial.user_attrs), trial.datetime_complete
    )
