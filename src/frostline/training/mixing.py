"""Mixup and cutmix: the examples of a batch mixed with each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frostline.training import stepping


@dataclass(frozen=True)
class Mixture:
    """Mixes the examples of each batch with those of the same batch in another order, their targets alike.

    mixup, cutmix: alpha of the Beta distribution from which each batch's share is drawn, 0 for none; with both, half
    of the batches each. mixup blends (Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018); cutmix
    puts a box of the other in (Yun et al., "CutMix", ICCV 2019), into examples that have a height and a width. What is
    mixed is what crosses the freeze line: images where nothing is frozen, else their features (Verma et al.,
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
