"""What this machine has."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def cores() -> int:
    """Processor cores that this process may use, at least 1 (a container's quota of time is not seen)."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_memory() -> float:
    """Bytes of memory that could be used without swapping, page cache included; infinite where it isn't known."""
    with suppress(OSError, ValueError, IndexError):  # not on macOS
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return float(line.split()[1]) * 1024
    return float("inf")
