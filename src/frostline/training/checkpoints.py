"""Snapshots of an unfinished training on disk, so that a killed training resumes after its last finished epoch."""

from __future__ import annotations

import json
import math
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from frostline.core import atomic, checksum
from frostline.core.history import HistoryRow
from frostline.errors import StateError
from frostline.training.loop import Position, Snapshot

ARRAYS, BEST = ("variables", "optimizer", "metrics"), "best"  # lists of arrays: of a snapshot, and of its position
SUFFIX = ".snapshot"
OLD = 14 * 24 * 3600.0  # seconds, after which a snapshot is removed


@dataclass(frozen=True)
class Checkpoint:
    """The one snapshot of a job. path: a file whose name is a digest of everything that the job's result depends on."""

    path: Path

    def save(self, snapshot: Snapshot) -> None:
        """Replace the snapshot; a reader sees the old one or the new one. Raises StateError if writing fails."""
        position = {**vars(snapshot.position), "history": [asdict(row) for row in snapshot.position.history]}
        groups = {name: getattr(snapshot, name) for name in ARRAYS} | {BEST: position.pop(BEST)}
        description = {"phase": snapshot.phase, "position": position}
        kinds = {name: [[array.dtype.str, array.shape] for array in arrays] for name, arrays in groups.items()}
        arrays = (np.ascontiguousarray(array).data for arrays in groups.values() for array in arrays)
        parts: list[Any] = [json.dumps([description, kinds]).encode() + b"\n", *arrays]
        try:
            with atomic.file(self.path) as temporary, temporary.open("wb") as file:
                file.write(checksum.of(parts).encode() + b"\n")
                file.writelines(parts)
        except OSError as error:
            raise StateError(
                f"{self.path.parent}: the snapshot cannot be written ({error.strerror}); free some space there"
            ) from error

    def keep(self, snapshot: Snapshot) -> None:
        """Like `save`, but a failure is only a warning: a running training is worth more than its snapshot."""
        try:
            self.save(snapshot)
        except StateError as error:
            print(f"warning: {error}; if this training is killed, it must start again", file=sys.stderr)

    def load(self) -> Snapshot | None:
        """The snapshot; None if there is none, or, with a warning, if it is damaged."""
        if not self.path.exists():
            return None
        try:
            with self.path.open("rb") as file:
                digest, start = file.readline().strip().decode(), file.tell()
                if checksum.of(iter(lambda: file.read(checksum.BLOCK), b"")) != digest:
                    raise ValueError("its checksum differs")
                file.seek(start)
                description, kinds = json.loads(file.readline())
                groups: dict[str, Any] = {
                    name: [np.fromfile(file, kind, math.prod(shape)).reshape(shape) for kind, shape in kinds[name]]
                    for name in (*ARRAYS, BEST)
                }
            history = [HistoryRow(**row) for row in description["position"].pop("history")]
            position = Position(**description["position"], history=history, best=groups.pop(BEST))
            return Snapshot(description["phase"], position, **groups)
        except (ValueError, OSError, KeyError, TypeError) as error:  # a short file, or one in another format
            print(f"warning: {self.path} is damaged ({error}); the training starts again", file=sys.stderr)
            return None

    def clear(self) -> None:
        """Remove the snapshot of a finished job, and old ones of jobs that were killed and then changed."""
        self.path.unlink(missing_ok=True)
        for other in self.path.parent.glob(f"*{SUFFIX}"):
            with suppress(FileNotFoundError):
                if time.time() - other.stat().st_mtime > OLD:
                    other.unlink()
