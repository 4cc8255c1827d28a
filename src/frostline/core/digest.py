"""SHA-256 digests of files, folders, arrays and plain values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

AT_ONCE = 4096  # items of an iterator that are in memory


def of_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def of_folder(path: Path) -> str:
    """Hex SHA-256 of the names and bytes of all files below a folder."""
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return of_value({file.relative_to(path).as_posix(): of_file(file) for file in files})


def of_array(array: NDArray[Any]) -> str:
    """Hex SHA-256 of an array's dtype, shape and elements in C order."""
    head = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()


def of_value(value: Any) -> str:
    """Hex SHA-256 of a value that JSON can represent. The order of keys does not matter.

    An iterator, alone or as an item of a list, counts as the list of its items. They are never all in memory.
    """
    sha = hashlib.sha256()
    for part in _parts(value):
        sha.update(part.encode())
    return sha.hexdigest()


def _parts(value: Any) -> Iterator[str]:
    """The JSON text of a value, in parts."""
    if isinstance(value, Iterator):
        yield "["
        comma = ""
        while items := list(islice(value, AT_ONCE)):
            yield comma + _text(items)[1:-1]
            comma = ","
        yield "]"
    elif isinstance(value, list) and any(isinstance(item, Iterator) for item in value):
        yield "["
        for number, item in enumerate(value):
            yield "," if number else ""
            yield from _parts(item)
        yield "]"
    else:
        yield _text(value)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
