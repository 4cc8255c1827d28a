"""Folders of images as sources: class folders, and splits of class folders."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from frostline.core import suggest
from frostline.data.data_report import DataWarning
from frostline.errors import DataError
from frostline.ingest import structures
from frostline.ingest.listing import ListedImage, Listing, readable
from frostline.ingest.split_names import split_of
from frostline.ingest.structures import AUTOMATIC, Structure

# Folders that other programs leave beside the images.
LEFT_BEHIND = {"__macosx", "@eadir", "lost+found", "$recycle.bin", "system volume information"}
IMAGES = {".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".jfif", ".png", ".tif", ".tiff", ".webp"}


def listed(root: Path, structure: Structure = AUTOMATIC) -> Listing:
    """The images of a folder of class folders, or of split folders with class folders.

    If the folder has a single subfolder with further folders, that one is searched instead. Raises DataError, with the
    key to set, if there is no class folder, or if it is not clear which folders are splits.
    """
    listing = Listing()
    start, tops = _start(root, structure, listing)
    if not tops:
        raise DataError(f"{root}: has no subfolders; a source needs one folder of images a class")
    _outside(root, start, listing)
    inner = {name: _folder_names(start / name) for name in tops}
    splits = structures.splits(root, inner, structure)
    if splits:
        _split_folders(root, start, inner, splits, structure, listing)
    elif structures.are_classes_with_splits(inner, structure):
        for name in tops:
            _outside(root, start / name, listing)
            for folder in _subfolders(root, start / name, listing):
                _class(root, start / name / folder, name, split_of(folder), listing)
    else:
        _class_folders(root, start, tops, None, structure, listing)
        if structure.class_level is None and all(len(names) > 1 for names in inner.values()):
            _warn_of_two_levels(inner, listing)
    return listing


def _start(root: Path, structure: Structure, listing: Listing) -> tuple[Path, list[str]]:
    """The folder with the classes or splits, and its subfolders. Archives often have one folder around everything."""
    start = root
    while True:
        tops = list(_subfolders(root, start, listing))
        is_chosen = structure.splits is not None and set(structure.splits.values()) & set(tops)
        if len(tops) != 1 or split_of(tops[0]) or is_chosen or not _folder_names(start / tops[0]):
            return start, tops
        start /= tops[0]


def _split_folders(
    root: Path,
    start: Path,
    inner: Mapping[str, list[str]],
    splits: Mapping[str, str],
    structure: Structure,
    listing: Listing,
) -> None:
    """Add the images of split folders, and note the folders that are not used."""
    used = [name for name in splits if inner[name]]
    for name in inner:
        if name not in splits:
            reason = f"a folder beside the splits {', '.join(sorted(used))}"
        elif name not in used:
            reason = f"has no class folders, so its images have no labels; the splits are {', '.join(sorted(used))}"
        else:
            continue
        listing.leave_out(_below(root, start / name), None, "outside", reason)
    for name in used:
        _outside(root, start / name, listing)
        _class_folders(
            root, start / name, list(_subfolders(root, start / name, listing)), splits[name], structure, listing
        )


def _class_folders(
    root: Path, folder: Path, names: list[str], split: str | None, structure: Structure, listing: Listing
) -> None:
    """Add the images of class folders, or of the class folders in them if `class_level` is 2."""
    for name in names:
        if structure.class_level == 2:
            _outside(root, folder / name, listing)
            for label in _subfolders(root, folder / name, listing):
                _class(root, folder / name / label, label, split, listing)
        else:
            _class(root, folder / name, name, split, listing)


def _warn_of_two_levels(inner: Mapping[str, list[str]], listing: Listing) -> None:
    classes, below = (
        ", ".join(list(inner)[:4]),
        ", ".join(sorted({name for names in inner.values() for name in names})[:4]),
    )
    listing.warnings.append(
        DataWarning(
            "two_levels",
            f"the classes are the top folders ({classes}), not the folders in them ({below}); data.class_level: 2 "
            "takes those, and data.class_level: 1 ends this warning",
        )
    )


def _below(root: Path, path: Path) -> str:
    return os.path.relpath(path, root)


def _subfolders(root: Path, folder: Path, listing: Listing) -> Iterator[str]:
    """Names of the subfolders that may be splits or classes, including links to folders elsewhere."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        if folder == root:
            raise
        listing.leave_out(_below(root, folder), None, "unreadable", f"can't be listed ({error.strerror})")
        return
    for entry in entries:
        path = _below(root, Path(entry.path))
        try:
            is_folder = entry.is_dir()
        except OSError as error:  # a link to itself
            listing.leave_out(path, None, "link", error.strerror or "a broken link")
            continue
        if entry.name.startswith(".") or entry.name.lower() in LEFT_BEHIND or not is_folder:
            continue
        if entry.is_symlink() and Path(root).resolve().is_relative_to(Path(entry.path).resolve()):
            listing.leave_out(path, None, "link", "a link to a folder that it lies in")
        elif readable(entry.name) != entry.name:
            listing.leave_out(path, None, "name", "the name is not UTF-8; rename it")
        else:
            yield entry.name


def _folder_names(folder: Path) -> list[str]:
    """The names of the subfolders that may be splits or classes, without notes on the others."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return []
    return [
        entry.name
        for entry in entries
        if not entry.name.startswith(".") and entry.name.lower() not in LEFT_BEHIND and Path(entry).is_dir()
    ]


def _outside(root: Path, folder: Path, listing: Listing) -> None:
    """Note images beside the class folders. Other files, such as a README or a licence, are not problems."""
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if not Path(entry).is_dir())
    except OSError:
        return  # `_subfolders` has noted it
    for name in names:
        if not name.startswith(".") and Path(name).suffix.lower() in IMAGES:
            listing.leave_out(_below(root, folder / name), None, "outside", "lies in no class folder")


def _class(root: Path, folder: Path, label: str, split: str | None, listing: Listing) -> None:
    """Add all files below a class folder, except hidden ones.

    Links to folders below it are not followed, so that a loop of links ends.
    """

    def unlistable(error: OSError) -> None:
        path = _below(root, Path(error.filename))
        listing.leave_out(path, label, "unreadable", f"can't be listed ({error.strerror})")

    before = len(listing.rows) + len(listing.problems)
    for parent, folders, names in os.walk(folder, onerror=unlistable):
        below = _below(root, Path(parent))
        for name in sorted(folders):
            if (Path(parent) / name).is_symlink():
                listing.leave_out(f"{below}/{name}", label, "link", "a link to a folder, which is not followed")
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = f"{below}/{name}"
            if name.startswith("."):
                continue
            if readable(path) != path:
                listing.leave_out(path, label, "name", "the name is not UTF-8; rename it")
            else:
                listing.rows.append(ListedImage(path, label.strip(), split))
    if len(listing.rows) + len(listing.problems) == before:
        listing.leave_out(_below(root, folder), label, "empty_class", "an empty class folder")


def nearest(name: str, names: list[str]) -> str:
    """` (did you mean NAME?)` if one of the names is similar, ignoring case, otherwise an empty string."""
    lower = {other.lower(): other for other in names}
    near = suggest.nearest(name.lower(), lower)
    return "" if near is None else f" (did you mean {lower[near]!r}?)"
