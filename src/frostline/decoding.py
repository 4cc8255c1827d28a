"""Decode a whole source over all cores into one scratch file, each picture once, with memory that stays flat."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from frostline import images, machine, progress
from frostline.errors import InternalError
from frostline.manifest import Source

CHUNK = 32  # pictures a task
INLINE = 600  # up to so many pictures the start of worker processes costs more than it saves

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Decoder:
    """How one picture of the source becomes one fixed-size record of the scratch file."""

    source: Source
    size: int
    resize: images.Resize
    scratch: Path

    @property
    def record(self) -> int:
        """Bytes of one decoded picture."""
        return self.size * self.size * 3

    def run(self, rows: range) -> list[tuple[str | None, str | None]]:
        """Decode rows; for each the SHA-256 of its original pixels, or None and the reason why it is unusable."""
        found: list[tuple[str | None, str | None]] = []
        file = os.open(self.scratch, os.O_WRONLY)
        try:
            for row in rows:
                try:
                    pixels = self.source.read(row)
                except images.UnreadableImageError as reason:
                    found.append((None, str(reason)))
                    continue
                except MemoryError:  # not the picture's fault: what is dropped must not depend on the machine
                    path = self.source.table["path"].iat[row]
                    raise InternalError(f"{path}: memory was too short to decode it; free some and repeat") from None
                sha = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
                small = images.resize(pixels, self.size, self.resize)
                os.pwrite(file, small.tobytes(), row * self.record)
                found.append((sha, None))
        finally:
            os.close(file)
        return found

    def all(self) -> pd.DataFrame:
        """Decode everything; the source's table with columns sha256 and reason (one of the two is None)."""
        table = self.source.table
        self.scratch.touch()
        chunks = [range(start, min(start + CHUNK, len(table))) for start in range(0, len(table), CHUNK)]
        found: list[tuple[str | None, str | None]] = []
        for part in self._results(chunks, len(table)):
            found += part
        return table.assign(**pd.DataFrame(found, columns=["sha256", "reason"], index=table.index, dtype=object))

    def pixels(self, rows: Iterable[int]) -> Iterator[Pixels]:
        """Read decoded pictures back, uint8 (size, size, 3) each."""
        with self.scratch.open("rb", buffering=0) as file:
            for row in rows:
                data = os.pread(file.fileno(), self.record, row * self.record)
                yield np.frombuffer(data, np.uint8).reshape(self.size, self.size, 3)

    def _results(self, chunks: list[range], total: int) -> Iterator[list[tuple[str | None, str | None]]]:
        workers = machine.cores()
        if total <= INLINE or workers == 1:
            yield from progress.track(map(self.run, chunks), total, "prepare", CHUNK)
            return
        # Handed over as a file: through the pipe of a worker that dies while it starts, the parent would wait for ever.
        handover = self.scratch.with_name("decoder.pickle")
        handover.write_bytes(pickle.dumps(self))
        try:
            # Spawned, not forked: the parent's library threads don't survive a fork.
            with ProcessPoolExecutor(workers, get_context("spawn"), _begin, (handover,)) as pool:
                yield from progress.track(pool.map(_task, chunks), total, "prepare", CHUNK)
        except BrokenProcessPool:
            raise InternalError("a decoding process died, probably for want of memory; free some and repeat") from None
        finally:
            handover.unlink()  # only now: a worker may start after the others have done all the work


_decoder: Decoder  # set once in each worker process, so that the source is not sent with every task


def _begin(handover: Path) -> None:
    global _decoder
    _decoder = pickle.loads(handover.read_bytes())


def _task(rows: range) -> list[tuple[str | None, str | None]]:
    return _decoder.run(rows)
