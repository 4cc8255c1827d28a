"""Batches: examples are cut into chunks for the compiled steps; a thread prepares the next chunk during a step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frostline.data.shards import Rows
from frostline.models import backend
from frostline.training import stepping

CHUNK_BYTES = 4 * 2**20  # of inputs in one call of the compiled steps; at least one batch


@dataclass(frozen=True)
class Examples:
    """Images or features, with labels. variants: rows of the same images, the originals first; labels: int (n,);
    class_weights: float (classes,), or None if all classes have the same weight."""

    variants: Sequence[Rows]
    labels: NDArray[np.int64]
    class_weights: NDArray[np.float32] | None = None


def balanced(labels: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    """Class weights n / (classes * count), float32 (classes,), like scikit-learn's `balanced`."""
    return (len(labels) / (classes * np.bincount(labels, minlength=classes))).astype(np.float32)


@dataclass(frozen=True)
class Batches:
    """Cuts examples into chunks of batches, with one-hot targets (n, units) and sample weights.

    smoothing: the share of each target that is spread evenly over all classes (Szegedy et al., "Rethinking the
    Inception Architecture for Computer Vision", CVPR 2016, section 7); per_chunk: batches in a chunk.
    """

    examples: Examples
    units: int
    smoothing: float
    batch_size: int
    per_chunk: int

    @property
    def count(self) -> int:
        """The number of batches; the last one may be shorter."""
        return math.ceil(len(self.examples.labels) / self.batch_size)

    @classmethod
    def of(cls, examples: Examples, units: int, smoothing: float, batch_size: int, row_bytes: int) -> Batches:
        """Batches in chunks of about CHUNK_BYTES. row_bytes: the size of one row of inputs."""
        return cls(examples, units, smoothing, batch_size, max(1, CHUNK_BYTES // (batch_size * row_bytes)))

    def chunks(
        self,
        variant: int,
        order: NDArray[np.int64],
        numbers: NDArray[np.float32] | None = None,
        first: int = 0,
        last: int | None = None,
    ) -> Iterator[stepping.Chunk]:
        """The rows of a variant in the given order, from batch `first` to before batch `last`. If `numbers` is given,
        each batch comes with its row of it. A shorter last batch is a chunk of its own."""
        rows = self.examples.variants[variant]
        order = order[first * self.batch_size : None if last is None else last * self.batch_size]
        # If the rows are computed by a prefix, as many are requested at once as one call of the prefix takes.
        rows_at_once = self.batch_size * max(self.per_chunk, backend.batch_rows() // self.batch_size)
        for begin in range(0, len(order), rows_at_once):
            part = order[begin : begin + rows_at_once]
            x = rows.take(part)
            for start in range(0, len(part), self.batch_size * self.per_chunk):
                end = min(start + self.batch_size * self.per_chunk, len(part))
                for at, chunk in self._stack(x, part, start, end):
                    number = first + (begin + at) // self.batch_size
                    yield chunk if numbers is None else (numbers[number : number + len(chunk[0])], *chunk)

    def _stack(
        self, x: NDArray[Any], rows: NDArray[np.int64], start: int, end: int
    ) -> Iterator[tuple[int, stepping.Chunk]]:
        whole = start + (end - start) // self.batch_size * self.batch_size
        for first, last, size in ((start, whole, self.batch_size), (whole, end, end - whole)):
            if last > first:
                labels = self.examples.labels[rows[first:last]]
                is_one = labels[:, None] == (1 if self.units == 1 else np.arange(self.units))
                arrays = [x[first:last], self._smooth(is_one.astype(np.float32))]
                if self.examples.class_weights is not None:
                    arrays.append(self.examples.class_weights[labels])
                yield first, tuple(array.reshape(-1, size, *array.shape[1:]) for array in arrays)

    def _smooth(self, targets: NDArray[np.float32]) -> NDArray[np.float32]:
        classes = max(2, self.units)
        return targets * np.float32(1 - self.smoothing) + np.float32(self.smoothing / classes)


def test_batch(batch_size: int, row_bytes: int, parts: int) -> int:
    """The number of rows that are evaluated at once: a training batch, or more if the rows are small. parts: the number
    of equal parts that it can be cut into, as a training batch can."""
    rows = max(batch_size, min(1024, CHUNK_BYTES // row_bytes))
    return rows - rows % parts


def ahead(chunks: Iterator[stepping.Chunk]) -> Iterator[stepping.Chunk]:
    """The same chunks; a thread prepares the next one while the caller uses the current one."""
    with ThreadPoolExecutor(1) as pool:
        next_chunk = pool.submit(next, chunks, None)
        while (chunk := next_chunk.result()) is not None:
            next_chunk = pool.submit(next, chunks, None)
            yield chunk
