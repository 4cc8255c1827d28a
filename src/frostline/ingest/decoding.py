"""Decode each image once, on all cores, into one scratch file, with constant memory."""

from __future__ import annotations

import hashlib
import math
import os
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from frostline.core import machine, progress
from frostline.core.executors import Executor, Processes
from frostline.data import images
from frostline.data.deep_grey import GreyRange, Tones
from frostline.data.images import Pixels
from frostline.data.memory_budget import Budget
from frostline.errors import DataError, InternalError
from frostline.ingest import reading, thumbnails
from frostline.ingest.reading import SourceReader

CHUNK = 32  # images per task
INLINE = 200  # up to that many images, the start of worker processes costs more than it saves

DIGEST = 32  # bytes of SHA-256

# The numbers of records, and the paths of the images that belong there.
Task: TypeAlias = tuple[Sequence[int], list[str]]


class Decoded(NamedTuple):
    """Facts about a decoded image, or the reason why it is unusable.

    sha256, is_coded: see `reading.ReadImage`, sha256 is empty if the image is unusable; prepared: a number, equal for
    images with the same prepared pixels; size: the width and height of the original; kind and reason: of the problem,
    empty if there is none; tones, has_deep_colour: see `reading.ReadImage`.
    """

    sha256: bytes = b""
    prepared: int = 0
    is_coded: bool = False
    size: tuple[int, int] = (0, 0)
    kind: str = ""
    reason: str = ""
    tones: Tones | None = None
    has_deep_colour: bool = False


@dataclass(frozen=True)
class Decoder:
    """Decodes each image into one fixed-size record of the scratch file.

    A record holds the prepared pixels, their SHA-256 and the thumbnail, so that memory holds none of them.

    size: side of the prepared images in pixels; min_side: images with a smaller side, in pixels, are unusable;
    grey_range: of grey images with more than 8 bits; executor: where images are decoded, None for this machine; it must
    see the scratch file's folder and `source`, where the images are.
    """

    reader: SourceReader
    size: int
    resize: images.Resize
    min_side: int
    scratch: Path
    grey_range: GreyRange = "own"
    executor: Executor | None = None
    source: Path = Path()

    def with_range(self, grey_range: GreyRange) -> Decoder:
        """The same with another range."""
        return replace(self, grey_range=grey_range)

    @property
    def record(self) -> int:
        """Bytes of one record."""
        return self.pixel_bytes + DIGEST + thumbnails.BYTES

    @property
    def pixel_bytes(self) -> int:
        """Bytes of one prepared image."""
        return self.size * self.size * 3

    def run(self, task: Task) -> list[Decoded]:
        """Decode images into the records with these numbers."""
        rows, paths = task
        file = os.open(self.scratch, os.O_WRONLY)
        try:
            results = []
            for row, (facts, parts) in zip(rows, map(self._one, paths), strict=True):
                os.pwritev(file, parts, row * self.record)
                results.append(facts)
            return results
        finally:
            os.close(file)

    def rendered(self, task: Task) -> list[tuple[Decoded, bytes]]:
        """Decode images on another machine, which does not write into the scratch file: their facts and records.

        Raises DataError if the machine does not see the images: each would look like a missing file.
        """
        for place in (self.source, self.scratch.parent):
            if not place.exists():
                raise DataError(f"{place}: not found; every machine of the cluster needs it at this place")
        return [(facts, b"".join(parts)) for facts, parts in map(self._one, task[1])]

    def _one(self, path: str) -> tuple[Decoded, list[Any]]:
        """The facts of an image, and the parts of its record, none if it is unusable."""
        try:
            with images.budget.turn(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's warnings name no file
                original = self.reader.read(path, self.size, self.grey_range)
                if min(original.size) < self.min_side:
                    width, height = original.size
                    reason = f"{width}x{height} pixels, smaller than data.min_side = {self.min_side}"
                    raise images.UnreadableImageError(reason, "too_small")
                square = images.fit(original.image, self.size, self.resize)
                original = original._replace(image=square)  # frees the large image before the turn ends
            small = np.asarray(square)
            digest = hashlib.sha256(small.data).digest()
            parts = [small.data, digest, thumbnails.draw(square).data]
        except images.UnreadableImageError as error:
            return Decoded(kind=error.kind, reason=str(error)), []
        except MemoryError:  # not a problem of the image: which images are dropped must not depend on the machine
            raise InternalError(f"{path}: not enough memory to decode it; free some and repeat") from None
        prepared = int.from_bytes(digest[:8], "big", signed=True)
        facts = (original.sha256, prepared, original.is_coded, original.size)
        return Decoded(*facts, tones=original.tones, has_deep_colour=original.has_deep_colour), parts

    def pixel_digests(self, paths: Sequence[str]) -> list[bytes]:
        """SHA-256 of the pixels of readable images, decoded at their own size, 32 bytes each."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return list(progress.track(map(self._pixel_digest, paths), len(paths), "compare"))

    def _pixel_digest(self, path: str) -> bytes:
        original = self.reader.read(path, None, self.grey_range)
        return reading.pixel_digest(np.asarray(original.image)) if original.is_coded else original.sha256

    def all(self, paths: Sequence[str], rows: Sequence[int] | None = None) -> Iterator[Decoded]:
        """Decode images. Yields a result for each, in order.

        paths: list-like, such as a column of a table; rows: the numbers of their records, None for 0, 1 and so on.
        """
        self.scratch.touch()
        rows = range(len(paths)) if rows is None else rows
        starts = range(0, len(paths), CHUNK)
        tasks = ((rows[start : start + CHUNK], list(paths[start : start + CHUNK])) for start in starts)
        parts = self._elsewhere(self.executor, tasks) if self.executor else self._here(tasks, len(paths))
        for part in progress.track(parts, len(paths), "prepare", CHUNK):
            yield from part

    def _here(self, tasks: Iterator[Task], total: int) -> Iterator[list[Decoded]]:
        workers = min(machine.cores(), math.ceil(total / CHUNK))
        if total <= INLINE or workers == 1:
            return map(self.run, tasks)
        handover = self.scratch.with_name("decoder.pickle")
        return Processes(workers, handover, _begin, _shared).map(self.run, tasks)

    def _elsewhere(self, executor: Executor, tasks: Iterator[Task]) -> Iterator[list[Decoded]]:
        sent: deque[Task] = deque()

        def remembered() -> Iterator[Task]:
            for task in tasks:
                sent.append(task)
                yield task

        with self.scratch.open("r+b", buffering=0) as file:
            for results in executor.map(replace(self, executor=None).rendered, remembered()):
                for row, (_, record) in zip(sent.popleft()[0], results, strict=True):
                    os.pwrite(file.fileno(), record, row * self.record)
                yield [facts for facts, _ in results]

    def pixels(self, rows: Iterable[int]) -> Iterator[Pixels]:
        """Read prepared images back, uint8 (size, size, 3) each."""
        for data in self._read(rows, 0, self.pixel_bytes):
            yield np.frombuffer(data, np.uint8).reshape(self.size, self.size, 3)

    def digests(self, rows: Iterable[int]) -> Iterator[bytes]:
        """Read the SHA-256 of prepared images back, 32 bytes each."""
        return self._read(rows, self.pixel_bytes, DIGEST)

    def thumbnails(self, rows: Iterable[int]) -> Iterator[Pixels]:
        """Read thumbnails back, uint8 (32, 32, 3) each."""
        for data in self._read(rows, self.pixel_bytes + DIGEST, thumbnails.BYTES):
            yield np.frombuffer(data, np.uint8).reshape(thumbnails.SIDE, thumbnails.SIDE, 3)

    def _read(self, rows: Iterable[int], offset: int, size: int) -> Iterator[bytes]:
        with self.scratch.open("rb", buffering=0) as file:
            for row in rows:
                yield os.pread(file.fileno(), size, row * self.record + offset)


def _shared(context: BaseContext) -> tuple[Any, ...]:
    """What worker processes share: the memory, in bytes, that all together may use to decode."""
    memory = max(2**30, machine.free_memory() / 4)
    return memory, context.Condition(), context.Value("q", 0, lock=False)


def _begin(*shared: Any) -> None:
    images.budget = Budget(*shared)
