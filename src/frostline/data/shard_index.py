"""The index of a folder of shards: a Parquet file of which a reader loads only the columns that it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

PIECE = 4096  # rows that are written at a time: a row group
FEW_VALUES = ["label", "together"]  # Parquet codes them by a dictionary; of the others nearly every value differs
NUMBERS = {"label": "int64", "coded_bytes": "int32"}  # types of columns; all others are text


@dataclass(frozen=True)
class Index:
    """An index on the disk. `index["path"]` loads one column, a series in the order of the shards."""

    path: Path

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        with self._open() as file:
            return tuple(file.schema_arrow.names)

    def __len__(self) -> int:
        with self._open() as file:
            return int(file.metadata.num_rows)

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def __getitem__(self, name: str) -> pd.Series:
        return self.frame([name])[name]

    def frame(self, names: list[str] | None = None) -> pd.DataFrame:
        """Some columns, None for all, as a table."""
        with self._open() as file:
            return file.read(names, use_threads=False).to_pandas(use_threads=False)

    def fixed(self, name: str, width: int) -> NDArray[np.bytes_]:
        """The first `width` characters of a column of ASCII text, `S{width}` (n,): no Python object for each image."""
        with self._open() as file:
            out = np.empty(file.metadata.num_rows, f"S{width}")
            start = 0
            for number in range(file.num_row_groups):  # not `iter_batches`, which keeps megabytes
                for piece in file.read_row_group(number, [name], use_threads=False).column(0).chunks:
                    out[start : start + len(piece)] = _fixed(piece, width)
                    start += len(piece)
        return out

    def _open(self) -> ParquetFile:
        from pyarrow.parquet import ParquetFile

        return ParquetFile(self.path)


def _fixed(texts: pa.StringArray, width: int) -> NDArray[np.bytes_]:
    """The first characters of texts that may all have one length, `S{width}` (n,)."""
    _, ends, data = texts.buffers()
    place = np.frombuffer(ends, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    lengths = np.unique(np.diff(place))
    if len(lengths) != 1 or lengths[0] < width:
        return np.array(texts.to_pylist(), f"S{width}")
    characters = np.frombuffer(data, np.uint8)[place[0] : place[-1]].reshape(len(texts), lengths[0])
    return np.ascontiguousarray(characters[:, :width]).view(f"S{width}")[:, 0]


def write(path: Path, columns: Mapping[str, Callable[[slice], Any]], rows: int) -> None:
    """Write an index in pieces. columns: each gives the values of some of its rows."""
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema([(name, getattr(pa, NUMBERS.get(name, "string"))()) for name in columns])
    with parquet.ParquetWriter(path, schema, use_dictionary=FEW_VALUES) as writer:
        for start in range(0, rows, PIECE):
            part = slice(start, start + PIECE)
            arrays = [pa.array(columns[field.name](part), field.type) for field in schema]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
