"""One image of a source: its pixels, and the digest by which it is known wherever it lies, whatever its name."""

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

    image: upright, of mode RGB, a JPEG maybe at a fraction of its size; size: the original's width and height;
    sha256: of a JPEG's coded image, of any other the digest of its pixels; is_coded: whether it is the former.
    """

    image: Image.Image
    size: tuple[int, int]
    sha256: bytes
    is_coded: bool

    @classmethod
    def of_pixels(cls, image: Image.Image) -> ReadImage:
        """An image that is known by its pixels."""
        return cls(image, image.size, pixel_digest(image), False)


class SourceReader(Protocol):
    """Gives the images of a source. It travels to worker processes, so it is small and holds no open file."""

    def read(self, path: str, least: int | None) -> ReadImage:
        """The image of that path. least: as `images.load` says. Raises images.UnreadableImageError."""
        ...


@dataclass(frozen=True)
class FileReader:
    """Image files; their paths are relative to a folder, or absolute."""

    root: Path

    def read(self, path: str, least: int | None) -> ReadImage:
        """As `Reader` says; whatever is not a regular file is not touched."""
        data = images.read_file(os.path.join(self.root, path))  # noqa: PTH118  a million times, and faster
        loaded = images.load(data, least)
        coded = images.jpeg_digest(data, loaded.orientation)
        return ReadImage(loaded.image, loaded.size, coded or pixel_digest(loaded.image), coded is not None)


def pixel_digest(image: Image.Image) -> bytes:
    """SHA-256 of an image's shape and pixels, 32 bytes."""
    pixels = np.asarray(image)
    sha = hashlib.sha256(repr(pixels.shape).encode())
    sha.update(pixels.data)
    return sha.digest()
