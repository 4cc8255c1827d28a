"""Where studies are kept: a file of this project, for one worker or for several, or a database for several machines."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from frostline import atomic
from frostline.errors import StateError
from frostline.sampling import quiet

HEARTBEAT = 20  # seconds; a worker on another machine that has been silent for three times as long is given up


@contextlib.contextmanager
def opened(named: str, state: Path) -> Iterator[BaseStorage]:
    """The storage that `sweep.storage` names: `auto`, `journal` or a URL. state: folder of the first two.

    Raises StateError where it can't be reached, or where another process works on the SQLite file.
    """
    atomic.require_writable(state)
    if named == "journal":
        yield JournalStorage(JournalFileBackend(str(state / "optuna.journal")))
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
            database = _database(url, None if is_file else HEARTBEAT)
        except Exception as error:
            reason = " ".join(str(error).split())[:160]
            raise StateError(
                f"params.yaml: sweep.storage {named} can't be reached ({reason}); mend it, or set it to auto"
            ) from error
        yield database


def _database(url: str, heartbeat: int | None) -> RDBStorage:
    """Optuna's tables, made where they are missing; of workers that make them at once all but one fail, once."""
    from sqlalchemy.exc import IntegrityError, ProgrammingError

    for attempts_left in reversed(range(5)):
        try:
            with quiet():
                grace = None if heartbeat is None else 3 * heartbeat
                return RDBStorage(url, heartbeat_interval=heartbeat, grace_period=grace)
        except (IntegrityError, ProgrammingError):
            if not attempts_left:
                raise
            time.sleep(1)
    raise AssertionError
