"""YAML files read as plain values, whoever wrote them: their size is bounded, and so is what aliases make of it."""

from __future__ import annotations

import errno
import stat
from pathlib import Path
from typing import Any

LONGEST = 2**24  # bytes of a file
VALUES = 1_000_000  # that it may stand for, once every alias is written out


def read(path: Path) -> Any:
    """The values of a YAML 1.2 file. Raises OSError, and YAMLError or ValueError with the reason where it is none."""
    from ruamel.yaml import YAML

    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # a named pipe would be waited on for ever
        raise OSError(errno.EINVAL, "is not a regular file")
    if status.st_size > LONGEST:
        raise ValueError(f"holds more than {LONGEST // 2**20} MB")
    try:
        values = YAML(typ="safe", pure=True).load(path)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    if _count(values, {}) > VALUES:
        raise ValueError(f"stands for more than {VALUES:,} values")
    return values


def _count(part: Any, known: dict[int, int]) -> int:
    """Values that a part stands for; what an alias meets again is counted from memory."""
    if not isinstance(part, dict | list | set):
        return 1
    if id(part) not in known:
        known[id(part)] = 1  # while it is counted: a ring is as long as its parts
        inside = [*part, *part.values()] if isinstance(part, dict) else part
        known[id(part)] = 1 + sum(_count(each, known) for each in inside)
    return known[id(part)]
