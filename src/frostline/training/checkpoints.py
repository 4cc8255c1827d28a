"""Snapshots of a half-finished training on disk, so that a killed one goes on from its last finished epoch."""

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

ARRAYS, BEST = ("variables", "optimizer", "metrics"), "best"  # what of a snapshot and its position is lists of arrays
SUFFIX = ".snapshot"
FORGOTTEN = 14 * 24 * 3600.0  # seconds


@dataclass(frozen=True)
class Checkpoint:
    """The one snapshot of a job. path: a file named by a digest of all that the job's result depends on."""

    path: Path

    def save(self, snapshot: Snapshot) -> None:
        """Replace the snapshot; a reader sees the old one or the new one. Raises StateError where there is no space."""
        position = {**vars(snapshot.position), "history": [asdict(row) for row in snapshot.position.history]}
        groups = {name: getattr(snapshot, name) for name in ARRAYS} | {BEST: position.pop(BEST)}
        about = {"phase": snapshot.phase, "position": position}
        kinds = {name: [[array.dtype.str, array.shape] for array in arrays] for name, arrays in groups.items()}
        arrays = (np.ascontiguousarray(array).data for arrays in groups.values() for array in arrays)
        parts: list[Any] = [json.dumps([about, kinds]).encode() + b"\n", *arrays]
        try:
            with atomic.file(self.path) as temporary, temporary.open("wb") as file:
                file.write(checksum.of(parts).encode() + b"\n")
                file.writelines(parts)
        except OSError as error:
            raise StateError(
                f"{self.path.parent}: the state of the training can't be kept ({error.strerror}); free some space there"
            ) from error

    def keep(self, snapshot: Snapshot) -> None:
        """As `save`, with a line of warning where it fails: a training that runs is worth more than its snapshot."""
        try:
            self.save(snapshot)
        except StateError as error:
            print(f"warning: {error}; a training that is killed now begins anew", file=sys.stderr)

    def load(self) -> Snapshot | None:
        """The snapshot, or None, with a line of warning, where it is damaged; None where there is none."""
        if not self.path.exists():
            return None
        try:
            with self.path.open("rb") as file:
                known, start = file.readline().strip().decode(), file.tell()
                if checksum.of(iter(lambda: file.read(checksum.BLOCK), b"")) != known:
                    raise ValueError("its checksum differs")
                file.seek(start)
                about, kinds = json.loads(file.readline())
                groups: dict[str, Any] = {
                    name: [np.fromfile(file, kind, math.prod(shape)).reshape(shape) for kind, shape in kinds[name]]
                    for name in (*ARRAYS, BEST)
                }
            history = [HistoryRow(**row) for row in about["position"].pop("history")]
            position = Position(**about["position"], history=history, best=groups.pop(BEST))
            return Snapshot(about["phase"], position, **groups)
        except (ValueError, OSError, KeyError, TypeError) as error:  # a short or foreign file
            print(f"warning: {self.path} is damaged ({error}); what it held is trained again", file=sys.stderr)
            return None

    def clear(self) -> None:
        """The job is done: forget it, and those that were killed, then changed, and so never asked for again."""
        self.path.unlink(missing_ok=True)
        for other in self.path.parent.glob(f"*{SUFFIX}"):
            with suppress(FileNotFoundError):
                if time.time() - other.stat().st_mtime > FORGOTTEN:
                    other.unlink()
