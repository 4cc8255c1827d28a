"""Memory-mapped arrays of which only so much stays in memory.

The kernel keeps every page of a mapped file that was touched, and counts it as the process's own, until memory is
short. Whoever trains beside other work wants a bound instead: after so many bytes the pages are given back. What the
kernel still has in its page cache is found there again, the rest is read from the disk.
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

# So much may be mapped around a page that was asked for: Linux maps a large file's cached pages 2 MB at a time.
AROUND = 2**21


class Memory:
    """Bounds how much of the files mapped through it is resident. limit: bytes, before the pages are given back."""

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
        """Say that so many scattered rows were read; gives pages back where that was more than the limit."""
        self._touched += rows * (row_bytes + AROUND)
        if self._touched > self.limit:
            self._touched = 0.0
            if sum(len(mapped) for mapped in list(self._maps)) > self.limit:
                self.release()

    def release(self) -> None:
        """Give all pages back."""
        if hasattr(mmap, "MADV_DONTNEED"):
            for mapped in list(self._maps):
                mapped.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True)
class Pieces:
    """Rows that lie in several arrays, as one array-like.

    arrays: each of shape (its rows, *shape); piece, place: int64 (n,), which array a row lies in, and where; a row
    that is nowhere has piece -1.
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
        """The rows that are nowhere."""
        return np.flatnonzero(self.piece < 0)

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Copy the given rows, none of them missing, in their order: shape (len(rows), *shape)."""
        piece, place = self.piece[rows], self.place[rows]
        out = np.empty((len(rows), *self.shape), self.dtype)
        for number in np.unique(piece):
            here = piece == number
            out[here] = self.arrays[number][place[here]]
        self.memory.touch(len(rows), out[:1].nbytes)
        return out


def read_header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Shape, dtype and offset of the data of the .npy array that begins at an open file's position.

    Raises ValueError for a foreign or short file.
    """
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"an array in .npy version {version}, not (1, 0)")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if is_fortran:
        raise ValueError("an array in Fortran order")
    return shape, dtype, file.tell()
