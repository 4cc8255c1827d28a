"""A study: the pool of trials that the workers of a sweep share.

The budget of a study is a pool of waiting trials, which are created with the study. A worker takes a trial out of the
pool, and Optuna gives each trial to one worker only. A trial that pauses goes back to the pool with what it has
reported, and so does a trial whose worker died. So there are never more trials than asked for, and none stays running.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from frostline.core import atomic
from frostline.search import optuna_internals, trial_records
from frostline.search.liveness import Liveness
from frostline.search.optuna_internals import reported, trial_id
from frostline.search.sampling import LOSSES, Advisor, Settings, distribution
from frostline.search.space import Dimension
from frostline.search.trial_records import OPTUNA_STATES, WORKER, TrialRecord

# The attributes that are written to a study.
BEGAN, IDENTITY = "began", "identity"


class Study:
    """A study as one worker sees it."""

    def __init__(
        self,
        name: str,
        storage: BaseStorage,
        folder: Path,
        space: Sequence[Dimension],
        settings: Settings,
        worker: str | None = None,
    ) -> None:
        """folder: for the files by which workers on this machine know of each other; worker: see `Liveness`."""
        self.name, self.folder, self.space, self.settings = name, folder, space, settings
        self.storage = storage
        self._distributions = {dimension.key: distribution(dimension) for dimension in space}
        advisor = Advisor(settings, space)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        atomic.require_writable(folder)
        with self.alone():
            self.liveness = Liveness(storage, folder, worker)
            self._optuna = optuna.create_study(
                study_name=name,
                storage=storage,
                sampler=advisor,
                pruner=_pruner(settings),
                direction="maximize" if settings.maximize else "minimize",
                load_if_exists=True,
            )
            advisor.study = self._optuna
            self._id = optuna_internals.study_id(self._optuna)
            if IDENTITY not in self._optuna.user_attrs:
                self._optuna.set_user_attr(BEGAN, datetime.now().isoformat())
                self._optuna.set_user_attr(IDENTITY, f"{name}-{uuid.uuid4().hex[:6]}")
            missing = settings.trials - len(self._optuna.get_trials(deepcopy=False))
            for _ in range(missing):
                storage.create_new_trial(self._id, optuna.trial.create_trial(state=TrialState.WAITING))
        self.liveness.start()

    @property
    def identity(self) -> str:
        """The study's name made unique. Snapshots and runs refer to it, since a new study may have the same name."""
        return str(self._optuna.user_attrs[IDENTITY])

    @property
    def began(self) -> datetime:
        """When the study was created, local time."""
        return datetime.fromisoformat(self._optuna.user_attrs[BEGAN])

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep the other workers on this machine out of the block."""
        with atomic.lock(self.folder / "lock"):
            yield

    def trials(self) -> list[TrialRecord]:
        """All trials within the budget, by number."""
        trials = self._optuna.get_trials(deepcopy=False)
        return [TrialRecord.of(trial) for trial in trials if trial.number < self.settings.trials]

    def best(self) -> TrialRecord | None:
        """The complete trial with the best value, the first of equals; None if no trial is complete."""
        return trial_records.best(self.trials(), self.settings.maximize)

    def take(self, number: int | None) -> Trial | None:
        """Take a paused trial, or any new one (None), out of the pool; None if another worker was quicker."""
        with self.alone():
            for candidate in self._new_trials() if number is None else self._waiting_trial(number):
                with contextlib.suppress(UpdateFinishedTrialError):
                    if self._win(trial_id(candidate)):
                        self.liveness.won(trial_id(candidate))
                        trial = Trial(self._optuna, trial_id(candidate))
                        for key, of_key in self._distributions.items():
                            optuna_internals.suggest(trial, key, of_key)
                        return trial
        return None

    def _new_trials(self) -> list[FrozenTrial]:
        """The trials that no worker has begun."""
        waiting = self._optuna.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        return [trial for trial in waiting if not trial.intermediate_values and trial.number < self.settings.trials]

    def _waiting_trial(self, number: int) -> list[FrozenTrial]:
        """That one trial, if no worker has it; to read all trials would take longer."""
        trial = self.storage.get_trial(self.storage.get_trial_id_from_study_id_trial_number(self._id, number))
        return [trial] if trial.state == TrialState.WAITING else []

    def _win(self, trial: int) -> bool:
        """Set a trial running; False if another worker was quicker."""
        self.liveness.claim(trial)
        return self.storage.set_trial_state_values(trial, TrialState.RUNNING)

    def put_back(self, trial: Trial) -> None:
        """Return a trial to the pool, to be resumed later."""
        self.liveness.current = None
        self._put_back(trial_id(trial))

    def _put_back(self, trial: int) -> bool:
        """Whether the trial went back: another worker may have finished it."""
        with contextlib.suppress(UpdateFinishedTrialError):
            return self.storage.set_trial_state_values(trial, TrialState.WAITING)
        return False

    def report(self, trial: Trial, images: int, value: float, loss: float) -> None:
        """Record the metric and the validation loss after that many images."""
        if images not in reported(trial):
            with contextlib.suppress(UpdateFinishedTrialError):  # another worker took this one for dead
                trial.set_user_attr(LOSSES, {**trial.user_attrs.get(LOSSES, {}), str(images): loss})
                trial.report(value, images)

    def note(self, trial: Trial, key: str, value: Any) -> None:
        """Write a JSON value to a trial."""
        with contextlib.suppress(UpdateFinishedTrialError):
            trial.set_user_attr(key, value)

    def finish(self, trial: Trial, state: str, value: float | None = None) -> None:
        """End a trial. state: complete (with the metric's value), pruned or failed."""
        self.liveness.current = None
        values = None if value is None else [value]
        with contextlib.suppress(UpdateFinishedTrialError):  # another worker took this one for dead, and finished it
            self.storage.set_trial_state_values(trial_id(trial), OPTUNA_STATES[state], values)

    def earlier_twin(self, trial: Trial) -> TrialRecord | None:
        """The first trial with the same values that has a lower number and did not fail."""
        return next(
            (
                other
                for other in self.trials()
                if other.number < trial.number and other.state != "failed" and other.values == trial.params
            ),
            None,
        )

    def reclaim(self) -> list[int]:
        """Put the trials of dead workers back into the pool; returns their numbers."""
        with self.alone():
            running = self._optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            orphans = self.liveness.orphans(running, self._id)
            return [trial.number for trial in orphans if self._put_back(trial_id(trial))]

    def free(self, workers: Collection[str]) -> None:
        """Put the trials of these workers, which are dead, back into the pool."""
        with self.alone():
            for trial in self._optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if trial.user_attrs.get(WORKER) in workers:
                    self._put_back(trial_id(trial))

    def release(self) -> None:
        """Return the trial that this worker has, if any, to the pool."""
        current, self.liveness.current = self.liveness.current, None
        if current is not None:
            self._put_back(current)

    def close(self) -> None:
        """Leave the study; the trial that this worker has goes back."""
        try:
            self.release()
        finally:
            self.liveness.close()


@contextlib.contextmanager
def join(
    name: str,
    storage: BaseStorage,
    folder: Path,
    space: Sequence[Dimension],
    settings: Settings,
    worker: str | None = None,
) -> Iterator[Study]:
    """Take part in a study, which is created if it is new; the trial that this worker has at the end goes back."""
    study = Study(name, storage, folder, space, settings, worker)
    try:
        yield study
    finally:
        study.close()


def _pruner(settings: Settings) -> optuna.pruners.BasePruner:
    """The pruner of Optuna. `halving` is in rungs.py, because Optuna's can't resume what it has stopped."""
    if settings.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=settings.images - 1)
    if settings.pruner == "hyperband":
        whole = settings.images * max(1, settings.epochs)
        return optuna.pruners.HyperbandPruner(min_resource=settings.images, max_resource=whole)
    return optuna.pruners.NopPruner()
