"""Prepared images as they lie in a shard: raw pixels, or each coded on its own as JPEG or WebP.

A coded shard is smaller and costs the reader the time to decode it. `webp_lossless` keeps every pixel. `jpeg` and
`webp` change pixels a little, once, when they are written: every reader gets the changed pixels, and digests are of
those.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from frostline.core import machine
from frostline.data.images import Pixels

RAW = "raw"

# Name -> Pillow's options. benchmarks/results/coded_shards.md has the bytes and the speed of each.
CODECS: Mapping[str, Mapping[str, Any]] = {
    "jpeg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    "webp": {"format": "WEBP", "quality": 90, "method": 0},
    "webp_lossless": {"format": "WEBP", "lossless": True, "quality": 0, "method": 0},
}
FEW = 8  # up to that many images are decoded in the thread that asks for them
AT_ONCE = 256  # images that are coded between two writes


@cache
def threads() -> ThreadPoolExecutor:
    """The threads that code and decode, one a core: Pillow's decoders release the interpreter lock."""
    return ThreadPoolExecutor(machine.cores(), "images")


def coder(codec: str, size: int) -> Callable[[Pixels], tuple[bytes, Pixels]]:
    """A function from an image, uint8 (size, size, 3), to its bytes in a shard and the pixels that a reader gets."""

    def code(image: Pixels) -> tuple[bytes, Pixels]:
        file = io.BytesIO()
        Image.fromarray(image).save(file, **CODECS[codec])
        data = file.getvalue()
        return data, decode(codec, size, data)

    return code


def coded(codec: str, size: int, images: Iterable[Pixels]) -> Iterator[tuple[bytes, Pixels]]:
    """What `coder` gives for each image, in order, by all threads."""
    stream = iter(images)
    while part := list(islice(stream, AT_ONCE)):
        yield from threads().map(coder(codec, size), part)


def decode(codec: str, size: int, data: bytes) -> Pixels:
    """The pixels of a coded image, uint8 (size, size, 3). Raises ValueError if it is not such an image."""
    with Image.open(io.BytesIO(data), formats=[CODECS[codec]["format"]]) as image:
        pixels = np.asarray(image.convert("RGB"))
    if pixels.shape != (size, size, 3):
        raise ValueError(f"a coded image is {pixels.shape}, not ({size}, {size}, 3)")
    return pixels


@dataclass(frozen=True)
class CodedImages:
    """The images of one coded shard, decoded when they are read.

    data: uint8, the coded images one after another; ends: int64 (n,), where each of them ends; codec: a key of CODECS;
    size: side in pixels.
    """

    data: NDArray[np.uint8]
    ends: NDArray[np.int64]
    codec: str
    size: int

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, rows: NDArray[np.int64]) -> Pixels:
        """Decode the given rows, in their order: uint8 (len(rows), size, size, 3)."""
        out = np.empty((len(rows), self.size, self.size, 3), np.uint8)

        def put(place: int) -> None:
            row = rows[place]
            start = self.ends[row - 1] if row else 0
            out[place] = decode(self.codec, self.size, self.data[start : self.ends[row]].tobytes())

        places = range(len(rows))
        for _ in map(put, places) if len(rows) <= FEW else threads().map(put, places):
            pass
        return out
