"""Decode each image once, on all cores, into one scratch file, with constant memory."""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from frostline.core import machine, progress
from frostline.data import images
from frostline.data.deep_grey import GreyRange, Tones
from frostline.data.images import Pixels
from frostline.data.memory_budget import Budget
from frostline.errors import InternalError
from frostline.ingest import reading, thumbnails
from frostline.ingest.reading import SourceReader

CHUNK = 32  # images per task
AHEAD = 16  # tasks for each worker that are ready before they are needed
INLINE = 200  # up to that many images, the start of worker processes costs more than it saves

DIGEST = 32  # bytes of SHA-256


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
    grey_range: of grey images with more than 8 bits.
    """

    reader: SourceReader
    size: int
    resize: images.Resize
    min_side: int
    scratch: Path
    grey_range: GreyRange = "own"

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

    def run(self, rows: Sequence[int], paths: Sequence[str]) -> list[Decoded]:
        """Decode images into the records with these numbers."""
        file = os.open(self.scratch, os.O_WRONLY)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's warnings name no file
                return [self._one(file, row, path) for row, path in zip(rows, paths, strict=True)]
        finally:
            os.close(file)

    def _one(self, file: int, row: int, path: str) -> Decoded:
        try:
            with images.budget.turn():
                original = self.reader.read(path, self.size, self.grey_range)
                if min(original.size) < self.min_side:
                    width, height = original.size
                    reason = f"{width}x{height} pixels, smaller than data.min_side = {self.min_side}"
                    raise images.UnreadableImageError(reason, "too_small")
                square = images.fit(original.image, self.size, self.resize)
                original = original._replace(image=square)  # frees the large image before the turn ends
            small = np.asarray(square)
            digest = hashlib.sha256(small.data).digest()
            os.pwritev(file, [small.data, digest, thumbnails.draw(square).data], row * self.record)
        except images.UnreadableImageError as error:
            return Decoded(kind=error.kind, reason=str(error))
        except MemoryError:  # not a problem of the image: which images are dropped must not depend on the machine
            raise InternalError(f"{path}: not enough memory to decode it; free some and repeat") from None
        prepared = int.from_bytes(digest[:8], "big", signed=True)
        facts = (original.sha256, prepared, original.is_coded, original.size)
        return Decoded(*facts, tones=original.tones, has_deep_colour=original.has_deep_colour)

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
        workers = min(machine.cores(), len(starts))
        if len(paths) <= INLINE or workers == 1:
            yield from _tracked((self.run(*task) for task in tasks), len(paths))
            return
        # The workers get the decoder as a file: if a worker died while it reads a pipe, the parent would wait forever.
        handover = self.scratch.with_name("decoder.pickle")
        handover.write_bytes(pickle.dumps(self))
        context = get_context(_start_method())
        shared = (_budget(), context.Condition(), context.Value("q", 0, lock=False))
        try:
            with ProcessPoolExecutor(workers, context, _begin, (handover, os.getpid(), shared)) as pool:
                yield from _tracked(_in_order(pool, tasks, AHEAD * workers), len(paths))
        except BrokenProcessPool:
            raise InternalError("a decoding process died, probably for lack of memory; free some and repeat") from None
        finally:
            handover.unlink()  # not earlier: a worker may start when the others have done all the work

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


def _start_method() -> str:
    """How worker processes start: by fork, in milliseconds, unless threads run that don't survive a fork."""
    is_alone = threading.active_count() == 1 and not {"tensorflow", "jax", "torch"} & sys.modules.keys()
    return "fork" if is_alone and sys.platform == "linux" else "spawn"


def _in_order(
    pool: ProcessPoolExecutor, tasks: Iterable[tuple[Sequence[int], list[str]]], ahead: int
) -> Iterator[list[Decoded]]:
    """The results of tasks, in their order. No more than `ahead` tasks wait, while `pool.map` would keep them all."""
    waiting: deque[Future[list[Decoded]]] = deque()
    for task in tasks:
        waiting.append(pool.submit(_task, *task))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _tracked(parts: Iterable[list[Decoded]], total: int) -> Iterator[Decoded]:
    for part in progress.track(parts, total, "prepare", CHUNK):
        yield from part


_decoder: Decoder  # set once in each worker process, so that it is not sent with every task


def _budget() -> float:
    """The memory that all workers together may use to decode, in bytes."""
    return max(2**30, machine.free_memory() / 4)


def _begin(handover: Path, parent: int, shared: tuple[float, Any, Any]) -> None:
    global _decoder
    images.budget = Budget(*shared)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _decoder = pickle.loads(handover.read_bytes())


def _end_with(parent: int) -> None:
    """End this worker when its parent is killed: otherwise it would wait for the next task forever."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _task(rows: Sequence[int], paths: Sequence[str]) -> list[Decoded]:
    return _decoder.run(rows, paths)
