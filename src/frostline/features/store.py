"""The activation store on disk: the output of a frozen prefix is computed once for each image.

features/
└── 3f9c0d...-float32/             an entry: the features of images by one prefix, in one dtype
    ├── entry.json                 a description for people
    ├── lock                       held by the process that adds to it
    └── 8d1e...-5a0c66e1.npy       a block: two .npy arrays, one after the other: the images' identities, `S32` (n,),
                                   and their features (n, *shape); named by a digest of the former and its CRC-32

The features of an image are found by the image's identity, so that new variants and added images extend an entry. The
name of an entry is the digest of everything else that its features depend on. So an entry can't be stale, and deleting
anything here is safe. Blocks appear whole, never change, and are checked before their first use.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from frostline import paths
from frostline.core import atomic, checksum, digest, progress
from frostline.core.executors import Executor
from frostline.core.mapped import Memory, Pieces, read_header

if TYPE_CHECKING:
    from frostline.params.schema import CacheSection

BLOCK_BYTES = 64 * 2**20
HEADERS = 256  # bytes of a block's two headers
BLOCK_SECONDS = 60.0  # a block is closed after this time, which is the most that a kill can cost

Identities = NDArray[np.bytes_]
RowNumbers = NDArray[np.int64]


@dataclass(frozen=True)
class Entry:
    """The description of an entry.

    key: digest of everything that the features depend on besides the image; shape, dtype: of the features of one image;
    about: a JSON object for people.
    """

    key: str
    shape: tuple[int, ...]
    dtype: str
    about: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def row_bytes(self) -> int:
        """Bytes of one image on the disk: its features and its identity."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize + 32

    @property
    def name(self) -> str:
        """The name of the entry's folder."""
        return f"{self.key[:40]}-{self.dtype}"


@dataclass(frozen=True)
class Usage:
    """How much the store has of an entry. bytes: on disk; images: rows; used: seconds since 1970."""

    about: dict[str, Any]
    dtype: str
    bytes: int
    images: int
    used: float


@dataclass(frozen=True)
class Store:
    """A folder of entries.

    budget: bytes that all blocks may take; memory: bounds the part of them that is resident; executor: where features
    of prepared images are computed, None for this process.
    """

    folder: Path
    budget: float
    memory: Memory
    executor: Executor | None = field(default=None, compare=False)
    _sound: set[Path] = field(default_factory=set, repr=False, compare=False)
    _needed: set[Path] = field(default_factory=set, repr=False, compare=False)

    def count(self, entry: Entry, images: Identities) -> int:
        """How many of the images are stored. Blocks are not checked yet."""
        blocks = [identities for _, identities, _ in self._blocks(entry)]
        return int(np.isin(images, np.concatenate(blocks)).sum()) if blocks else 0

    def find(self, entry: Entry, images: Identities) -> Pieces:
        """The places of the images' features; `missing` has the rows without any.

        A damaged block is removed with a line of warning, and its images are missing.
        """
        blocks = list(self._blocks(entry))
        if not blocks:
            nowhere = np.full(len(images), -1)
            return Pieces([], nowhere, nowhere, entry.shape, np.dtype(entry.dtype), self.memory)
        stored = np.concatenate([identities for _, identities, _ in blocks])
        sizes = [len(identities) for _, identities, _ in blocks]
        order = np.argsort(stored, kind="stable")
        at = order[np.minimum(np.searchsorted(stored, images, sorter=order), len(stored) - 1)]
        piece = np.where(stored[at] == images, np.repeat(np.arange(len(blocks)), sizes)[at], -1)
        place = np.concatenate([np.arange(size) for size in sizes])[at]
        used = [blocks[number][0] for number in np.unique(piece[piece >= 0])]
        damaged = [path for path in used if not self._is_sound(path)]
        if damaged:
            return self.find(entry, images)  # without the damaged ones
        for path in used:
            with suppress(FileNotFoundError):  # removed by another process since; the mapping stays
                path.touch()  # the least recently used go first
        self._needed.update(used)
        arrays = [features for _, _, features in blocks]
        return Pieces(arrays, piece, place, entry.shape, np.dtype(entry.dtype), self.memory)

    def add(
        self,
        entry: Entry,
        images: Identities,
        make: Callable[[Iterable[RowNumbers]], Iterable[NDArray[Any]]],
        batch: int,
    ) -> bool:
        """Compute and store the features that are missing; False, with a warning, if they can't be stored.

        make: computes the features of parts of the rows of `images`, at most `batch` rows each, in the order of the
        parts. Finished blocks stay, also if the process is killed. Raises what `make` raises, and errors.StateError if
        the folder can't be created.
        """
        folder = self.folder / entry.name
        atomic.require_writable(folder)
        try:
            with atomic.lock(folder / "lock", f"waiting for another process that computes the features in {folder}"):
                for leftover in folder.glob(".*"):  # of killed processes: a process that writes holds the lock
                    leftover.unlink()
                if not (folder / "entry.json").exists():
                    atomic.write_json(folder / "entry.json", entry.about)
                _, first = np.unique(images, return_index=True)
                missing = np.intersect1d(self.find(entry, images).missing, first)
                if len(missing):
                    self._make_room(len(missing) * entry.row_bytes + HEADERS)
                for rows, features in _blocks_of(missing, entry, make, batch):
                    self._publish(folder, images[rows], features)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            print(
                f"warning: {folder}: features can't be stored ({reason}); they are computed again in every epoch. "
                "Free some space, or set cache.mode to never",
                file=sys.stderr,
            )
            return False
        return True

    def room(self) -> float:
        """Bytes that still fit the budget and the disk, after blocks that this process has not used are removed."""
        needed = 0
        for path in self._needed:
            with suppress(FileNotFoundError):
                needed += path.stat().st_size
        removable = self._size() - needed
        return max(0.0, min(self.budget - needed, _free(self.folder) + removable))

    def holds(self, entry: Entry) -> bool:
        """Whether the store has a block of an entry."""
        return any((self.folder / entry.name).glob("[!.]*.npy"))

    def usage(self) -> list[Usage]:
        """The use of all entries, the last used first."""
        entries = []
        for folder in self.folder.glob("*-float*"):
            try:
                about = json.loads((folder / "entry.json").read_text(encoding="utf-8"))
            except (OSError, ValueError):
                about = {}
            blocks = [path.stat() for path in folder.glob("[!.]*.npy")]
            rows = sum(len(block[0]) for path in folder.glob("[!.]*.npy") if (block := self._open(path)))
            if blocks:
                size, used = sum(block.st_size for block in blocks), max(block.st_mtime for block in blocks)
                entries.append(Usage(about, folder.name.rpartition("-")[2], size, rows, used))
        return sorted(entries, key=lambda entry: -entry.used)

    def _size(self) -> int:
        total = 0
        for path in self.folder.glob("*/[!.]*.npy"):
            with suppress(FileNotFoundError):
                total += path.stat().st_size
        return total

    def _blocks(self, entry: Entry) -> Iterator[tuple[Path, Identities, NDArray[Any]]]:
        """The blocks of an entry that have the right shape and size."""
        for path in sorted((self.folder / entry.name).glob("[!.]*.npy")):
            block = self._open(path)
            if block and block[1].shape[1:] == entry.shape and block[1].dtype == entry.dtype:
                yield path, *block
            elif path.exists():
                _discard(path, "it is cut short or foreign")

    def _open(self, path: Path) -> tuple[Identities, NDArray[Any]] | None:
        try:
            with path.open("rb") as file:
                identities = np.lib.format.read_array(file)
                shape, dtype, offset = read_header(file)
            if path.stat().st_size != offset + dtype.itemsize * int(np.prod(shape)) or shape[0] != len(identities):
                return None
            return identities.astype("S32", copy=False), self.memory.map(path, dtype, shape, offset)
        except (OSError, ValueError, EOFError, IndexError):  # what NumPy raises on a short or foreign file
            return None

    def _is_sound(self, path: Path) -> bool:
        """Whether the checksum of a block is the one in its name; it is computed once in a process."""
        if path not in self._sound:
            try:
                actual = checksum.of_file(path)
            except OSError:
                return False
            if path.stem.rsplit("-", 1)[-1] != actual:
                _discard(path, "its checksum differs")
                return False
            self._sound.add(path)
        return True

    def _publish(self, folder: Path, identities: Identities, features: NDArray[Any]) -> None:
        temporary = folder / f".{os.getpid()}.npy"
        try:
            with temporary.open("wb") as file:
                summed = checksum.Summed(file)
                np.lib.format.write_array(summed, identities, (1, 0), allow_pickle=False)
                np.lib.format.write_array(summed, features, (1, 0), allow_pickle=False)
            path = folder / f"{digest.of_array(identities)[:24]}-{summed.sum}.npy"
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        self._sound.add(path)
        self._needed.add(path)

    def _make_room(self, needed: int) -> None:
        """Remove the least recently used blocks that this process has not used, until `needed` more bytes fit."""
        total, removable = 0, []
        for path in self.folder.glob("*/[!.]*.npy"):
            with suppress(FileNotFoundError):  # another process made room too
                status = path.stat()
                total += status.st_size
                if path not in self._needed:
                    removable.append((status.st_mtime, status.st_size, path))
        free = _free(self.folder)
        for _, size, path in sorted(removable):
            if total + needed <= self.budget and needed <= free:
                break
            path.unlink(missing_ok=True)
            total, free = total - size, free + size
        if total + needed > self.budget:
            raise OSError(errno.ENOSPC, f"cache.disk_gb {self.budget / 1e9:g} is used up")
        if needed > free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def opened(cache: CacheSection, executor: Executor | None = None) -> Store:
    """The store of the project, with the bounds of params.yaml. executor: see `Store`."""
    return Store(paths.features(), cache.disk_gb * 1e9, Memory(cache.memory_gb * 1e9), executor)


def _blocks_of(
    rows: RowNumbers, entry: Entry, make: Callable[[Iterable[RowNumbers]], Iterable[NDArray[Any]]], batch: int
) -> Iterator[tuple[RowNumbers, NDArray[Any]]]:
    """Features of the rows, computed batch by batch, in blocks of bounded size and time."""
    per_block = max(batch, BLOCK_BYTES // entry.row_bytes // batch * batch)
    features: list[NDArray[Any]] = []
    start_time, start, end = time.monotonic(), 0, 0
    parts = make(rows[at : at + batch] for at in range(0, len(rows), batch))
    for part in progress.track(parts, len(rows), "features", batch):
        features.append(part)
        end += len(part)
        if end - start >= per_block or end == len(rows) or time.monotonic() - start_time > BLOCK_SECONDS:
            yield rows[start:end], np.concatenate(features)
            features, start, start_time = [], end, time.monotonic()


def _free(folder: Path) -> int:
    """Free bytes on the disk where a folder is, or will be."""
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free


def _discard(path: Path, why: str) -> None:
    print(f"warning: {path} is damaged ({why}); its features are computed again", file=sys.stderr)
    path.unlink(missing_ok=True)
