"""Prepared images as fixed-size `.npy` shards with a Parquet index: decoded once, then memory-mapped.

folder/
├── images-00000.npy ...   uint8 (rows, size, size, 3); every shard but the last holds the same number of rows.
│                          With a codec `images-00000.jpeg` or so: the coded images, one after another
├── index.parquet          one row per image: path, label (class number), sha256 (of the original, see `reading`),
│                          together (a name for near-copies and images of one group, empty for an image alone),
│                          digest (of the pixels that a reader gets), with a codec coded_bytes (length in the shard)
└── meta.json              classes, image_size, resize, grey_range and codec (if there is one), rows_per_shard, digest;
                           CRC-32 of each file, and of all this

Each process compares every file with its checksum once, before it uses the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from frostline.core import checksum, digest
from frostline.core.mapped import Memory, Pieces
from frostline.data import codecs, deep_grey, shard_index
from frostline.data.codecs import CodedImages
from frostline.data.deep_grey import GreyRange
from frostline.data.images import Pixels
from frostline.data.shard_index import Index
from frostline.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

INDEX = "index.parquet"
SHARD_BYTES = 64 * 2**20  # of the pixels of a shard
RESIDENT = 4 * SHARD_BYTES  # images in memory, for a stage without its own limit


class Rows(Protocol):
    """An array-like of images or of their features, from which training draws its batches."""

    def __len__(self) -> int: ...

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Copy the given rows, in their order: shape (len(rows), ...)."""
        ...


@dataclass(frozen=True)
class Layout:
    """The properties of a data set: class names in label order, side of the images in pixels, way of resizing, and the
    values that are black and white in grey images with more than 8 bits, None if there are none."""

    classes: tuple[str, ...]
    image_size: int
    resize: str
    grey_range: GreyRange = None

    def recorded(self) -> dict[str, Any]:
        """The values for meta.json and bundle.json, without `grey_range` if it is None."""
        values = {"classes": list(self.classes), "image_size": self.image_size, "resize": self.resize}
        return values if self.grey_range is None else {**values, "grey_range": self.grey_range}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Layout:
        """The inverse of `recorded`. Raises KeyError if a value is missing."""
        grey_range = deep_grey.recorded(values.get("grey_range"))
        return cls(tuple(values["classes"]), values["image_size"], values["resize"], grey_range)


@dataclass(frozen=True)
class Shards:
    """A folder of shards, opened for reading. It is array-like: uint8 (n, size, size, 3)."""

    folder: Path
    layout: Layout
    rows_per_shard: int
    digest: str
    checksums: Mapping[str, str]
    memory: Memory
    codec: str = codecs.RAW

    @cached_property
    def index(self) -> Index:
        """One row per image, in the order of the shards: path, label (int), sha256, together, digest.

        Each column is loaded anew when it is asked for. Raises DataError if the file is damaged.
        """
        self._require_sound(INDEX)
        return Index(self.folder / INDEX)

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Class numbers, int64 (n,)."""
        return self.index["label"].to_numpy(np.int64)

    @cached_property
    def identities(self) -> NDArray[np.bytes_]:
        """An identity of each image that depends only on its pixels: 32 hex digits of its digest, `S32` (n,)."""
        return self.index.fixed("digest", 32)

    @cached_property
    def together(self) -> pd.Series:
        """The name of each image's set of near-copies or images of one group, empty for an image alone.

        Raises DataError if the folder is from a version that did not note it: nobody knows then who is alone.
        """
        if "together" not in self.index:
            raise DataError(f"{self.folder}: an older frostline prepared it, without its near-copies; run `dvc repro`")
        return self.index["together"]

    @cached_property
    def pieces(self) -> Pieces:
        """The memory-mapped shards. Reading a damaged one raises DataError."""
        names = sorted(name for name in self.checksums if name != INDEX)
        open_shard = self._shard if self.codec == codecs.RAW else self._coded_shard
        arrays = _LazyArrays([partial(open_shard, name, number) for number, name in enumerate(names)])
        shard, row = np.divmod(np.arange(len(self)), self.rows_per_shard)
        side = self.layout.image_size
        return Pieces(arrays, shard, row, (side, side, 3), np.dtype(np.uint8), self.memory)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64]) -> Pixels:
        """Copy the given rows, in their order: uint8 (len(rows), size, size, 3)."""
        return self.pieces.take(rows)

    def _shard(self, name: str, _: int) -> Pixels:
        self._require_sound(name)
        return self.memory.load(self.folder / name)

    def _coded_shard(self, name: str, number: int) -> CodedImages:
        self._require_sound(name)
        ends = self._coded_bytes[number * self.rows_per_shard : (number + 1) * self.rows_per_shard].cumsum()
        data = self.memory.map(self.folder / name, np.uint8, (int(ends[-1]),), 0)
        return CodedImages(data, ends, self.codec, self.layout.image_size)

    @cached_property
    def _coded_bytes(self) -> NDArray[np.int64]:
        return self.index["coded_bytes"].to_numpy(np.int64)

    def _require_sound(self, name: str) -> None:
        path = self.folder / name
        try:
            reason = None if checksum.of_file(path) == self.checksums[name] else "its checksum differs"
        except OSError as error:
            reason = str(error.strerror)
        if reason:
            raise DataError(f"{path}: is damaged ({reason}); remove {self.folder}, then run `dvc repro`")

    def source_digest(self) -> str:
        """Digest of the original images and their class names, whatever their order, size and way of resizing."""
        names = self.layout.classes
        rank = np.argsort(sorted(range(len(names)), key=names.__getitem__))
        digests = self.index.fixed("sha256", 64)
        order = np.lexsort((rank[self.labels], digests))
        return digest.of_value((digests[row].decode(), names[self.labels[row]]) for row in order)


class _LazyArrays(Sequence[Any]):
    """Arrays, or `CodedImages`, that are opened when they are first used."""

    def __init__(self, openers: Sequence[Callable[[], Any]]) -> None:
        self._openers, self._arrays = openers, dict[int, Any]()

    def __len__(self) -> int:
        return len(self._openers)

    def __getitem__(self, number: Any) -> Any:
        if number not in self._arrays:
            self._arrays[number] = self._openers[number]()
        return self._arrays[number]


def write(
    folder: Path,
    layout: Layout,
    index: pd.DataFrame | Index,
    images: Iterable[Pixels],
    pixel_digests: Iterable[bytes] | None = None,
    codec: str = codecs.RAW,
) -> Shards:
    """Write images, one at a time, into an existing empty folder.

    index: columns path, label, sha256 and perhaps together, one row per image. pixel_digests: the digests of the
    images (SHA-256 of their bytes), None to compute them; they are not used with a codec. codec: how images are stored,
    `raw` or a key of `codecs.CODECS`. Raises ValueError if the numbers of images and rows differ, or if an image is not
    uint8 (size, size, 3).
    """
    size, count = layout.image_size, len(index)
    per_shard = max(1, SHARD_BYTES // (size * size * 3))
    digests, lengths = np.empty((count, 32), np.uint8), np.empty(count, np.int32)
    checksums: dict[str, str] = {}
    stream = _stored(_checked(images, size), size, pixel_digests, codec)
    for number, start in enumerate(range(0, count, per_shard)):
        rows = range(start, min(start + per_shard, count))
        name = f"images-{number:05d}.{'npy' if codec == codecs.RAW else codec}"
        with (folder / name).open("wb") as raw_file:
            file = checksum.Summed(raw_file)
            if codec == codecs.RAW:
                header = {"descr": "|u1", "fortran_order": False, "shape": (len(rows), size, size, 3)}
                np.lib.format.write_array_header_1_0(file, header)
            for row, (data, pixel_digest) in zip(rows, _exactly(len(rows), stream), strict=True):
                lengths[row] = file.write(data)
                digests[row] = np.frombuffer(pixel_digest, np.uint8)
        checksums[name] = file.sum
    if next(stream, None) is not None:
        raise ValueError(f"more images than the {count} rows of the index")
    _save(folder / INDEX, index, digests, None if codec == codecs.RAW else lengths)
    checksums[INDEX] = checksum.of_file(folder / INDEX)
    value = [layout.classes, size, map(int, index["label"]), map(_hex, digests)]
    meta: dict[str, Any] = {
        **layout.recorded(),
        **({} if codec == codecs.RAW else {"codec": codec}),
        "rows_per_shard": per_shard,
        "digest": digest.of_value(value),
        "checksums": checksums,
    }
    meta["checksum"] = _checksum(meta)
    (folder / "meta.json").write_text(json.dumps(meta, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return open_folder(folder)


def _checked(images: Iterable[Pixels], size: int) -> Iterator[Pixels]:
    for image in images:
        if image.dtype != np.uint8 or image.shape != (size, size, 3):
            raise ValueError(f"an image is {image.dtype} {image.shape}, not uint8 ({size}, {size}, 3)")
        yield np.ascontiguousarray(image)


def _stored(
    images: Iterable[Pixels], size: int, digests: Iterable[bytes] | None, codec: str
) -> Iterator[tuple[Any, bytes]]:
    """What is written of each image, and the digest of the pixels that a reader gets."""
    if codec != codecs.RAW:
        for data, pixels in codecs.coded(codec, size, images):
            yield data, hashlib.sha256(pixels.data).digest()
    elif digests is not None:
        yield from zip((image.data for image in images), digests, strict=True)
    else:
        for image in images:
            yield image.data, hashlib.sha256(image.data).digest()


def _save(
    path: Path, index: pd.DataFrame | Index, digests: NDArray[np.uint8], lengths: NDArray[np.int32] | None
) -> None:
    """Write the index. digests: uint8 (n, 32); lengths: bytes of each coded image."""
    columns = {name: index[name].iloc.__getitem__ for name in ("path", "label", "sha256")}
    sets = index["together"].iloc if "together" in index else [""] * len(index)
    columns["together"] = sets.__getitem__
    columns["digest"] = lambda part: [_hex(each) for each in digests[part]]
    if lengths is not None:
        columns["coded_bytes"] = lengths.__getitem__
    shard_index.write(path, columns, len(index))


def _hex(pixel_digest: NDArray[np.uint8]) -> str:
    return pixel_digest.tobytes().hex()


def _checksum(meta: dict[str, Any]) -> str:
    return checksum.of([json.dumps(meta, sort_keys=True).encode()])


def open_folder(folder: Path, memory: Memory | None = None) -> Shards:
    """Open a folder of shards. memory: limits how much of it is in memory. Raises DataError if it has no shards."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        if meta.pop("checksum") != _checksum(meta):
            raise ValueError("meta.json is damaged: its checksum differs")
        codec = meta.get("codec", codecs.RAW)
        if codec != codecs.RAW and codec not in codecs.CODECS:
            raise ValueError(f"the codec {codec!r} is unknown to this version")
        facts = meta["rows_per_shard"], meta["digest"], meta["checksums"]
        return Shards(folder, Layout.of(meta), *facts, memory or Memory(RESIDENT), codec)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{folder}: holds no prepared images ({error}); run `dvc repro`") from error


@cache
def open_once(folder: Path) -> Shards:
    """The same, opened once in a process that works on parts of it: each file is compared with its checksum once."""
    return open_folder(folder)


def _exactly(count: int, stream: Iterator[Any]) -> Iterator[Any]:
    for _ in range(count):
        try:
            yield next(stream)
        except StopIteration:
            raise ValueError("fewer images than rows of the index") from None
