"""Images in a request: encoded bytes, base64 of them, the name of a file, or pixels.

This file is copied into every registered model (see packaging.py), so it imports only data/images.py.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ..data import images  # relative: inside a registered model the package has another name
from ..data.deep_grey import GreyRange
from ..data.images import Pixels

COLUMNS = ("image", "path", "pixels")
MEGAPIXELS = 50.0  # of one image in a request, at most; the largest photos of phones have that many
ROWS = 1000  # of one request to `frostline serve`, at most

# Environment variables with the limits of a registered model, for every server that loads it.
ALLOW_PATHS = "FROSTLINE_ALLOW_PATHS"
MAX_MEGAPIXELS = "FROSTLINE_MAX_MEGAPIXELS"
PATHS_REFUSED = (
    "files of this machine are not read; send the column image, or allow it with `frostline serve --allow-paths` "
    f"(a registered model: with the environment variable {ALLOW_PATHS}=1)"
)

BASE64 = re.compile(rb"[A-Za-z0-9+/]+=*")  # base64 text as bytes; no encoded image matches it
SPACE = {ord(sign): None for sign in " \t\r\n"}


class UnusableInputError(Exception):
    """An input is not an image; the text says which row, and why."""


@dataclass(frozen=True)
class Limits:
    """The limits of a table. pixels: of one image, width times height; rows: of one table, None for any number; paths:
    whether files of this machine may be read."""

    pixels: int = images.MAX_PIXELS
    rows: int | None = None
    paths: bool = False

    def require(self, column: str, rows: int) -> None:
        """Raise UnusableInputError if a table with this column and number of rows is not allowed."""
        if column == "path" and not self.paths:
            raise UnusableInputError(PATHS_REFUSED)
        if self.rows is not None and rows > self.rows:
            raise UnusableInputError(f"the request has {rows:,} rows; send at most {self.rows:,} in one request")


def environment_limits() -> Limits:
    """The limits of a registered model by the environment variables. Raises ValueError, which names the variable."""
    megapixels = os.environ.get(MAX_MEGAPIXELS, "").strip()
    allow_paths = os.environ.get(ALLOW_PATHS, "").strip().lower() in {"1", "true", "yes", "on"}
    try:
        return Limits(pixels_of(float(megapixels or MEGAPIXELS)), None, allow_paths)
    except ValueError:
        raise ValueError(f"{MAX_MEGAPIXELS} is {megapixels!r}; give a number above 0 and up to {HIGHEST}") from None


HIGHEST = images.MAX_PIXELS // 10**6  # megapixels; Pillow reads no larger images


def pixels_of(megapixels: float) -> int:
    """The limit in pixels, at least 1. Raises ValueError if it is out of range."""
    if not 0 < megapixels <= HIGHEST:
        raise ValueError(f"{megapixels:g} megapixels; give a number above 0 and up to {HIGHEST}")
    return max(1, round(megapixels * 1e6))


def column_of(names: Iterable[Any]) -> str:
    """The one of COLUMNS that a table has; other columns are ignored. Raises UnusableInputError."""
    counts = Counter(map(str, names))
    columns = [name for name in COLUMNS for _ in range(counts[name])]
    if len(columns) != 1:
        first = ", ".join(each[:40] for each in list(counts.elements())[:10])
        more = ", ..." if counts.total() > 10 else ""
        raise UnusableInputError(
            f"the columns are {first or 'missing'}{more}; give exactly one of {', '.join(COLUMNS)}, once"
        )
    return columns[0]


@dataclass(frozen=True)
class CellReader:
    """Prepares images for a network: uint8 (size, size, 3). pixels: of one image, at most."""

    size: int
    resize: images.Resize
    grey_range: GreyRange
    pixels: int

    def decode(self, source: Path | bytes) -> Pixels:
        """Decode and resize the bytes of an image, or a regular file. Raises images.UnreadableImageError."""
        return images.prepare(source, self.size, self.resize, self.pixels, self.grey_range)

    def cell(self, column: str, value: Any, row: int) -> Pixels:
        """The image in a cell of a table: `image` has encoded bytes or base64 of them, `path` the name of a file,
        `pixels` uint8 (height, width, 3). Raises UnusableInputError, which names the row."""
        try:
            if column == "image":
                return self.decode(encoded_bytes(value))
            if column == "path":
                if not isinstance(value, str):
                    raise UnusableInputError(f"is {type(value).__name__}, not the name of a file")
                return self.decode(Path(value))
            return images.resize(array(value, self.pixels), self.size, self.resize)
        except (UnusableInputError, images.UnreadableImageError) as reason:
            raise UnusableInputError(f"row {row}, {column}: {reason}") from None


def encoded_bytes(value: Any) -> bytes:
    """The bytes of an image, from bytes or base64. Raises UnusableInputError."""
    if not isinstance(value, bytes | str):
        raise UnusableInputError(f"is {type(value).__name__}, not the bytes of an image")
    # MLflow decodes base64 in some forms of JSON; in others it passes on the text, as str or as bytes.
    if isinstance(value, str) or BASE64.fullmatch(value):
        try:
            return base64.b64decode(value.translate(SPACE) if isinstance(value, str) else value, validate=True)
        except (binascii.Error, ValueError):
            if isinstance(value, str):
                raise UnusableInputError("is not base64") from None
    return value


def array(value: Any, most: int) -> Pixels:
    """Pixels as uint8 (height, width, 3), from an array or nested lists of integers. Raises UnusableInputError.

    most: pixels, height times width; checked before anything is copied. NumPy must not convert the lists, because it
    would choose a type that fits all elements: one long text would need its length for every number.
    """
    if isinstance(value, np.ndarray) and value.dtype != object:
        if value.dtype.kind not in "iu":
            raise UnusableInputError("holds other numbers than integers from 0 to 255")
        _require_shape(value.shape, most)
        if value.dtype != np.uint8 and (value.min() < 0 or value.max() > 255):
            raise UnusableInputError("holds other numbers than integers from 0 to 255")
        return np.ascontiguousarray(value.astype(np.uint8, copy=False))
    height, width, channels = _require_shape(_shape(value), most)
    if any(not _is_list(row) or len(row) != width for row in value) or any(
        not _is_list(pixel) or len(pixel) != channels for row in value for pixel in row
    ):
        raise UnusableInputError("is no array: its rows differ in length")
    try:
        data = bytes(chain.from_iterable(chain.from_iterable(value)))
    except (TypeError, ValueError):  # not integers, or not in the range of a byte
        raise UnusableInputError("holds other numbers than integers from 0 to 255") from None
    return np.frombuffer(data, np.uint8).reshape(height, width, channels)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple | np.ndarray) and not (isinstance(value, np.ndarray) and value.ndim == 0)


def _shape(value: Any) -> tuple[int, ...]:
    """The shape of nested lists, by the first element of each list; at most four levels."""
    shape: list[int] = []
    while _is_list(value) and len(shape) < 4:
        shape.append(len(value))
        if not len(value):
            break
        value = value[0]
    return tuple(shape)


def _require_shape(shape: tuple[int, ...], most: int) -> tuple[int, int, int]:
    """Raise UnusableInputError if this is not the shape of an image, or if the image has too many pixels."""
    if len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise UnusableInputError(f"has shape {shape}, not (height, width, 3)")
    height, width, channels = shape
    if height * width > most:
        raise UnusableInputError(str(images.too_many(width, height, most)))
    return height, width, channels
