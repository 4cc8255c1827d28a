"""Where studies are kept: a file of this project, for one worker or for several, or a database for several machines."""

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
from frostline.search import storage_errors
from frostline.search.sampling import quiet

HEARTBEAT = 20  # seconds; a worker on another machine that has been silent for three times as long is given up
FIRST_WAIT, LONGEST_WAIT = 0.5, 10.0  # seconds between tries at a database that is away; each is twice the one before

# What Optuna calls of a database beside the methods that every storage has.
OF_DATABASES = (
    "record_heartbeat",
    "_get_stale_trial_ids",
    "_create_new_trial",
    "_set_trial_param",
    "_get_trials",
    "_get_best_trial_id",
)


@contextlib.contextmanager
def opened(named: str, state: Path, patience: float = 0.0) -> Iterator[BaseStorage]:
    """The storage that `sweep.storage` names: `auto`, `journal` or a URL. state: folder of the first two.

    patience: seconds for which an operation waits for a database that is away. Raises StateError, of one line without
    user and password, where the storage can't be used, now or later, or another process works on the SQLite file.
    """
    atomic.require_writable(state)
    if named == "journal":
        yield _journal(state / "optuna.journal")
        return
    url = f"sqlite:///{state / 'optuna.db'}" if named == "auto" else named
    is_file = url.startswith("sqlite:")
    with (state / "optuna.lock").open("w") as alone:
        if is_file:  # SQLite is for one worker
            try:
                fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StateError(
                    f"{url.removeprefix('sqlite:///')}: another sweep works on it; set sweep.storage to journal, which "
                    "is for several workers"
                ) from None
        try:
            database = _made(url, None if is_file else HEARTBEAT, 0.0 if is_file else patience)
        except Exception as error:
            raise StateError(storage_errors.in_opening(error, url)) from error
        yield database


class Database(RDBStorage):
    """Optuna's tables in a database.

    Each operation waits for a database that is away, for at most `patience` seconds since it was last there, and then
    raises StateError; once that is over, each tries once, so that leaving takes no longer. An operation is repeated
    too where the database went away after it was done and before it said so. Most can be repeated as they are. A trial
    that was taken is then nobody's, and goes back to the pool for its missing heartbeat; a trial that was added is
    there twice, the second time beyond the budget.
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
        """As Optuna's. A trial is put back once: by the time of a repeat it may be another worker's."""
        if state != TrialState.WAITING:
            return super().set_trial_state_values(trial_id, state, values)
        began = self.get_trial(trial_id).datetime_start

        @_insisting
        def put_back(self: Database) -> bool:
            is_same = self.get_trial(trial_id).datetime_start == began
            return is_same and RDBStorage.set_trial_state_values(self, trial_id, state, values)

        return put_back(self)

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        """As Optuna's; after the database was away, all workers have time to say that they live."""
        found = super()._get_stale_trial_ids(study_id)
        return found if time.monotonic() - self._back > (self.grace_period or 0) else []

    def answered(self) -> None:
        """The database is there."""
        if self._away is not None:
            self._away, self._back = None, time.monotonic()

    def missed(self, error: Exception) -> float:
        """Seconds for which it can still be waited for. Raises StateError where there are none, or it isn't away."""
        from sqlalchemy.exc import DataError, IntegrityError

        cause = storage_errors.of_driver(error)
        if cause is None or isinstance(cause, DataError | IntegrityError):  # what was to be written is at fault
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
                "start this again: the study continues (sweep.patience: how long to wait)"
            ) from error
        return left


def _insisting(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of Database that waits for the database where it is away."""

    @functools.wraps(method)
    def insisting(self: Database, *args: Any, **kwargs: Any) -> Any:
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

    return insisting


# All that a storage is asked for, not only what is abstract: Optuna's database answers some of the rest itself.
for _name in (*(name for name in dir(BaseStorage) if not name.startswith("_")), *OF_DATABASES):
    setattr(Database, _name, _insisting(getattr(Database, _name)))


def _made(url: str, heartbeat: int | None, patience: float) -> Database:
    """Optuna's tables, made where they are missing; of workers that make them at once all but one fail, once."""
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
    """A PostgreSQL URL that names no driver means the one that frostline[postgres] brings, if it's not SQLAlchemy's."""
    scheme = "postgresql://"
    if url.startswith(scheme) and importlib.util.find_spec("psycopg2") is None:
        return f"postgresql+psycopg://{url.removeprefix(scheme)}"
    return url
