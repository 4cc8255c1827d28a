"""What `prepare` or DVC would refuse about a source, found out before any image is opened."""

from __future__ import annotations

import os
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from frostline import paths
from frostline.errors import DataError
from frostline.ingest import archives, cards, gathering, sources, splits
from frostline.ingest.checks import Findings
from frostline.ingest.structures import Structure
from frostline.params.schema import Params


def check(params: Params, scratch: Path) -> sources.Source | None:
    """Check the source of params.yaml: a folder and a table by their lists of images, an archive by its start.

    scratch: an existing folder, see `sources.open_source`. Returns the source, or None for an archive or a card, which
    is not opened. Raises DataError or ParamsError, one line with the fix.
    """
    path = Path(params.data.source)
    if path.is_dir():
        _require_plain_files(path)
    if path.is_file() and archives.is_archive(path):
        _require_archive(path)
        return None
    if path.is_file() and path.suffix.lower() in paths.CARD_SUFFIXES:
        cards.load(path)  # it is not opened: that may generate or download images
        return None
    source = sources.open_source(path, scratch, Structure.of(params.data))
    _check_listing(params, source)
    return source


def _check_listing(params: Params, source: sources.Source) -> None:
    data, table = params.data, source.table
    given = set(table["split"].dropna())
    findings = Findings(table, list(source.problems))
    gathering.require_classes(findings, given, data)
    gathering.require_splits(findings, data, given)  # the others are drawn
    is_train = table["split"].isin(["train"]) if "train" in given else table["split"].isna()
    if data.train_per_class is not None:
        splits.require_labels(table.loc[is_train, "label"], data.train_per_class)
    classes = table.loc[is_train, "label"].nunique()
    if classes > 2:  # fewer may be left when copies and broken images are out, but never more
        params.head.require_fit(classes)


def _require_plain_files(root: Path) -> None:
    """Raise DataError for a named pipe, a socket or a device: DVC opens every file, and would wait for it forever."""
    for entry in _entries(root):
        kind = "a named pipe" if Path(entry).is_fifo() else "a socket" if Path(entry).is_socket() else "a device"
        raise DataError(f"{entry.path}: is {kind}, and DVC would wait for it forever; remove it from data.source")


def _entries(root: Path) -> Iterator[os.DirEntry[str]]:
    """All entries below a folder that exist and are neither files nor folders."""
    folders = [str(root)]
    while folders:
        try:
            entries = list(os.scandir(folders.pop()))
        except OSError:
            continue  # `prepare` notes it
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            elif not entry.is_file() and not entry.is_dir() and Path(entry).exists():
                yield entry


def _require_archive(path: Path) -> None:
    try:
        if path.suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as archive:
                is_empty = not archive.namelist()
        else:
            with tarfile.open(path) as tar:
                is_empty = tar.next() is None
    except (OSError, EOFError, zipfile.BadZipFile, tarfile.TarError) as error:
        reason = str(error).partition("\n")[0].rstrip(":")  # tarfile lists what it tried on further lines
        raise DataError(f"{path}: is not an archive that can be read ({reason}); pack it again") from None
    if is_empty:
        raise DataError(f"{path}: is an empty archive; pack it again, or fix data.source")
