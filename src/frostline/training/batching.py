"""Batches: examples cut into the chunks that go into the engine, the next one made while one is worked on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frostline.features.prefix import Rows
from frostline.models import backend
from frostline.training import stepping

CHUNK_BYTES = 4 * 2**20  # of inputs that go into the engine in one call, where a batch is smaller


@dataclass(frozen=True)
class Examples:
    """What to learn from. variants: rows of the same pictures, the originals first; labels: int (n,);
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

    @classmethod
    def of(cls, examples: Examples, units: int, smoothing: float, batch_size: int, row_bytes: int) -> Batches:
        """Chunks of about CHUNK_BYTES. row_bytes: of one row of inputs."""
        return cls(examples, units, smoothing, batch_size, max(1, CHUNK_BYTES // (batch_size * row_bytes)))

    def chunks(
        self,
        variant: int,
        order: NDArray[np.int64],
        rule: NDArray[np.float32] | None = None,
        first: int = 0,
        last: int | None = None,
    ) -> Iterator[stepping.Chunk]:
        """The rows of a variant in that order, from batch `first` to before batch `last`, each batch with its row of
        `rule` where that is given. A shorter last batch is a chunk of its own."""
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
                    yield chunk if rule is None else (rule[number : number + len(chunk[0])], *chunk)

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


@dataclass(frozen=True)
class Mixture:
    """Mixes the examples of each batch with those of the same batch in another order, their targets alike.

    mixup, cutmix: alpha of the Beta distribution from which each batch's share is drawn, 0 for none; with both, half
    of the batches each. mixup blends (Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018); cutmix
    puts a box of the other in (Yun et al., "CutMix", ICCV 2019), into examples that have a height and a width. What is
    mixed is what crosses the freeze line: pictures where nothing is frozen, else their features (Verma et al.,
    "Manifold Mixup", ICML 2019), so that stored features serve.
    """

    mixup: float
    cutmix: float

    @property
    def is_any(self) -> bool:
        """Whether anything is mixed."""
        return self.mixup > 0 or self.cutmix > 0

    def mixed(self, chunks: Iterable[stepping.Chunk], seed: Sequence[int], first: int) -> Iterator[stepping.Chunk]:
        """Chunks of numbers, inputs, targets and perhaps weights -> the same, mixed. first: the first batch's number,
        on which with the seed the draws depend."""
        numbers = count(first)
        for rule, x, *targets in chunks:
            batches = zip(x, *targets, strict=True)
            mixed = [self._batch(np.random.default_rng([*seed, next(numbers)]), *batch) for batch in batches]
            yield (rule, *(np.stack(part) for part in zip(*mixed, strict=True)))

    def _batch(self, rng: np.random.Generator, x: NDArray[Any], *targets: NDArray[Any]) -> list[NDArray[Any]]:
        cut = self.cutmix > 0 and (self.mixup == 0 or rng.random() < 0.5)
        alpha = self.cutmix if cut else self.mixup
        share, others = float(rng.beta(alpha, alpha)), rng.permutation(len(x))
        if cut and x.ndim == 4:
            height, width = x.shape[1:3]
            side = np.sqrt(1 - share)
            y, left = rng.integers(height), rng.integers(width)
            tall, wide = side * height / 2, side * width / 2
            rows = slice(max(0, round(y - tall)), min(height, round(y + tall)))
            columns = slice(max(0, round(left - wide)), min(width, round(left + wide)))
            out = x.copy()
            out[:, rows, columns] = x[others][:, rows, columns]
            share = 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
        elif cut:
            return [x, *targets]
        else:
            out = _blend(x, x[others], share)
        return [out, *(_blend(part, part[others], share) for part in targets)]


def _blend(one: NDArray[Any], other: NDArray[Any], share: float) -> NDArray[Any]:
    """share * one + (1 - share) * other, in their dtype; whole numbers are rounded."""
    blended = one * np.float32(share) + other * np.float32(1 - share)
    return (np.rint(blended) if one.dtype.kind in "ui" else blended).astype(one.dtype)


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
