"""Measurements of this machine, which are kept beside the activation store and made once.

If a file is missing or can't be read, the measurement is made again. So deleting anything here is safe.
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

TRIAL_BYTES, TRIAL_ROW = 16 * 2**20, 2**15  # the size of the file that the speed of a folder is measured with


@dataclass(frozen=True)
class Speed:
    """Seconds for a byte.

    write: in order; read: whole rows in random order, from the page cache; cold: the same from the disk.
    """

    write: float
    read: float
    cold: float


def remember(folder: Path, name: str, value: Any) -> None:
    """Keep a JSON value, if there is space for it."""
    with suppress(OSError):
        atomic.write_json(folder / f"{name}.json", value)


def recall(folder: Path, name: str) -> Any:
    """The value that is kept under that name; None if there is none, or if it can't be read."""
    try:
        return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def speed(folder: Path) -> Speed:
    """The speed of a folder on this machine, measured once on a few megabytes."""
    name = f"speed-{digest.of_value(platform.node())[:24]}"
    seconds = recall(folder, name)
    if seconds is None:
        try:
            seconds = _measured(folder)
        except OSError:  # a full disk, which the command that writes there reports
            return Speed(1.0, 0.0, 0.0)
        remember(folder, name, seconds)
    return Speed(*seconds)


def _measured(folder: Path) -> list[float]:
    """Seconds for a byte to write, to read from the page cache, and to read from the disk, in a file of TRIAL_BYTES."""
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
    """Seconds to read all rows of a file in random order."""
    order = np.random.default_rng(0).permutation(shape[0])
    start = time.perf_counter()
    np.memmap(path, np.uint8, "r", 0, shape)[order]
    return time.perf_counter() - start
