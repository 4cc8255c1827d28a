"""Test images, with which an export is compared with `predict`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from frostline.data import images
from frostline.data.images import Pixels, Resize
from frostline.data.shards import Layout, Shards
from frostline.errors import StateError
from frostline.ingest import reading
from frostline.serving.originals import Originals

MOST = 5000  # images that are compared; of more, so many by chance


@dataclass(frozen=True)
class TrialImage:
    """One test image.

    image: what `predict` resizes, uint8 (height, width, 3); prepared: what it gives to the network, uint8 (size, size,
    3); coded: the bytes of its file; whole: the image at its own size, if `predict` decodes the JPEG at a fraction.
    """

    image: Pixels
    prepared: Pixels
    coded: bytes
    whole: Pixels | None = None


@dataclass(frozen=True)
class TrialImages:
    """Test images. labels: int (n,), in the order of the classifier's classes, -1 for a class that it does not know;
    text: what they are; read: a number, from 0 to n - 1, to its image."""

    labels: NDArray[np.int64]
    text: str
    read: Callable[[int], TrialImage]


def of_split(test: Shards, originals: Originals | None, layout: Layout, seed: int) -> TrialImages:
    """The images of a test split: the originals, or without them the prepared ones.

    layout: the classifier's. Raises StateError if the prepared ones are not what the classifier takes.
    """
    rows = np.arange(len(test))
    if len(rows) > MOST:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MOST, replace=False))
    known = {name: number for number, name in enumerate(layout.classes)}
    numbers = np.array([known.get(name, -1) for name in test.layout.classes])
    labels = numbers[test.labels[rows]]
    if originals is None:
        require_alike(test.layout, layout)
        return TrialImages(labels, "prepared test images", lambda number: _prepared(test, rows[number]))
    return TrialImages(
        labels, "test images as their source has them", lambda number: of_row(originals, rows[number], layout)
    )


def require_alike(prepared: Layout, layout: Layout) -> None:
    """Raise StateError if prepared images are not what a classifier takes."""
    if (prepared.image_size, prepared.resize) != (layout.image_size, layout.resize):
        raise StateError(
            f"data/prepared: has images of {prepared.image_size} px ({prepared.resize}), and the classifier takes "
            f"{layout.image_size} px ({layout.resize}); run `dvc repro`, or export with --no-check"
        )


def of_row(originals: Originals, row: int, layout: Layout) -> TrialImage:
    """The image of a row of a split."""
    found = originals.read(int(row), layout.image_size, layout.grey_range)
    is_reduced = found.image.size != found.size
    whole = originals.read(int(row), None, layout.grey_range).image if is_reduced else None
    return of_image(found.image, originals.coded(int(row)), layout, whole)


def of_image(image: Image.Image, coded: bytes, layout: Layout, whole: Image.Image | None = None) -> TrialImage:
    """A sample of an image that was decoded as `predict` decodes it."""
    prepared = images.fit(image, layout.image_size, cast("Resize", layout.resize))
    return TrialImage(np.asarray(image), np.asarray(prepared), coded, None if whole is None else np.asarray(whole))


def _prepared(test: Shards, row: int) -> TrialImage:
    (pixels,) = test.take(np.array([row]))
    return TrialImage(pixels, pixels, reading.as_png(Image.fromarray(pixels)))
