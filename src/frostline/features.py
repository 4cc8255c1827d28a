"""The store of frozen activations: what the prefix makes of each picture is computed once and kept.

Entries are content-addressed: the key is the digest of the pictures, of the prefix's architecture and weights, of the
cut, dtype, backend and Keras version. So an entry can't be stale, and deleting the folder is always safe.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
from numpy.typing import NDArray

from frostline import atomic, digest, progress
from frostline.errors import ParamsError
from frostline.shards import Shards

BATCH = 64


class Rows(Protocol):
    """An array-like of pictures or of their features: what training draws its batches from."""

    def __len__(self) -> int: ...

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Copy the given rows, in their order: shape (len(rows), ...)."""
        ...


@dataclass(frozen=True)
class Extractor:
    """A frozen prefix: pictures -> features, preprocessing included."""

    prefix: keras.Model

    @cached_property
    def key(self) -> str:
        """Digest of everything about the prefix that its output depends on: graph, weights, precision, engine."""
        return digest.of_value(
            {
                "graph": _without_names(json.loads(self.prefix.to_json())),
                "weights": [digest.of_array(np.asarray(weight)) for weight in self.prefix.weights],
                "policy": keras.config.dtype_policy().name,
                "keras": keras.__version__,
                "backend": keras.backend.backend(),
            }
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one picture's features."""
        return tuple(self.prefix.output.shape[1:])


@dataclass(frozen=True)
class Store:
    """A folder of entries, one file each. budget: bytes it may hold; dtype: float16 or float32."""

    folder: Path
    budget: float
    dtype: str

    def size(self, extractor: Extractor, count: int) -> int:
        """Bytes that the features of `count` pictures take."""
        return count * int(np.prod(extractor.shape)) * np.dtype(self.dtype).itemsize

    def features(self, extractor: Extractor, pictures: Shards) -> NDArray[Any]:
        """Features of all pictures, memory-mapped, of shape (len(pictures), *extractor.shape).

        Computed where they are not there yet, or where the file is damaged. Raises errors.StateError where the
        folder can't be written.
        """
        path = self.folder / f"{digest.of_value([extractor.key, pictures.digest, self.dtype])}.npy"
        shape = (len(pictures), *extractor.shape)
        found = self._read(path, shape)
        if found is None:
            self._make_room(self.size(extractor, len(pictures)))
            with atomic.file(path) as temporary:
                self._extract(temporary, extractor, pictures, shape)
            found = self._read(path, shape)
            assert found is not None
        path.touch()  # the least recently used go first
        return found

    def _read(self, path: Path, shape: tuple[int, ...]) -> NDArray[Any] | None:
        if not path.exists():
            return None
        try:
            array = np.load(path, mmap_mode="r")
            if array.shape == shape and array.dtype == self.dtype:
                return array
        except (ValueError, OSError, EOFError):  # what NumPy raises on a short or foreign file
            pass
        print(f"warning: {path} is damaged; computing it again", file=sys.stderr)
        return None

    def _extract(self, path: Path, extractor: Extractor, pictures: Shards, shape: tuple[int, ...]) -> None:
        with path.open("wb") as file:
            header = {"descr": np.dtype(self.dtype).str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            starts = range(0, len(pictures), BATCH)
            for start in progress.track(starts, len(pictures), "features", BATCH):
                rows = np.arange(start, min(start + BATCH, len(pictures)))
                made = extract(extractor, pictures, rows).astype(self.dtype)
                if not np.isfinite(made).all():
                    raise ParamsError(
                        f"params.yaml: features are not finite in cache.dtype {self.dtype}; set it to float32, "
                        "or mend backbone.weights"
                    )
                file.write(made.tobytes())

    def _make_room(self, needed: int) -> None:
        """Remove the least recently used entries until `needed` bytes more stay within the budget."""
        entries = []
        for path in self.folder.glob("[!.]*.npy"):  # a leading dot marks what another process is writing
            with suppress(FileNotFoundError):  # another process made room too
                found = path.stat()
                entries.append((found.st_mtime, found.st_size, path))
        held = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if held + needed <= self.budget:
                return
            path.unlink(missing_ok=True)
            held -= size


@dataclass(frozen=True)
class Stored:
    """Rows of features out of the store, computed when they are first drawn from."""

    store: Store
    extractor: Extractor
    pictures: Shards

    @cached_property
    def array(self) -> NDArray[Any]:
        """The memory-mapped features."""
        return self.store.features(self.extractor, self.pictures)

    def __len__(self) -> int:
        return len(self.pictures)

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        return self.array[rows]


def extract(extractor: Extractor, pictures: Rows, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Run the prefix in inference mode on at most BATCH pictures; a short batch is filled up, so it compiles once."""
    return np.asarray(extractor.prefix.predict_on_batch(pictures.take(np.resize(rows, BATCH))))[: len(rows)]


def _without_names(graph: dict[str, Any]) -> Any:
    """A model's configuration with its layers numbered: Keras's own names count what a process built before."""
    numbers: dict[str, str] = {}

    def collect(part: Any) -> None:
        if isinstance(part, dict):
            if isinstance(part.get("name"), str):
                numbers.setdefault(part["name"], f"#{len(numbers)}")
            for value in part.values():
                collect(value)
        elif isinstance(part, list):
            for value in part:
                collect(value)

    def renamed(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: renamed(value) for key, value in part.items() if key != "shared_object_id"}
        if isinstance(part, list):
            return [renamed(value) for value in part]
        return numbers.get(part, part) if isinstance(part, str) else part

    collect(graph)
    return renamed(graph)
