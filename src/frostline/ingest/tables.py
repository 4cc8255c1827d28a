"""Tables as sources: a CSV or Parquet file with the columns path, label and, where wanted, split and group."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import TYPE_CHECKING

from frostline.errors import DataError
from frostline.ingest.folders import SPLIT_FOLDERS, ListedImage, Listing, nearest

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = {".csv", ".tsv", ".parquet"}
NEEDED, OPTIONAL = ("path", "label"), ("split", "group")


def found_in(folder: Path) -> Path | None:
    """The table that says what a folder's images are: manifest.csv or .parquet, or the only one with its columns.

    Raises DataError where the folder can't be listed.
    """
    tables = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    named = [path for path in tables if path.stem == "manifest"]
    fitting = named or [path for path in tables if set(NEEDED) <= set(_columns(path))]
    return fitting[0] if len(fitting) == 1 else None


def listed(table: Path, inside: Path | None = None) -> Listing:
    """The images that a table names; their paths are relative to its folder, or absolute.

    inside: a folder that no path may lead out of. Raises DataError, naming the file and the fix, where it is no such
    table; rows that can't be used are problems of the listing.
    """
    frame = _read(table)
    listing = Listing()
    labels: dict[str, str] = {}
    torn: set[str] = set()  # paths under two labels, of which nobody knows which is right
    empty = [""] * len(frame)
    columns = [frame[name].tolist() if name in frame else empty for name in (*NEEDED, *OPTIONAL)]
    for number, (path, label, split, group) in enumerate(zip(*columns, strict=True), 2):
        where = f"row {number} of {table.name}"
        known = SPLIT_FOLDERS.get(split.lower()) if split else None
        if "\0" in path + label + split + group:  # a torn or binary line; no file has such a name
            listing.leave_out(where, None, "not_text", "has a NUL character")
        elif not path:
            listing.leave_out(where, label or None, "no_path", "has no path")
        elif path in labels:
            same = "named again"
            if labels[path] != label:
                torn.add(path)
                same = f"named again under another label, {labels[path]!r}"
            listing.leave_out(path, label, "named_twice", f"{same} in {where}")
        elif not label:
            listing.leave_out(path, None, "no_label", f"has no label in {where}")
        elif split and known is None:
            fix = nearest(split, list(SPLIT_FOLDERS)) or "; use train, val or test"
            listing.leave_out(path, label, "split", f"its split in {where} is {split!r}{fix}")
        elif inside is not None and not _is_inside(inside, table.parent / path):
            listing.leave_out(path, label, "outside", "leads out of the archive")
        else:
            labels[path] = label
            listing.rows.append(ListedImage(path, label, known, group or None))
            continue
        labels.setdefault(path, label)
    for row in [row for row in listing.rows if row.path in torn]:
        listing.leave_out(row.path, row.label, "named_twice", "named again under another label")
    listing.rows = [row for row in listing.rows if row.path not in torn]
    return listing


def _is_inside(folder: Path, path: Path) -> bool:
    return Path(os.path.normpath(path)).is_relative_to(folder)


def _columns(table: Path) -> list[str]:
    try:
        return list(_read(table, head=True).columns)
    except DataError:
        return []


def _read(table: Path, head: bool = False) -> pd.DataFrame:
    """A table of words; labels like `NA` and `007` stay what they are. head: the columns alone."""
    import pandas as pd

    try:
        if table.suffix.lower() == ".parquet" and head:
            from pyarrow.parquet import read_schema

            frame = pd.DataFrame(columns=read_schema(table).names)
        elif table.suffix.lower() == ".parquet":
            frame = pd.read_parquet(table)
            frame = frame.astype(object).where(frame.notna(), "").astype(str)
        else:
            options = {"dtype": str, "keep_default_na": False, "encoding": "utf-8-sig", "sep": _separator(table)}
            frame = pd.read_csv(table, nrows=0 if head else None, index_col=False, **options)
    except OSError as error:
        raise DataError(f"{table}: can't be read ({error.strerror}); fix its permissions") from error
    except Exception as error:  # whatever a parser of pandas' or pyarrow's trips over
        said = " ".join(str(error).split())
        raise DataError(f"{table}: is no table that can be read ({said}); write it as CSV in UTF-8") from None
    frame.columns = [str(name).strip() for name in frame.columns]
    missing = [name for name in NEEDED if name not in frame]
    if missing:
        has = ", ".join(frame.columns[:8])
        raise DataError(f"{table}: has no column {missing[0]!r} but {has}; name its columns path, label, split, group")
    return frame


def _separator(table: Path) -> str:
    """What separates the columns: a comma, unless another sign is more frequent in the first line."""
    with table.open(encoding="utf-8-sig", newline="") as file:
        head = next(csv.reader(file, delimiter="\n"), [""])
    first = head[0] if head else ""
    return max(",;\t", key=first.count)
