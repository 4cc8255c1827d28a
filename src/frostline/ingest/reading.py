"""Read one image of a source: its pixels, and a digest that does not depend on its path or name."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

from frostline.data import images


class ReadImage(NamedTuple):
    """An image that was read.

    image: upright, of mode RGB, a JPEG possibly at a fraction of its size; size: the width and height of the original;
    sha256: of the coded image if it is a JPEG, otherwise of the pixels; is_coded: whether sha256 is that of the coded
    image.
    """

    image: Image.Image
    size: tuple[int, int]
    sha256: bytes
    is_coded: bool

    @classmethod
    def of_pixels(cls, image: Image.Image) -> ReadImage:
        """An image whose sha256 is that of its pixels."""
        return cls(image, image.size, pixel_digest(image), False)


class SourceReader(Protocol):
    """Reads the images of a source. It is sent to worker processes, so it is small and holds no open file."""

    def read(self, path: str, least: int | None) -> ReadImage:
        """Read the image with that path. least: see `images.load`. Raises images.UnreadableImageError."""
        ...


@dataclass(frozen=True)
class FileReader:
    """Reads image files. Their paths are relative to a folder, or absolute."""

    root: Path

    def read(self, path: str, least: int | None) -> ReadImage:
        """See `SourceReader.read`. A path that is not a regular file is not opened."""
        data = images.read_file(os.path.join(self.root, path))  # noqa: PTH118  faster, and called a million times
        loaded = images.load(data, least)
        coded = images.jpeg_digest(data, loaded.orientation)
        return ReadImage(loaded.image, loaded.size, coded or pixel_digest(loaded.image), coded is not None)


def pixel_digest(image: Image.Image) -> bytes:
    """SHA-256 of an image's shape and pixels, 32 bytes."""
    pixels = np.asarray(image)
    sha = hashlib.sha256(repr(pixels.shape).encode())
    sha.update(pixels.data)
    return sha.digest()
