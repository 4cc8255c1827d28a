"""The resources of this machine."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
from contextlib import suppress
from pathlib import Path


def cores() -> int:
    """The number of cores that this process may use, at least 1. It ignores the CPU quota of a container."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def core_numbers() -> list[int]:
    """The numbers of the cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(cores()))


def gpus() -> list[str]:
    """The names by which CUDA_VISIBLE_DEVICES calls the NVIDIA GPUs that this process may use."""
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in named.split(",") if name.strip() not in ("", "-1")]
    query = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(query, capture_output=True, text=True, check=True, timeout=30).stdout.split()
    return []


def free_memory() -> float:
    """Bytes of memory that can be used without swapping, including the page cache; infinite if it is not known."""
    with suppress(OSError, ValueError, IndexError):  # not on macOS
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return float(line.split()[1]) * 1024
    return float("inf")


def give_memory_back() -> None:
    """Free what nobody uses any more, also in cycles of references, and give it back to the system.

    The C library keeps freed memory in its lists, several hundred MB after a network; glibc has a call that returns it
    (malloc_trim(3)). Other C libraries do it unasked, or not at all.
    """
    gc.collect()
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
