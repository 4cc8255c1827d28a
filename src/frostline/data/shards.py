"""Decoded images as fixed-size `.npy` shards with a Parquet index: decoded once, then memory-mapped.

folder/
├── images-00000.npy ...   uint8 (rows, size, size, 3); every shard but the last holds the same number of rows
├── index.parquet          one row per image: path, label (class number), sha256 (of the original, see `reading`),
│                          together (a name for near-copies and images of one group, empty for an image alone),
│                          digest (of the pixels in the shard)
└── meta.json              classes, image_size, resize, grey_range (if there is one), rows_per_shard, digest; CRC-32
                           of each file, and of all this

Each process compares every file with its checksum once, before it uses the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from frostline.core import checksum, digest
from frostline.core.mapped import Memory, Pieces
from frostline.data import deep_grey
from frostline.data.deep_grey import GreyRange
from frostline.data.images import Pixels
from frostline.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

INDEX = "index.parquet"
SHARD_BYTES = 64 * 2**20
PIECE = 4096  # rows of the index that are written at a time
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

    @cached_property
    def index(self) -> pd.DataFrame:
        """One row per image, in the order of the shards: path, label (int), sha256, together, digest.

        Raises DataError if the file is damaged.
        """
        import pandas as pd

        self._require_sound(INDEX)
        return pd.read_parquet(self.folder / INDEX)

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Class numbers, int64 (n,)."""
        return self.index["label"].to_numpy(np.int64)

    @cached_property
    def identities(self) -> NDArray[np.bytes_]:
        """An identity of each image that depends only on its pixels: 32 hex digits of its digest, `S32` (n,)."""
        return self.index["digest"].str.slice(stop=32).to_numpy("S32")

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
        arrays = _LazyArrays([partial(self._shard, name) for name in names])
        shard, row = np.divmod(np.arange(len(self)), self.rows_per_shard)
        side = self.layout.image_size
        return Pieces(arrays, shard, row, (side, side, 3), np.dtype(np.uint8), self.memory)

    def __len__(self) -> int:
        return len(self.index)

    def take(self, rows: NDArray[np.int64]) -> Pixels:
        """Copy the given rows, in their order: uint8 (len(rows), size, size, 3)."""
        return self.pieces.take(rows)

    def _shard(self, name: str) -> Pixels:
        self._require_sound(name)
        return self.memory.load(self.folder / name)

    def _require_sound(self, name: str) -> None:
        path = self.folder / name
        try:
            reason = None if checksum.of_file(path) == self.checksums[name] else "its checksum differs"
        except OSError as error:
            reason = str(error.strerror)
        if reason:
            raise DataError(f"{path}: is damaged ({reason}); remove {self.folder}, then run `dvc repro`")

    def source_digest(self) -> str:
        """Digest of the original images and their class names. It does not depend on order, size or resizing.

        Two test sets with the same digest hold the same images, even if they were prepared in different ways.
        """
        names = np.asarray(self.layout.classes, object)[self.labels]
        return digest.of_value(sorted(zip(self.index["sha256"], names, strict=True)))


class _LazyArrays(Sequence[Pixels]):
    """Arrays that are opened when they are first used."""

    def __init__(self, openers: Sequence[Callable[[], Pixels]]) -> None:
        self._openers, self._arrays = openers, dict[int, Pixels]()

    def __len__(self) -> int:
        return len(self._openers)

    def __getitem__(self, number: Any) -> Any:
        if number not in self._arrays:
            self._arrays[number] = self._openers[number]()
        return self._arrays[number]


def write(
    folder: Path,
    layout: Layout,
    index: pd.DataFrame,
    images: Iterable[Pixels],
    pixel_digests: Sequence[str] | None = None,
) -> Shards:
    """Write images, one at a time, into an existing empty folder.

    index: columns path, label, sha256 and perhaps together, one row per image. pixel_digests: the digests of the
    images (hex SHA-256 of their bytes), None to compute them. Raises ValueError if the numbers of images and rows
    differ, or if an image is not uint8 (size, size, 3).
    """
    size = layout.image_size
    per_shard = max(1, SHARD_BYTES // (size * size * 3))
    digests = list(pixel_digests) if pixel_digests is not None else []
    checksums: dict[str, str] = {}
    stream = iter(images)
    for number, start in enumerate(range(0, len(index), per_shard)):
        rows = min(per_shard, len(index) - start)
        name = f"images-{number:05d}.npy"
        with (folder / name).open("wb") as raw_file:
            file = checksum.Summed(raw_file)
            header = {"descr": "|u1", "fortran_order": False, "shape": (rows, size, size, 3)}
            np.lib.format.write_array_header_1_0(file, header)
            for image in _exactly(rows, stream):
                if image.dtype != np.uint8 or image.shape != (size, size, 3):
                    raise ValueError(f"an image is {image.dtype} {image.shape}, not uint8 ({size}, {size}, 3)")
                if pixel_digests is None:
                    digests.append(hashlib.sha256(np.ascontiguousarray(image).data).hexdigest())
                file.write(np.ascontiguousarray(image).data)
        checksums[name] = file.sum
    if next(stream, None) is not None:
        raise ValueError(f"more images than the {len(index)} rows of the index")
    sets = index.get("together", "")
    index = index[["path", "label", "sha256"]].assign(together=sets, digest=np.array(digests, object))
    _save(index, folder / INDEX)
    checksums[INDEX] = checksum.of_file(folder / INDEX)
    meta: dict[str, Any] = {
        **layout.recorded(),
        "rows_per_shard": per_shard,
        "digest": digest.of_value([layout.classes, size, index["label"].tolist(), digests]),
        "checksums": checksums,
    }
    meta["checksum"] = _checksum(meta)
    (folder / "meta.json").write_text(json.dumps(meta, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    shards = open_folder(folder)
    vars(shards)["index"] = index  # cached, so that it need not be read
    return shards


def _checksum(meta: dict[str, Any]) -> str:
    return checksum.of([json.dumps(meta, sort_keys=True).encode()])


def _save(index: pd.DataFrame, path: Path) -> None:
    """Write an index in pieces, so that memory holds it only once."""
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.Schema.from_pandas(index.head(1), preserve_index=False)
    with parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, len(index), PIECE):
            writer.write_table(pa.Table.from_pandas(index.iloc[start : start + PIECE], schema, preserve_index=False))


def open_folder(folder: Path, memory: Memory | None = None) -> Shards:
    """Open a folder of shards. memory: limits how much of it is in memory. Raises DataError if it has no shards."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        if meta.pop("checksum") != _checksum(meta):
            raise ValueError("meta.json is damaged: its checksum differs")
        layout = Layout.of(meta)
        return Shards(
            folder, layout, meta["rows_per_shard"], meta["digest"], meta["checksums"], memory or Memory(RESIDENT)
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{folder}: holds no prepared images ({error}); run `dvc repro`") from error


def _exactly(count: int, stream: Iterator[Pixels]) -> Iterator[Pixels]:
    for _ in range(count):
        try:
            yield next(stream)
        except StopIteration:
            raise ValueError("fewer images than rows of the index") from None
