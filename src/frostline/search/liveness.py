"""Which workers of a study are alive, so that the trials of dead ones can be resumed.

Workers on one machine each hold a lock on a file of their own, which the system releases when the process dies. Workers
of several machines share a database, where each trial has a heartbeat. A worker with a name is started again under that
name when it dies, and frees the trial of its predecessor at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from frostline.search import optuna_internals, storages
from frostline.search.trial_records import WORKER


class Liveness:
    """Shows that this worker is alive, and tells which trials belong to dead ones.

    current: the id of the trial that this worker trains, or None. Create it while `Study.alone` keeps other workers
    out: a file without a lock then belongs to a dead worker.
    """

    def __init__(self, storage: BaseStorage, folder: Path, name: str | None = None) -> None:
        """name: of this worker, which no other living worker has; None for a new one."""
        self._storage, self._folder, self._is_named = storage, folder, name is not None
        self.worker = name or f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.current: int | None = None
        self._has_heartbeat = optuna_internals.heartbeat(storage) is not None
        self._remove_files_of_dead_workers()
        self._lock_file = self._file(self.worker).open("w")
        fcntl.flock(self._lock_file, fcntl.LOCK_EX)

    def start(self) -> None:
        """Begin to send heartbeats, if the storage has them."""
        if self._has_heartbeat:
            threading.Thread(target=self._send_heartbeats, daemon=True).start()

    def claim(self, trial_id: int) -> None:
        """Say that this worker is about to run a trial.

        The claim is there before the trial runs, so that a kill in between is noticed.
        """
        if self._has_heartbeat:
            self._storage.record_heartbeat(trial_id)  # type: ignore[attr-defined]
        else:
            self._storage.set_trial_user_attr(trial_id, WORKER, self.worker)

    def won(self, trial_id: int) -> None:
        """Say that this worker runs a trial. Before, another machine might have run it, and lost its note to ours."""
        self.current = trial_id
        if self._has_heartbeat and self._is_named:
            self._storage.set_trial_user_attr(trial_id, WORKER, self.worker)

    def orphans(self, running: Sequence[FrozenTrial], study_id: int) -> list[FrozenTrial]:
        """Those of the running trials that no living worker trains."""
        if not running:
            return []
        others = [trial for trial in running if optuna_internals.trial_id(trial) != self.current]
        if self._has_heartbeat:
            stale = optuna_internals.stale_trial_ids(self._storage, study_id)
            return [
                trial
                for trial in others
                if optuna_internals.trial_id(trial) in stale or trial.user_attrs.get(WORKER) == self.worker
            ]
        return [trial for trial in others if self._is_dead(str(trial.user_attrs.get(WORKER, "")))]

    def close(self) -> None:
        """Take this worker's file away."""
        self._file(self.worker).unlink(missing_ok=True)
        self._lock_file.close()

    def _file(self, worker: str) -> Path:
        return self._folder / f"worker-{worker}"

    def _remove_files_of_dead_workers(self) -> None:
        for path in self._folder.glob("worker-*"):
            with contextlib.suppress(FileNotFoundError), path.open("r") as file:
                if _is_free(file):
                    path.unlink()

    def _is_dead(self, worker: str) -> bool:
        try:
            with self._file(worker).open("r") as file:
                return _is_free(file) or worker == self.worker  # this worker trains another trial
        except FileNotFoundError:
            return True

    def _send_heartbeats(self) -> None:
        while True:
            current = self.current
            if current is not None:
                with contextlib.suppress(Exception):  # the next heartbeat tries again
                    self._storage.record_heartbeat(current)  # type: ignore[attr-defined]
            time.sleep(storages.HEARTBEAT)


def _is_free(file: IO[str]) -> bool:
    """Whether no process holds a lock on a worker's file: that worker is dead."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
