"""What changed in a source since `prepare` ran last in this project.

DVC removes the outputs of a stage before it runs, so a small table of the last images is kept beside them.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from frostline.core import atomic
from frostline.core.escaping import printable

COLUMNS = ["sha256", "label", "split"]
AT_ONCE = 4096  # rows
SOURCE = b"source"  # key of the metadata


def since_last_time(record: Path, source: str, images: pd.DataFrame) -> str | None:
    """A text about new, missing and changed images and classes. None if this is the first time for this source.

    record: the file of `remember`; images: with the columns sha256 (hexadecimal, unique), label and split.
    """
    # A missing or damaged record is none. `parquet.read_table` would load Arrow's data sets, 10 MB.
    with suppress(OSError, pa.ArrowException, KeyError, AttributeError), parquet.ParquetFile(record) as file:
        if file.schema_arrow.metadata[SOURCE].decode() == source:
            return _difference(file.read().to_pandas(), images[COLUMNS].astype(str))
    return None


def remember(record: Path, source: str, images: pd.DataFrame) -> None:
    """Keep what `since_last_time` needs."""
    record.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([(name, pa.string()) for name in COLUMNS], {SOURCE: source.encode()})
    with atomic.file(record) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        for start in range(0, len(images), AT_ONCE):
            piece = images[COLUMNS].iloc[start : start + AT_ONCE]
            writer.write_table(pa.table([pa.array(piece[name], pa.string()) for name in COLUMNS], schema=schema))


def _difference(before: pd.DataFrame, now: pd.DataFrame) -> str:
    both = before.merge(now, on="sha256", suffixes=("_before", "_now"))
    counts = {
        "new": len(now) - len(both),
        "gone": len(before) - len(both),
        "with another label": int(np.sum(both["label_before"] != both["label_now"])),
        "in another split": int(np.sum(both["split_before"] != both["split_now"])),
    }
    parts = [f"{count:,} {what}" for what, count in counts.items() if count]
    classes_before, classes = set(before["label"]), set(now["label"])
    parts += _classes("new", classes - classes_before) + _classes("gone", classes_before - classes)
    return f"images since last time: {', '.join(parts) or 'the same'}"


def _classes(what: str, names: Iterable[str]) -> list[str]:
    listed = sorted(names)
    if not listed:
        return []
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return [f"class {', '.join(printable(name) for name in listed[:3])}{more} is {what}"]
