"""What a data source holds: a table of images with their labels, and how to read each.

A source is a folder of class folders, such a folder already split into train/val/test, a table (CSV or Parquet), a
folder with such a table, an archive of any of these, or a card.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from frostline.errors import DataError
from frostline.ingest import archives, cards, folders, tables
from frostline.ingest.folders import Listing
from frostline.ingest.problems import Problem
from frostline.ingest.reading import FileReader, SourceReader

KINDS = "a folder of class folders, a table (.csv, .parquet), an archive (.zip, .tar, .tar.gz) or a card (.yaml)"


@dataclass(frozen=True)
class Source:
    """Images with labels.

    table: one row an image: path (unique, what the reader reads it by), label (class name), split (name or None),
    group (name or None). problems: what else was found in the source.
    """

    table: pd.DataFrame
    reader: SourceReader
    problems: list[Problem]


def open_source(path: Path, scratch: Path) -> Source:
    """Open `data.source`. scratch: an existing folder, where an archive is unpacked; the source needs it.

    Raises DataError, naming the path and the fix, where it is no source.
    """
    try:
        if path.is_dir():
            return _folder(path)
        if path.is_file():
            if archives.is_archive(path):
                return _archive(path, scratch)
            if path.suffix.lower() in tables.SUFFIXES:
                return _source(tables.listed(path), FileReader(path.parent))
            if path.suffix.lower() in {".yaml", ".yml"}:
                return _card(path)
        exists = path.exists()
    except OSError as error:
        place = error.filename or path
        raise DataError(f"{place}: can't be read ({error.strerror}); fix its permissions or data.source") from error
    if exists:
        raise DataError(f"{path}: data.source must be {KINDS}")
    raise DataError(f"{path}: not found; set data.source to {KINDS}")


def _source(listing: Listing, reader: SourceReader) -> Source:
    # As objects from the start: inferred as strings and turned back, every row would get a label of its own.
    table = pd.DataFrame(sorted(listing.rows), columns=["path", "label", "split", "group"], dtype=object)
    return Source(table, reader, listing.problems)


def _folder(root: Path, is_foreign: bool = False) -> Source:
    """A folder, as a table in it says or as it is laid out. is_foreign: no path may lead out of it."""
    table = tables.found_in(root)
    if table is None:
        return _source(folders.listed(root), FileReader(root))
    return _source(tables.listed(table, root if is_foreign else None), FileReader(root))


def _archive(path: Path, scratch: Path) -> Source:
    root = scratch / "unpacked"
    root.mkdir()
    problems = archives.unpack(path, root)
    try:
        source = _folder(_unwrapped(root), is_foreign=True)
    except DataError as error:
        raise DataError(str(error).replace(str(root), str(path))) from None
    return Source(source.table, source.reader, [*problems, *source.problems])


def _unwrapped(root: Path) -> Path:
    """The folder that holds everything: an archive often has a single one around a table and its images."""
    entries = [entry for entry in root.iterdir() if entry.name.lower() not in folders.LEFT_BEHIND]
    if len(entries) == 1 and entries[0].is_dir() and tables.found_in(entries[0]):
        return entries[0]
    return root


def _card(path: Path) -> Source:
    card = cards.load(path)
    if isinstance(card, cards.KaggleCard):
        return _folder(_unwrapped(card.fetch()), is_foreign=True)
    return _source(*card.open())
