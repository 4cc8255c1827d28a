"""Snapshots of a half-finished training on disk, so that a killed one goes on from its last finished epoch."""

from __future__ import annotations

import json
import math
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from frostline import atomic
from frostline.training import Snapshot

ARRAYS = ("variables", "optimizer", "metrics", "best")  # what of a snapshot is lists of arrays
SUFFIX = ".snapshot"
FORGOTTEN = 14 * 24 * 3600.0  # seconds


@dataclass(frozen=True)
class Checkpoint:
    """The one snapshot of a job. path: a file named by a digest of all that the job's result depends on."""

    path: Path

    def save(self, snapshot: Snapshot) -> None:
        """Replace the snapshot; a reader sees the old one or the new one."""
        groups = {name: getattr(snapshot, name) for name in ARRAYS}
        about = {key: value for key, value in vars(snapshot).items() if key not in groups}
        kinds = {name: [[array.dtype.str, array.shape] for array in arrays] for name, arrays in groups.items()}
        with atomic.file(self.path) as temporary, temporary.open("wb") as file:
            file.write(json.dumps([about, kinds]).encode() + b"\n")
            for array in (array for arrays in groups.values() for array in arrays):
                file.write(array.tobytes())

    def load(self) -> Snapshot | None:
        """The snapshot, or None where there is none that can be read."""
        if not self.path.exists():
            return None
        try:
            with self.path.open("rb") as file:
                about, kinds = json.loads(file.readline())
                groups: dict[str, Any] = {
                    name: [np.fromfile(file, kind, math.prod(shape)).reshape(shape) for kind, shape in kinds[name]]
                    for name in ARRAYS
                }
            return Snapshot(**about, **groups)
        except (ValueError, OSError, KeyError, TypeError):  # a short or foreign file
            return None

    def clear(self) -> None:
        """The job is done: forget it, and those that were killed, then changed, and so never asked for again."""
        self.path.unlink(missing_ok=True)
        for other in self.path.parent.glob(f"*{SUFFIX}"):
            with suppress(FileNotFoundError):
                if time.time() - other.stat().st_mtime > FORGOTTEN:
                    other.unlink()
