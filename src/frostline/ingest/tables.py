"""Tables as sources: a CSV or Parquet file with the columns path and label, and optionally split and group."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import TYPE_CHECKING

from frostline.errors import DataError
from frostline.ingest.folders import nearest
from frostline.ingest.listing import ListedImage, ListedImages, Listing
from frostline.ingest.split_names import SPLIT_OF, split_of

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = {".csv", ".tsv", ".parquet"}
REQUIRED, OPTIONAL = ("path", "label"), ("split", "group")


def find_table(folder: Path) -> Path | None:
    """The table that lists the images of a folder: the one called manifest, or the only one with the required columns.

    Returns None if there is none, or more than one. Raises OSError if the folder can't be listed.
    """
    tables = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    manifests = [path for path in tables if path.stem == "manifest"]
    candidates = manifests or [path for path in tables if set(REQUIRED) <= set(_columns(path))]
    return candidates[0] if len(candidates) == 1 else None


def listed(table: Path, inside: Path | None = None) -> Listing:
    """The images that a table lists. Their paths are relative to its folder, or absolute.

    inside: a folder that no path may lead out of. Raises DataError, naming the file and the fix, if the table can't be
    used. ListedImages that can't be used become problems of the listing.
    """
    frame = _read(table)
    _require_columns(table, frame)
    listing = Listing()
    labels: dict[str, str] = {}
    ambiguous: set[str] = set()  # paths with two labels, since nobody knows which is right
    empty = [""] * len(frame)
    columns = [frame[name].str.strip().tolist() if name in frame else empty for name in (*REQUIRED, *OPTIONAL)]
    if _has_backslashes(columns[0], table.parent):
        columns[0] = [path.replace("\\", "/") for path in columns[0]]
    for number, (path, label, split, group) in enumerate(zip(*columns, strict=True), 2):
        place = f"row {number} of {table.name}"
        if problem := _problem(path, label, split, group, place):
            listing.leave_out(*problem)
        elif path in labels:
            reason = "named again"
            if labels[path] != label:
                ambiguous.add(path)
                reason = f"named again under another label, {labels[path]!r},"
            listing.leave_out(path, label, "named_twice", f"{reason} in {place}")
        else:
            labels[path] = label
            if inside is not None and not _is_inside(inside, table.parent / path):
                listing.leave_out(path, label, "outside", "leads out of the archive")
            else:
                listing.rows.append(ListedImage(path, label, split_of(split) if split else None, group or None))
    if ambiguous:
        for row in (row for row in listing.rows if row.path in ambiguous):
            listing.leave_out(row.path, row.label, "named_twice", "named again under another label")
        listing.rows = ListedImages(row for row in listing.rows if row.path not in ambiguous)
    return listing


def tars(table: Path) -> list[str]:
    """The tars that a table lists in its column path, if it has no labels; empty for a table of images.

    Raises DataError if the table can't be read.
    """
    columns = _read(table, head=True)
    if "path" not in columns or "label" in columns:
        return []
    names: list[str] = _read(table)["path"].str.strip().tolist()
    return names if all(name.lower().endswith(".tar") for name in names) else []


def _problem(path: str, label: str, split: str, group: str, place: str) -> tuple[str, str | None, str, str] | None:
    """Why a row can't be used, as the arguments of `Listing.leave_out`; None if it can. place: of the row."""
    if "\0" in path + label + split + group:  # a damaged or binary line, since no file name has a NUL
        return place, None, "not_text", "has a NUL character"
    if not path:
        return place, label or None, "no_path", "has no path"
    if not label:
        return path, None, "no_label", f"has no label in {place}"
    if split and split_of(split) is None:
        fix = nearest(split, list(SPLIT_OF)) or "; use train, val or test"
        return path, label, "split", f"its split in {place} is {split!r}{fix}"
    return None


def _has_backslashes(paths: list[str], folder: Path) -> bool:
    """Whether the paths were written on Windows: with backslashes, which are no part of the names here."""
    example = next((path for path in paths if "\\" in path), None)
    return example is not None and not (folder / example).exists()


def _is_inside(folder: Path, path: Path) -> bool:
    return Path(os.path.normpath(path)).is_relative_to(folder)


def _columns(table: Path) -> list[str]:
    try:
        return list(_read(table, head=True).columns)
    except DataError:
        return []


def _read(table: Path, head: bool = False) -> pd.DataFrame:
    """Read a table as strings, so that labels like `NA` and `007` stay as they are. head: read only the columns."""
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
    except Exception as error:  # the parsers of pandas and pyarrow raise many kinds of errors
        reason = " ".join(str(error).split())
        raise DataError(f"{table}: is not a table that can be read ({reason}); write it as CSV in UTF-8") from None
    frame.columns = [str(name).strip() for name in frame.columns]
    return frame


def _require_columns(table: Path, frame: pd.DataFrame) -> None:
    missing_columns = [name for name in REQUIRED if name not in frame]
    if missing_columns:
        columns = ", ".join(frame.columns[:8])
        raise DataError(
            f"{table}: has no column {missing_columns[0]!r} but {columns}; name its columns path, label, split, group"
        )


def _separator(table: Path) -> str:
    """The separator of the columns: a comma, unless a semicolon or tab is more frequent in the first line."""
    with table.open(encoding="utf-8-sig", newline="") as file:
        head = next(csv.reader(file, delimiter="\n"), [""])
    first = head[0] if head else ""
    return max(",;\t", key=first.count)
