"""Stored variants of the training split, with the same rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from frostline.core import machine, progress
from frostline.core.executors import Executor
from frostline.data import augmentation, shards
from frostline.data.images import Pixels
from frostline.errors import DataError
from frostline.params.schema import AugmentSection

CHUNK = 64  # images that are made at a time


def write(
    settings: AugmentSection, train: shards.Shards, seed: int, folder: Path, executor: Executor | None = None
) -> None:
    """Write the stored variants of the training split into an empty folder. There are none if variants are live.

    executor: where they are made, None for this process; it must see the folder of `train`.
    """
    for number in range(1, (settings.copies if settings.stored else 0) + 1):
        place = folder / f"variant-{number:05d}"
        place.mkdir()
        variant = StoredVariant(train.folder, settings, seed, number)
        images = _made(variant, train, executor)
        shards.write(
            place,
            train.layout,
            train.index,
            progress.track(images, len(train), f"augment {number}"),
            codec=train.codec,
        )


def stored(folder: Path, settings: AugmentSection, train: shards.Shards) -> list[shards.Shards]:
    """Open the variants of exactly these training images. There are none if variants are live.

    Raises DataError if `augment` has not run for these images.
    """
    copies = settings.copies if settings.stored else 0
    variants = [shards.open_folder(path, train.memory) for path in sorted(folder.glob("variant-*"))]
    originals = train.index["sha256"] if copies else None
    if len(variants) != copies or not all(variant.index["sha256"].equals(originals) for variant in variants):
        raise DataError(
            f"{folder}: does not hold augment.copies = {copies} variants of the images in {train.folder}; "
            "run `dvc repro`"
        )
    return variants


@dataclass(frozen=True)
class StoredVariant:
    """One variant of the training images in a folder, made wherever that folder is. number: from 1 on."""

    train: Path
    settings: AugmentSection
    seed: int
    number: int

    def __call__(self, rows: NDArray[np.int64]) -> list[Pixels]:
        """The variants of some images."""
        return list(map(self.maker(), *_chosen(shards.open_once(self.train), rows)))

    def maker(self) -> Callable[[str, Pixels], Pixels]:
        """The function that makes the variant of an image, by its digest and pixels."""
        function = augmentation.own(self.settings)

        def make(sha256: str, pixels: Pixels) -> Pixels:
            return augmentation.variant(pixels, self.settings, function, sha256, self.number, self.seed)

        return make


def _made(variant: StoredVariant, train: shards.Shards, executor: Executor | None) -> Iterator[Pixels]:
    """A variant of every training image, in the order of the shards."""
    chunks = (np.arange(start, min(start + CHUNK, len(train))) for start in range(0, len(train), CHUNK))
    if executor is not None:
        yield from chain.from_iterable(executor.map(variant, chunks))
        return
    make = variant.maker()
    with ThreadPoolExecutor(machine.cores()) as pool:  # SciPy releases the interpreter lock
        for rows in chunks:
            yield from pool.map(make, *_chosen(train, rows))


def _chosen(train: shards.Shards, rows: NDArray[np.int64]) -> tuple[list[str], Pixels]:
    """The digests and pixels of some images."""
    return train.index["sha256"].iloc[rows].tolist(), train.take(rows)
