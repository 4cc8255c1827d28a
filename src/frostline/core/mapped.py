"""Memory-mapped arrays with a limit on their memory.

The kernel keeps every page of a mapped file that was read, and counts it as memory of the process, until memory is
short. To leave memory to other programs, the pages are released after a given number of bytes. Later reads find them in
the kernel's page cache, or read them from the disk.
"""

from __future__ import annotations

import mmap
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Bytes that may be mapped around a page that is read: Linux maps cached pages of a large file 2 MB at a time.
AROUND = 2**21


class Memory:
    """Limits how much of the files that it maps is resident. limit: bytes, after which the pages are released."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._maps: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()
        self._touched = 0.0

    def map(self, path: Path, dtype: Any, shape: tuple[int, ...], offset: int) -> NDArray[Any]:
        """Map an array of `dtype` and `shape` that begins `offset` bytes into a file, read-only."""
        if not np.prod(shape):
            return np.empty(shape, dtype)
        array = np.memmap(path, dtype, "r", offset, shape)
        self._maps.add(array._mmap)  # type: ignore[attr-defined]
        return array

    def load(self, path: Path) -> NDArray[Any]:
        """Map a whole .npy file, read-only."""
        with path.open("rb") as file:
            shape, dtype, offset = read_header(file)
        return self.map(path, dtype, shape, offset)

    def touch(self, rows: int, row_bytes: int) -> None:
        """Count rows that were read at scattered places. Releases the pages if the count exceeds the limit."""
        self._touched += rows * (row_bytes + AROUND)
        if self._touched > self.limit:
            self._touched = 0.0
            if sum(len(array_map) for array_map in list(self._maps)) > self.limit:
                self.release()

    def release(self) -> None:
        """Release all pages."""
        if hasattr(mmap, "MADV_DONTNEED"):
            for array_map in list(self._maps):
                array_map.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True)
class Pieces:
    """Rows of several arrays as one array-like.

    arrays: each of shape (its rows, *shape); piece, place: int64 (n,), the number of each row's array, and of the row
    in the array; a missing row has piece -1.
    """

    arrays: Sequence[NDArray[Any]]
    piece: NDArray[np.int64]
    place: NDArray[np.int64]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    memory: Memory

    def __len__(self) -> int:
        return len(self.piece)

    @property
    def missing(self) -> NDArray[np.int64]:
        """The missing rows, int64 (missing,)."""
        return np.flatnonzero(self.piece < 0)

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Copy the given rows in their order: shape (len(rows), *shape). None of them may be missing."""
        piece, place = self.piece[rows], self.place[rows]
        out = np.empty((len(rows), *self.shape), self.dtype)
        for number in np.unique(piece):
            here = piece == number
            out[here] = self.arrays[number][place[here]]
        self.memory.touch(len(rows), out[:1].nbytes)
        return out


def read_header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Shape, dtype and data offset of the .npy array that begins at the position of an open file.

    Raises ValueError if the file is too short or is not an .npy file.
    """
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"an array in .npy version {version}, not (1, 0)")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if is_fortran:
        raise ValueError("an array in Fortran order")
    return shape, dtype, file.tell()
