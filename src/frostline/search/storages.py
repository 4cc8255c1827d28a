"""Where studies are kept: a file of this project for workers on one machine; a database or a proxy for several."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import time
from collections.abc import Iterator
from pathlib import Path

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from frostline.core import atomic
from frostline.errors import StateError, UnreachableError
from frostline.search import optuna_internals, proxy, storage_errors
from frostline.search.patience import Patient, make_patient
from frostline.search.sampling import quiet

HEARTBEAT = 20  # seconds; a worker on another machine that has been silent for three times as long is given up


@contextlib.contextmanager
def opened(setting: str, state: Path, patience: float = 0.0) -> Iterator[BaseStorage]:
    """Open the storage of studies.

    setting: the value of `sweep.storage`, which is `auto`, `journal` or the URL of a database or of a proxy; state: the
    folder for the first two; patience: seconds for which an operation waits for a server that is away. Raises
    StateError, in one line without user and password, if the storage can't be used, now or later, or if another process
    uses the SQLite file; UnreachableError if its server does not answer.
    """
    atomic.require_writable(state)
    if setting == "journal":
        yield _journal(state / "optuna.journal")
        return
    if setting.startswith(proxy.SCHEME):
        with contextlib.closing(proxy.opened(setting, HEARTBEAT, patience)) as client:
            yield client
        return
    url = f"sqlite:///{state / 'optuna.db'}" if setting == "auto" else setting
    is_file = url.startswith("sqlite:")
    with (state / "optuna.lock").open("w") as alone:
        if is_file:  # SQLite is for one worker
            try:
                fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StateError(
                    f"{url.removeprefix('sqlite:///')}: another sweep uses it; start one with --workers N, or set "
                    "sweep.storage to journal, which several shells can use"
                ) from None
        try:
            database = _with_tables(url, None if is_file else HEARTBEAT, 0.0 if is_file else patience)
        except Exception as error:
            cause = storage_errors.of_driver(error)
            kind = UnreachableError if cause is not None and storage_errors.is_away(cause) else StateError
            raise kind(storage_errors.in_opening(error, url)) from error
        yield database


class Database(Patient, RDBStorage):
    """Optuna's tables in a database."""

    server = "database"

    def __init__(self, url: str, heartbeat: int | None, patience: float) -> None:
        self.place, self.patience = storage_errors.place(url), patience
        super().__init__(
            url.replace("{", "{{").replace("}", "}}"),  # Optuna takes it for a template
            None if heartbeat is None else {"pool_pre_ping": True},
            heartbeat_interval=heartbeat,
            grace_period=None if heartbeat is None else 3 * heartbeat,
        )

    def why_away(self, error: Exception) -> str | None:
        from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

        if not isinstance(error, SQLAlchemyError | StorageInternalError):
            return None
        cause = storage_errors.of_driver(error)
        if cause is None or isinstance(cause, DataError | IntegrityError):  # the fault is in the data to be written
            return None
        if not storage_errors.is_away(cause):
            raise StateError(storage_errors.in_use(cause, self.place)) from error
        return storage_errors.reason(cause)

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        """See Optuna. After the database was away, all workers have time to send a heartbeat."""
        stale = super()._get_stale_trial_ids(study_id)
        return stale if self.seconds_since_back > (self.grace_period or 0) else []


# All methods of a storage, not only the abstract ones: Optuna's database overrides some of the others as well.
make_patient(Database, optuna_internals.DATABASE_METHODS)


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
