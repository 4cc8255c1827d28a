"""Where studies are kept: a file of this project for workers on one machine, or a database for several machines."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from frostline.core import atomic
from frostline.errors import StateError
from frostline.search import optuna_internals, storage_errors
from frostline.search.sampling import quiet

HEARTBEAT = 20  # seconds; a worker on another machine that has been silent for three times as long is given up
FIRST_WAIT, LONGEST_WAIT = 0.5, 10.0  # seconds between tries at a database that is away; each is twice the one before


@contextlib.contextmanager
def opened(setting: str, state: Path, patience: float = 0.0) -> Iterator[BaseStorage]:
    """Open the storage of studies.

    setting: the value of `sweep.storage`, which is `auto`, `journal` or a URL; state: the folder for the first two;
    patience: seconds for which an operation waits for a database that is away. Raises StateError, in one line without
    user and password, if the storage can't be used, now or later, or if another process uses the SQLite file.
    """
    atomic.require_writable(state)
    if setting == "journal":
        yield _journal(state / "optuna.journal")
        return
    url = f"sqlite:///{state / 'optuna.db'}" if setting == "auto" else setting
    is_file = url.startswith("sqlite:")
    with (state / "optuna.lock").open("w") as alone:
        if is_file:  # SQLite is for one worker
            try:
                fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StateError(
                    f"{url.removeprefix('sqlite:///')}: another sweep uses it; set sweep.storage to journal, which "
                    "is for several workers"
                ) from None
        try:
            database = _with_tables(url, None if is_file else HEARTBEAT, 0.0 if is_file else patience)
        except Exception as error:
            raise StateError(storage_errors.in_opening(error, url)) from error
        yield database


class Database(RDBStorage):
    """Optuna's tables in a database.

    Each operation waits for a database that is away, for at most `patience` seconds since it was last there, and then
    raises StateError. When that time is over, each operation tries once, so that leaving takes no longer. An operation
    is also repeated if the database went away after the operation was done and before the database said so. Most
    operations can be repeated as they are. A trial that was taken then belongs to no worker, and goes back to the pool
    for its missing heartbeat; a trial that was added is there twice, the second time beyond the budget.
    """

    def __init__(self, url: str, heartbeat: int | None, patience: float) -> None:
        self.place = storage_errors.place(url)
        self.patience = patience
        self._away: float | None = None  # since when
        self._back = -float("inf")  # when it came back
        super().__init__(
            url.replace("{", "{{").replace("}", "}}"),  # Optuna takes it for a template
            None if heartbeat is None else {"pool_pre_ping": True},
            heartbeat_interval=heartbeat,
            grace_period=None if heartbeat is None else 3 * heartbeat,
        )

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """See Optuna. A trial is put back once: when this is repeated, another worker may have the trial."""
        if state != TrialState.WAITING:
            return super().set_trial_state_values(trial_id, state, values)
        began = self.get_trial(trial_id).datetime_start

        @_patient
        def put_back(self: Database) -> bool:
            is_same = self.get_trial(trial_id).datetime_start == began
            return is_same and RDBStorage.set_trial_state_values(self, trial_id, state, values)

        return put_back(self)

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        """See Optuna. After the database was away, all workers have time to send a heartbeat."""
        stale = super()._get_stale_trial_ids(study_id)
        return stale if time.monotonic() - self._back > (self.grace_period or 0) else []

    def answered(self) -> None:
        """Note that the database is there."""
        if self._away is not None:
            self._away, self._back = None, time.monotonic()

    def missed(self, error: Exception) -> float:
        """The seconds that are left to wait. Raises StateError if there are none, or if the database isn't away."""
        from sqlalchemy.exc import DataError, IntegrityError

        cause = storage_errors.of_driver(error)
        if cause is None or isinstance(cause, DataError | IntegrityError):  # the fault is in the data to be written
            raise error
        if not storage_errors.is_away(cause):
            raise StateError(storage_errors.in_use(cause, self.place)) from error
        if self._away is None:
            self._away = time.monotonic()
            if self.patience:
                print(f"warning: {self.place} is away; waiting for it, {self.patience:g} s at most", file=sys.stderr)
        left = self._away + self.patience - time.monotonic()
        if left <= 0:
            waited = f" for {self.patience:g} s" if self.patience else ""
            raise StateError(
                f"{self.place} was away{waited} ({storage_errors.reason(cause)}); check that the database runs, and "
                "start this again to resume the study (sweep.patience: seconds to wait)"
            ) from error
        return left


def _patient(method: Callable[..., Any]) -> Callable[..., Any]:
    """Make a method of Database wait while the database is away."""

    @functools.wraps(method)
    def patient(self: Database, *args: Any, **kwargs: Any) -> Any:
        from sqlalchemy.exc import SQLAlchemyError

        wait = FIRST_WAIT
        while True:
            try:
                result = method(self, *args, **kwargs)
            except (SQLAlchemyError, StorageInternalError) as error:
                time.sleep(min(wait, self.missed(error)))
                wait = min(2 * wait, LONGEST_WAIT)
            else:
                self.answered()
                return result

    return patient


# All methods of a storage, not only the abstract ones: Optuna's database overrides some of the others as well.
for _name in (*(name for name in dir(BaseStorage) if not name.startswith("_")), *optuna_internals.DATABASE_METHODS):
    setattr(Database, _name, _patient(getattr(Database, _name)))


def _with_tables(url: str, heartbeat: int | None, patience: float) -> Database:
    """Open a database and create the tables. Of workers that create them at the same time all except one fail, once."""
    from sqlalchemy.exc import IntegrityError, ProgrammingError

    for attempts_left in reversed(range(5)):
        try:
            with quiet():
                return Database(_with_driver(url), heartbeat, patience)
        except (IntegrityError, ProgrammingError):
            if not attempts_left:
                raise
            time.sleep(1)
    raise AssertionError


def _journal(path: Path) -> JournalStorage:
    try:
        return JournalStorage(JournalFileBackend(str(path)))
    except (ValueError, KeyError, TypeError) as error:
        raise StateError(storage_errors.damaged(str(path))) from error


def _with_driver(url: str) -> str:
    """Add the driver of frostline[postgres] to a PostgreSQL URL without one, if SQLAlchemy's default is missing."""
    scheme = "postgresql://"
    if url.startswith(scheme) and importlib.util.find_spec("psycopg2") is None:
        return f"postgresql+psycopg://{url.removeprefix(scheme)}"
    return url
