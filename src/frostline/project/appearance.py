"""What images look like, from a few of them: how large they are, and whether they are photos or drawings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from frostline.data import images
from frostline.ingest.sources import Source

SAMPLE = 32  # images that are opened
SIDE = 256  # pixels, of the middle of an image that is looked at

# The share of neighbours of exactly the same grey from which on images are drawings. Median shares seen: photos of
# clothes 0.13, of hands 0.07; pen drawings as JPEG 0.60, cartoons 0.99.
FLAT = 0.5
TINY = 64  # up to this side, grey images are taken for letters and digits: in so few pixels nothing is flat


@dataclass(frozen=True)
class Appearance:
    """What was seen of a source.

    images, classes: how many; smallest: images of the class that has fewest; width, height: medians in pixels, 0 if no
    image could be read; are_drawings: whether they are drawings, letters or digits, and not photos.
    """

    images: int
    classes: int
    smallest: int
    width: int
    height: int
    are_drawings: bool

    @property
    def side(self) -> int:
        """The shorter side in pixels."""
        return min(self.width, self.height)

    @property
    def text(self) -> str:
        """All of it in one line."""
        kind = "drawings, letters or digits" if self.are_drawings else "photos"
        size = f"{self.width}x{self.height} pixels" if self.side else "none could be read"
        return f"{self.images:,} images of {self.classes} classes, at least {self.smallest:,} a class; {size}, {kind}"


def look(source: Source) -> Appearance:
    """Count the images of a source, and open SAMPLE of them, spread evenly. Broken ones are passed over."""
    table = source.table
    sizes, flats, colours = [], [], []
    for row in np.unique(np.linspace(0, len(table) - 1, min(SAMPLE, len(table))).astype(int)):
        try:
            image = source.reader.read(table["path"].iat[row], SIDE)
        except images.UnreadableImageError:
            continue
        pixels = _middle(np.asarray(image.image))
        sizes.append(image.size)
        flats.append(_flat(pixels))
        colours.append(float(np.ptp(pixels, axis=2).mean()))
    width, height = (int(side) for side in np.median(sizes, axis=0)) if sizes else (0, 0)
    is_small_and_grey = bool(sizes) and min(width, height) <= TINY and float(np.median(colours)) < 4
    are_drawings = is_small_and_grey or (bool(flats) and float(np.median(flats)) >= FLAT)
    counts = table["label"].value_counts()
    return Appearance(len(table), len(counts), int(counts.min()), width, height, are_drawings)


def _middle(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    top, left = (max(0, (side - SIDE) // 2) for side in pixels.shape[:2])
    return pixels[top : top + SIDE, left : left + SIDE]


def _flat(pixels: NDArray[np.uint8]) -> float:
    """The share of pixels whose right neighbour has exactly the same grey."""
    grey = pixels.astype(np.uint16).sum(axis=2)
    return float((grey[:, 1:] == grey[:, :-1]).mean()) if grey.shape[1] > 1 else 0.0
