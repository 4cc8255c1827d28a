"""Mixup and cutmix: they mix the examples of a batch with each other."""

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
    """Mixes the examples of each batch, and their targets, with those of the same batch in another order.

    mixup, cutmix: alpha of the Beta distribution from which the share of each batch is drawn, 0 for none; with both,
    each of them gets half of the batches. mixup blends two examples (Zhang et al., "mixup: Beyond Empirical Risk
    Minimization", ICLR 2018); cutmix replaces a box by that of the other example (Yun et al., "CutMix", ICCV 2019) if
    examples have a height and a width. It mixes what crosses the freeze line: images if nothing is frozen, else
    features (Verma et al., "Manifold Mixup", ICML 2019), so stored features can be used.
    """

    mixup: float
    cutmix: float

    @property
    def is_any(self) -> bool:
        """Whether there is anything to mix."""
        return self.mixup > 0 or self.cutmix > 0

    def mix(self, chunks: Iterable[stepping.Chunk], seed: Sequence[int], first: int) -> Iterator[stepping.Chunk]:
        """Mix chunks of numbers, inputs, targets and perhaps weights. first: the number of the first batch; the draws
        depend on it and on the seed."""
        numbers = count(first)
        for rule, x, *targets in chunks:
            batches = [
                self._batch(np.random.default_rng([*seed, next(numbers)]), *batch)
                for batch in zip(x, *targets, strict=True)
            ]
            yield (rule, *(np.stack(part) for part in zip(*batches, strict=True)))

    def _batch(self, rng: np.random.Generator, x: NDArray[Any], *targets: NDArray[Any]) -> list[NDArray[Any]]:
        is_cut = self.cutmix > 0 and (self.mixup == 0 or rng.random() < 0.5)
        alpha = self.cutmix if is_cut else self.mixup
        share, others = float(rng.beta(alpha, alpha)), rng.permutation(len(x))
        if is_cut and x.ndim == 4:
            height, width = x.shape[1:3]
            side = np.sqrt(1 - share)
            center_y, center_x = rng.integers(height), rng.integers(width)
            half_height, half_width = side * height / 2, side * width / 2
            rows = slice(max(0, round(center_y - half_height)), min(height, round(center_y + half_height)))
            columns = slice(max(0, round(center_x - half_width)), min(width, round(center_x + half_width)))
            out = x.copy()
            out[:, rows, columns] = x[others][:, rows, columns]
            share = 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
        elif is_cut:
            return [x, *targets]
        else:
            out = _blend(x, x[others], share)
        return [out, *(_blend(part, part[others], share) for part in targets)]


def _blend(one: NDArray[Any], other: NDArray[Any], share: float) -> NDArray[Any]:
    """share * one + (1 - share) * other, in their dtype; integers are rounded."""
    blend = one * np.float32(share) + other * np.float32(1 - share)
    return (np.rint(blend) if one.dtype.kind in "ui" else blend).astype(one.dtype)
