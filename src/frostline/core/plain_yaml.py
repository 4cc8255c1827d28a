"""Read YAML files from any source as plain values, with limits on the size of the file and on its aliases."""

from __future__ import annotations

import errno
import stat
from pathlib import Path
from typing import Any

LONGEST = 2**24  # most bytes of a file
VALUES = 1_000_000  # most values of a file, with all aliases written out


def read(path: Path) -> Any:
    """The values of a YAML 1.2 file. Raises OSError, and YAMLError or ValueError with the reason if it is invalid."""
    from ruamel.yaml import YAML

    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # reading a named pipe would wait forever
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


def _count(part: Any, counts: dict[int, int]) -> int:
    """The number of values that a part stands for. A part that an alias repeats is not counted again."""
    if not isinstance(part, dict | list | set):
        return 1
    if id(part) not in counts:
        counts[id(part)] = 1  # during the count, so that a ring of aliases ends
        inside = [*part, *part.values()] if isinstance(part, dict) else part
        counts[id(part)] = 1 + sum(_count(each, counts) for each in inside)
    return counts[id(part)]
