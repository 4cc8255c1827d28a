"""The images of a source as it lists them, before any image is opened: a table in columns of a few bytes an image.

There may be millions of images, so no Python object is kept for one: paths and groups are Arrow text, labels and splits
are numbers of names.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from frostline.data.data_report import DataWarning, Problem
from frostline.ingest.splits import SPLITS

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

PIECE = 4096  # images whose texts are Python objects


class ListedImage(NamedTuple):
    """An image of a source. path: unique, relative to the source; split and group: None if the source names none.

    Images of one group (a patient, a product) all go to the same split.
    """

    path: str
    label: str
    split: str | None = None
    group: str | None = None


class ListedImages:
    """Listed images, in columns."""

    def __init__(self, images: Iterable[ListedImage] = ()) -> None:
        self._paths, self._groups = _Texts(), _Texts()
        self._labels, self._splits = array("i"), array("b")
        self._numbers: dict[str, int] = {}
        for image in images:
            self.append(image)

    def append(self, image: ListedImage) -> None:
        """Add an image."""
        self._paths.append(image.path)
        self._groups.append(image.group)
        self._labels.append(self._numbers.setdefault(image.label, len(self._numbers)))
        self._splits.append(-1 if image.split is None else SPLITS.index(image.split))

    def __len__(self) -> int:
        return len(self._labels)

    def __iter__(self) -> Iterator[ListedImage]:
        names = list(self._numbers)
        for path, group, label, split in zip(self._paths, self._groups, self._labels, self._splits, strict=True):
            yield ListedImage(path or "", names[label], None if split < 0 else SPLITS[split], group)

    def table(self) -> pd.DataFrame:
        """The images sorted by path: path and group (text), label and split (categories); missing ones are NaN."""
        import pyarrow as pa

        labels = pa.array(self._labels, pa.int32())
        splits = pa.array(self._splits, pa.int8())
        splits = pa.compute.if_else(pa.compute.less(splits, 0), None, splits)
        names = sorted(self._numbers)
        ranks = {self._numbers[name]: rank for rank, name in enumerate(names)}
        by_rank = pa.array([ranks[number] for number in range(len(ranks))], pa.int32()).take(labels)
        table = pa.table(
            {
                "path": self._paths.column(),
                "label": pa.DictionaryArray.from_arrays(by_rank, pa.array(names, pa.string())),
                "split": pa.DictionaryArray.from_arrays(splits, list(SPLITS)),
                "group": self._groups.column(),
            }
        )
        return table.take(pa.compute.sort_indices(table["path"])).combine_chunks().to_pandas(use_threads=False)


class _Texts:
    """A growing column of text."""

    def __init__(self) -> None:
        self._pieces: list[pa.Array] = []
        self._latest: list[str | None] = []

    def append(self, text: str | None) -> None:
        self._latest.append(text)
        if len(self._latest) == PIECE:
            self._pack()

    def __iter__(self) -> Iterator[str | None]:
        for piece in self._pieces:
            yield from piece.to_pylist()
        yield from self._latest

    def column(self) -> pa.ChunkedArray:
        import pyarrow as pa

        self._pack()
        return pa.chunked_array(self._pieces, pa.large_string())

    def _pack(self) -> None:
        import pyarrow as pa

        self._pieces.append(pa.array(self._latest, pa.large_string()))
        self._latest = []


@dataclass
class Listing:
    """The images of a source and its problems, before any image is opened."""

    rows: ListedImages = field(default_factory=ListedImages)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[DataWarning] = field(default_factory=list)

    def leave_out(self, path: str, label: str | None, kind: str, reason: str) -> None:
        """Note a file or folder that is not used as an image."""
        self.problems.append(Problem(readable(path), label, kind, reason))


def hexadecimal(digests: NDArray[np.uint8]) -> pd.Series:
    """Digests, uint8 (n, 32), as a column of hexadecimal text."""
    import pyarrow as pa

    count, width = digests.shape
    ends = np.arange(0, 2 * width * (count + 1), 2 * width)
    parts = (digests[start : start + PIECE].tobytes().hex().encode() for start in range(0, count, PIECE))
    buffers = pa.py_buffer(ends), pa.py_buffer(b"".join(parts))
    text = pa.LargeStringArray.from_buffers(count, *buffers)
    return pa.table({"sha256": text}).to_pandas(use_threads=False)["sha256"]


def readable(path: str) -> str:
    """A path that can be written in UTF-8: other bytes are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
