"""Batches: examples cut into the chunks that go into the engine, the next one made while one is worked on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frostline.features.prefix import Rows
from frostline.models import backend
from frostline.training import stepping

CHUNK_BYTES = 4 * 2**20  # of inputs that go into the engine in one call, where a batch is smaller


@dataclass(frozen=True)
class Examples:
    """What to learn from. variants: rows of the same images, the originals first; labels: int (n,);
    class_weights: float (classes,), or None where all count alike."""

    variants: Sequence[Rows]
    labels: NDArray[np.int64]
    class_weights: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Batches:
    """Cuts examples into chunks of batches, with one-hot targets (n, units) and sample weights.

    smoothing: the share of each target that is spread over all classes alike (Szegedy et al., "Rethinking the Inception
    Architecture for Computer Vision", CVPR 2016, section 7).
    """

    examples: Examples
    units: int
    smoothing: float
    batch_size: int
    per_chunk: int

    @property
    def count(self) -> int:
        """How many batches there are; the last one may be shorter."""
        return math.ceil(len(self.examples.labels) / self.batch_size)

    @classmethod
    def of(cls, examples: Examples, units: int, smoothing: float, batch_size: int, row_bytes: int) -> Batches:
        """Chunks of about CHUNK_BYTES. row_bytes: of one row of inputs."""
        return cls(examples, units, smoothing, batch_size, max(1, CHUNK_BYTES // (batch_size * row_bytes)))

    def chunks(
        self,
        variant: int,
        order: NDArray[np.int64],
        numbers: NDArray[np.float32] | None = None,
        first: int = 0,
        last: int | None = None,
    ) -> Iterator[stepping.Chunk]:
        """The rows of a variant in that order, from batch `first` to before batch `last`, each batch with its row of
        `numbers` where they are given. A shorter last batch is a chunk of its own."""
        rows = self.examples.variants[variant]
        order = order[first * self.batch_size : None if last is None else last * self.batch_size]
        # Where a prefix is run on the fly, as many rows are asked for at once as one call of it takes.
        ahead = self.batch_size * max(self.per_chunk, backend.batch_rows() // self.batch_size)
        for begin in range(0, len(order), ahead):
            taken = order[begin : begin + ahead]
            x = rows.take(taken)
            for start in range(0, len(taken), self.batch_size * self.per_chunk):
                end = min(start + self.batch_size * self.per_chunk, len(taken))
                for at, chunk in self._stacked(x, taken, start, end):
                    number = first + (begin + at) // self.batch_size
                    yield chunk if numbers is None else (numbers[number : number + len(chunk[0])], *chunk)

    def _stacked(
        self, x: NDArray[Any], rows: NDArray[np.int64], start: int, end: int
    ) -> Iterator[tuple[int, stepping.Chunk]]:
        whole = start + (end - start) // self.batch_size * self.batch_size
        for first, last, size in ((start, whole, self.batch_size), (whole, end, end - whole)):
            if last > first:
                labels = self.examples.labels[rows[first:last]]
                is_one = labels[:, None] == (1 if self.units == 1 else np.arange(self.units))
                parts = [x[first:last], self._smoothed(is_one.astype(np.float32))]
                if self.examples.class_weights is not None:
                    parts.append(self.examples.class_weights[labels])
                yield first, tuple(part.reshape(-1, size, *part.shape[1:]) for part in parts)

    def _smoothed(self, targets: NDArray[np.float32]) -> NDArray[np.float32]:
        classes = max(2, self.units)
        return targets * np.float32(1 - self.smoothing) + np.float32(self.smoothing / classes)


def test_batch(batch_size: int, row_bytes: int) -> int:
    """How many rows are evaluated at once: a training batch, or more of them where they are small."""
    return max(batch_size, min(1024, CHUNK_BYTES // row_bytes))


def ahead(chunks: Iterator[stepping.Chunk]) -> Iterator[stepping.Chunk]:
    """The same chunks, the next one made in a thread while one is worked on."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, chunks, None)
        while (chunk := coming.result()) is not None:
            coming = pool.submit(next, chunks, None)
            yield chunk
