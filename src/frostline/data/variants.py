"""Stored variants of the training split, with the same rows."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from frostline.core import machine, progress
from frostline.data import augmentation, shards
from frostline.errors import DataError
from frostline.params.schema import AugmentSection


def write(settings: AugmentSection, train: shards.Shards, seed: int, folder: Path) -> None:
    """Write the stored variants of the training split into an empty folder. There are none if variants are live."""
    for variant in range(1, (settings.copies if settings.stored else 0) + 1):
        place = folder / f"variant-{variant:05d}"
        place.mkdir()
        images = progress.track(_make_variant(train, settings, variant, seed), len(train), f"augment {variant}")
        shards.write(place, train.layout, train.index, images, codec=train.codec)


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


def _make_variant(
    train: shards.Shards, settings: AugmentSection, number: int, seed: int
) -> Iterator[NDArray[np.uint8]]:
    """One variant of every training image, in the order of the shards."""
    digests = train.index["sha256"]
    function = augmentation.own(settings)

    def make(sha256: str, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return augmentation.variant(pixels, settings, function, sha256, number, seed)

    with ThreadPoolExecutor(machine.cores()) as pool:  # SciPy releases the interpreter lock
        for start in range(0, len(train), 64):
            rows = np.arange(start, min(start + 64, len(train)))
            yield from pool.map(make, digests.iloc[rows].tolist(), train.take(rows))
