"""What was measured on this machine, kept beside the activation store: a measurement is made once.

A file that is missing, or can't be read, means that it is measured again: deleting anything here is safe.
"""

from __future__ import annotations

import json
import os
import platform
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from frostline.core import atomic, digest

TRIAL_BYTES, TRIAL_ROW = 16 * 2**20, 2**15  # what a folder's speed is measured with


@dataclass(frozen=True)
class Speed:
    """Seconds that a byte takes. write: in order; read: whole rows in random order, from the page cache; cold: from
    the disk."""

    write: float
    read: float
    cold: float


def remember(folder: Path, name: str, value: Any) -> None:
    """Keep a JSON-able value, where there is space for it."""
    with suppress(OSError):
        atomic.write_json(folder / f"{name}.json", value)


def recall(folder: Path, name: str) -> Any:
    """A value that was kept under that name; None for none, or for one that can't be read."""
    try:
        return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def speed(folder: Path) -> Speed:
    """How fast a folder is on this machine: measured once, on a few megabytes."""
    name = f"speed-{digest.of_value(platform.node())[:24]}"
    known = recall(folder, name)
    if known is None:
        try:
            known = _measured(folder)
        except OSError:  # a full disk: whoever writes there will be told
            return Speed(1.0, 0.0, 0.0)
        remember(folder, name, known)
    return Speed(*known)


def _measured(folder: Path) -> list[float]:
    """Seconds a byte of writing, of reading from the page cache and from the disk; of a file of TRIAL_BYTES."""
    rows = np.zeros((TRIAL_BYTES // TRIAL_ROW, TRIAL_ROW), np.uint8)
    with atomic.scratch(folder / "speed") as scratch:
        path = scratch / "trial"
        start = time.perf_counter()
        with path.open("wb") as file:
            rows.tofile(file)
            file.flush()
            os.fsync(file.fileno())
            write = time.perf_counter() - start
            warm = min(_seconds_of_reading(path, rows.shape) for _ in range(3))  # the first takes memory for its result
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            seconds = [write, warm, max(warm, _seconds_of_reading(path, rows.shape))]
        return [value / TRIAL_BYTES for value in seconds]


def _seconds_of_reading(path: Path, shape: tuple[int, int]) -> float:
    """Seconds that all rows of a file take in random order."""
    order = np.random.default_rng(0).permutation(shape[0])
    start = time.perf_counter()
    np.memmap(path, np.uint8, "r", 0, shape)[order]
    return time.perf_counter() - start
