"""Read one image of a source: its pixels, and a digest that does not depend on its path or name."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from frostline.data import deep_grey, images
from frostline.data.deep_grey import GreyRange, Tones


class ReadImage(NamedTuple):
    """An image that was read.

    image: upright, of mode RGB, a JPEG possibly at a fraction of its size; size: the width and height of the original;
    sha256: of the coded image if it is a JPEG, otherwise of the pixels at their own depth; is_coded: whether sha256 is
    that of the coded image; tones: of a grey image with more than 8 bits; has_deep_colour: whether it has 16 bits a
    colour, of which the lower 8 are lost.
    """

    image: Image.Image
    size: tuple[int, int]
    sha256: bytes
    is_coded: bool
    tones: Tones | None = None
    has_deep_colour: bool = False

    @classmethod
    def of_pixels(cls, image: Image.Image) -> ReadImage:
        """An image whose sha256 is that of its pixels."""
        return cls(image, image.size, pixel_digest(np.asarray(image)), False)


class SourceReader(Protocol):
    """Reads the images of a source. It is sent to worker processes, so it is small and holds no open file."""

    def read(self, path: str, least: int | None, grey_range: GreyRange = None) -> ReadImage:
        """Read the image with that path. least, grey_range: see `images.load`. Raises images.UnreadableImageError."""
        ...

    def coded(self, path: str) -> bytes:
        """The bytes of its file, or of a PNG if it has none. Raises images.UnreadableImageError."""
        ...


@dataclass(frozen=True)
class FileReader:
    """Reads image files. Their paths are relative to a folder, or absolute."""

    root: Path

    def read(self, path: str, least: int | None, grey_range: GreyRange = None) -> ReadImage:
        """See `SourceReader.read`. A path that is not a regular file is not opened."""
        return of_bytes(self.coded(path), least, grey_range)

    def coded(self, path: str) -> bytes:
        """See `SourceReader.coded`."""
        return images.read_file(os.path.join(self.root, path))  # noqa: PTH118  faster, and called a million times


def as_png(image: Image.Image) -> bytes:
    """The bytes of a PNG file."""
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def of_bytes(data: bytes, least: int | None, grey_range: GreyRange) -> ReadImage:
    """Read an image from the bytes of its file. See `SourceReader.read`."""
    loaded = images.load(data, least, grey_range=grey_range)
    if loaded.deep is not None:
        tones = deep_grey.tones(loaded.deep, loaded.is_windowed)
        return ReadImage(loaded.image, loaded.size, pixel_digest(loaded.deep), False, tones)
    coded = jpeg_digest(data, loaded.orientation)
    sha256 = coded or pixel_digest(np.asarray(loaded.image))
    return ReadImage(loaded.image, loaded.size, sha256, coded is not None, None, loaded.has_deep_colour)


def pixel_digest(pixels: NDArray[Any]) -> bytes:
    """SHA-256 of an image's shape and pixels, 32 bytes."""
    sha = hashlib.sha256(repr(pixels.shape).encode())
    sha.update(np.ascontiguousarray(pixels).data)
    return sha.digest()


def jpeg_digest(data: bytes, orientation: int) -> bytes | None:
    """SHA-256 of the parts of a JPEG that its pixels depend on: the orientation, and all segments except metadata.

    So adding a comment or a date does not change it. None if the file is not a JPEG. Source of the format: ITU-T T.81,
    annex B.
    """
    if data[:3] != b"\xff\xd8\xff":
        return None
    sha = hashlib.sha256(b"JPEG" + bytes([orientation]))
    place = 2
    while data[place : place + 1] == b"\xff" and (marker := data[place + 1 : place + 2]) not in (b"", b"\xda"):
        if marker == b"\xff":  # a fill byte
            place += 1
            continue
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        # Skip application data and comments, except Adobe's segment, which says how colours are coded.
        if not (0xE0 <= marker[0] <= 0xEF or marker == b"\xfe") or marker == b"\xee":
            sha.update(data[place:end])
        place = end
    sha.update(data[place:])
    return sha.digest()
