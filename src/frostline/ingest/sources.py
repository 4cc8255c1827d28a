"""Open a data source: a table of images with their labels, and a reader for them.

A source is a folder of class folders, a folder with the splits train/val/test of class folders, a table (CSV or
Parquet), a folder with a table, an archive of any of these, tars in WebDataset's layout, or a card.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from frostline import paths
from frostline.data.data_report import DataWarning, Problem
from frostline.errors import DataError
from frostline.ingest import archives, cards, folders, tables, tar_sets
from frostline.ingest.listing import Listing
from frostline.ingest.reading import FileReader, SourceReader
from frostline.ingest.structures import AUTOMATIC, Structure
from frostline.params.schema import SplitSection

KINDS = (
    "a folder of class folders or of WebDataset's tars, a table (.csv, .parquet), an archive (.zip, .tar, .tar.gz) or "
    "a card (.yaml)"
)


@dataclass(frozen=True)
class Source:
    """Images with labels.

    table: see `ListedImages.table`, one row per image: path (unique, for the reader), label (class name), split (a name
    or missing), group (a name or missing); reader: reads an image by its path; problems: what is wrong with other files
    of the source; warnings: what a person should check; split, train_per_class: what a card says in place of a
    `data.split` or `data.train_per_class` that is null.
    """

    table: pd.DataFrame
    reader: SourceReader
    problems: list[Problem]
    warnings: list[DataWarning]
    split: SplitSection | None = None
    train_per_class: int | None = None


def open_source(path: Path, scratch: Path, structure: Structure = AUTOMATIC) -> Source:
    """Open `data.source`.

    scratch: an existing folder where an archive is unpacked, or what lies in tars is noted, and which the source then
    needs; structure: of folders.

    Raises DataError, naming the path and the fix, if it is not a source.
    """
    try:
        if path.is_dir():
            tars = tar_sets.in_folder(path) if tables.find_table(path) is None else []
            return _source(*tar_sets.listed(path, tars, scratch, structure)) if tars else _folder(path, structure)
        if path.is_file():
            if archives.is_archive(path):
                return _archive(path, scratch, structure)
            if path.suffix.lower() in tables.SUFFIXES:
                if tars := tables.tars(path):
                    return _source(*tar_sets.listed(path.parent, tars, scratch, structure))
                return _source(tables.listed(path), FileReader(path.parent))
            if path.suffix.lower() in paths.CARD_SUFFIXES:
                return _card(path, structure)
        exists = path.exists()
    except OSError as error:
        place = error.filename or path
        raise DataError(f"{place}: can't be read ({error.strerror}); fix its permissions or data.source") from error
    if exists:
        raise DataError(f"{path}: data.source must be {KINDS}")
    raise DataError(f"{path}: not found; set data.source to {KINDS}")


def _source(listing: Listing, reader: SourceReader) -> Source:
    return Source(listing.rows.table(), reader, listing.problems, listing.warnings)


def _folder(root: Path, structure: Structure, is_foreign: bool = False) -> Source:
    """Open a folder by a table in it, or by its class folders. is_foreign: no path may lead out of it."""
    table = tables.find_table(root)
    if table is None:
        return _source(folders.listed(root, structure), FileReader(root))
    return _source(tables.listed(table, root if is_foreign else None), FileReader(root))


def _archive(path: Path, scratch: Path, structure: Structure) -> Source:
    root = scratch / "unpacked"
    root.mkdir()
    problems = archives.unpack(path, root)
    try:
        source = _folder(_without_wrapper(root), structure, is_foreign=True)
    except DataError as error:
        raise DataError(str(error).replace(str(root), str(path))) from None
    return Source(source.table, source.reader, [*problems, *source.problems], source.warnings)


def _without_wrapper(root: Path) -> Path:
    """The folder that holds everything, since an archive often has one folder around a table and its images."""
    entries = [entry for entry in root.iterdir() if entry.name.lower() not in folders.LEFT_BEHIND]
    if len(entries) == 1 and entries[0].is_dir() and tables.find_table(entries[0]):
        return entries[0]
    return root


def _card(path: Path, structure: Structure) -> Source:
    card = cards.load(path)
    if isinstance(card, cards.KaggleCard):
        source = _folder(_without_wrapper(card.fetch()), structure, is_foreign=True)
    else:
        source = _source(*card.open())
    return replace(source, split=card.split, train_per_class=card.train_per_class)
