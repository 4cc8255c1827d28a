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
SOURCE = b"source"  # key of the metadata


def since_last_time(record: Path, source: str, images: pd.DataFrame) -> str | None:
    """A text about new, missing and changed images and classes. None if this is the first time for this source.

    record: the file of `remember`; images: with the columns sha256 (hexadecimal, unique), label and split.
    """
    with suppress(OSError, pa.ArrowException, KeyError, AttributeError):  # a missing or damaged record is none
        table = parquet.read_table(record)
        if table.schema.metadata[SOURCE].decode() == source:
            return _difference(table.to_pandas(), images[COLUMNS])
    return None


def remember(record: Path, source: str, images: pd.DataFrame) -> None:
    """Keep what `since_last_time` needs."""
    record.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pandas(images[COLUMNS], preserve_index=False)
    metadata = {**(table.schema.metadata or {}), SOURCE: source.encode()}
    with atomic.file(record) as temporary:
        parquet.write_table(table.replace_schema_metadata(metadata), temporary)


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
