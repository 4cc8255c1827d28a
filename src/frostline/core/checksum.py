"""CRC-32 of what is written and read back: quick enough for every byte (some GB/s), and no flipped bit escapes it."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

BLOCK = 2**20  # bytes


class Summed:
    """A file that is written, with the CRC-32 of what went in so far, as eight hex digits."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._value = file, 0

    @property
    def sum(self) -> str:
        return f"{self._value:08x}"

    def write(self, data: Any) -> int:
        """Write bytes, or what has a buffer of them."""
        self._value = zlib.crc32(data, self._value)
        return self._file.write(data)


def of(parts: Iterable[Any]) -> str:
    """CRC-32 of parts of a whole, bytes or buffers, as eight hex digits."""
    value = 0
    for part in parts:
        value = zlib.crc32(part, value)
    return f"{value:08x}"


def of_file(path: Path) -> str:
    """CRC-32 of a file, as eight hex digits."""
    with path.open("rb") as file:
        return of(iter(lambda: file.read(BLOCK), b""))
