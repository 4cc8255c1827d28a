"""Snapshots of a half-finished training on disk, so that a killed one goes on from its last finished epoch."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from frostline import atomic
from frostline.training import Snapshot

ARRAYS = ("variables", "optimizer", "metrics", "best")  # what of a snapshot is lists of arrays
FORGOTTEN = 14 * 24 * 3600.0  # seconds


@dataclass(frozen=True)
class Checkpoint:
    """The one snapshot of a job. path: a file named by a digest of all that the job's result depends on."""

    path: Path

    def save(self, snapshot: Snapshot) -> None:
        """Replace the snapshot; a reader sees the old one or the new one."""
        groups = {name: getattr(snapshot, name) for name in ARRAYS}
        arrays: dict[str, Any] = {
            f"{name}/{i:05d}": value for name, values in groups.items() for i, value in enumerate(values)
        }
        rest = {key: value for key, value in vars(snapshot).items() if key not in groups}
        with atomic.file(self.path) as temporary, temporary.open("wb") as file:
            np.savez(file, state=np.array(json.dumps(rest)), **arrays)

    def load(self) -> Snapshot | None:
        """The snapshot, or None where there is none that can be read."""
        if not self.path.exists():
            return None
        try:
            with np.load(self.path) as stored:
                names = sorted(set(stored.files) - {"state"})
                groups: dict[str, Any] = {
                    group: [stored[name] for name in names if name.startswith(f"{group}/")] for group in ARRAYS
                }
                return Snapshot(**json.loads(str(stored["state"])), **groups)
        except (ValueError, OSError, EOFError, KeyError, BadZipFile):  # what NumPy raises on a short or foreign file
            return None

    def clear(self) -> None:
        """The job is done: forget it, and those that were killed, then changed, and so never asked for again."""
        self.path.unlink(missing_ok=True)
        for other in self.path.parent.glob("*.npz"):
            with suppress(FileNotFoundError):
                if time.time() - other.stat().st_mtime > FORGOTTEN:
                    other.unlink()
