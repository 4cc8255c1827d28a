"""Sets of tar files in the layout of WebDataset as sources, read where they lie, without unpacking.

Files of one name in a tar are a sample: `000017.jpg` and its label, `000017.cls` (a number or a name), `000017.txt` (a
name) or `000017.json` (with the key `label` or `cls`). `classes.txt` or `classes.json` beside the tars names the
numbers. The splits are in the names of the tars: `train-000000.tar`, `val-000000.tar`. The tars lie in one folder, or a
table lists them. Source of the layout: the documentation of WebDataset, "Dataset Format".
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from frostline.data import images
from frostline.data.deep_grey import GreyRange
from frostline.errors import DataError
from frostline.ingest import reading
from frostline.ingest.folders import IMAGES
from frostline.ingest.listing import ListedImage, Listing, readable
from frostline.ingest.reading import ReadImage
from frostline.ingest.split_names import split_of, split_within
from frostline.ingest.structures import Structure

LABELS = ("cls", "txt", "json")  # of several labels of a sample, the first of these counts
LABEL_BYTES, WIDEST = 1 << 20, 200  # of a label's file, and characters of a label: a caption is none
INDEX = "members.npy"
# Where an image lies, sorted by `key`, a digest of its path: so readers need no list of paths.
PLACE = np.dtype([("key", "S16"), ("tar", "<u4"), ("start", "<u8"), ("size", "<u8")])


class _File(NamedTuple):
    """A file in a tar: its name, and where its content lies in bytes."""

    name: str
    start: int
    size: int


@dataclass(frozen=True)
class TarReader:
    """Reads images from tars. A path is the name of the tar, a slash and the name in the tar.

    index: the places of all images, a file that `listed` wrote.
    """

    root: Path
    tars: tuple[str, ...]
    index: Path

    def read(self, path: str, least: int | None, grey_range: GreyRange = None) -> ReadImage:
        """See `reading.SourceReader.read`."""
        return reading.of_bytes(self.coded(path), least, grey_range)

    def coded(self, path: str) -> bytes:
        """See `reading.SourceReader.coded`."""
        places, key = _places(self.index), _key(path)
        row = int(np.searchsorted(places["key"], key))
        if row == len(places) or places["key"][row] != key:
            raise images.UnreadableImageError("no such file", "missing")
        _, tar, start, size = places[row].item()
        try:
            with (self.root / self.tars[tar]).open("rb", buffering=0) as file:
                return os.pread(file.fileno(), size, start)
        except OSError as error:
            raise images.UnreadableImageError(f"{self.tars[tar]} can't be read ({error.strerror})") from None


def in_folder(root: Path) -> list[str]:
    """The names of the tars of a folder; none if it also has folders, which may hold classes."""
    entries = [entry for entry in root.iterdir() if not entry.name.startswith(".")]
    if any(entry.is_dir() for entry in entries):
        return []
    return sorted(entry.name for entry in entries if entry.suffix.lower() == ".tar")


def listed(root: Path, tars: Sequence[str], scratch: Path, structure: Structure) -> tuple[Listing, TarReader]:
    """The images of tars, and their reader.

    root: the folder of the tars and of the names of classes; tars: their paths, absolute or relative to it; scratch: an
    existing folder for the places of the images, which the reader then needs. Tars and members that can't be used
    become problems of the listing. Raises DataError if the names of the classes can't be read.
    """
    listing, places = Listing(), _Places()
    classes = _classes(root)
    for number, name in enumerate(tars):
        split = _split(Path(name).stem, structure)
        try:
            with tarfile.open(root / name, "r:") as tar:
                for files in _samples(tar, name, listing):
                    image = _image(tar, name, files, classes, split, listing)
                    if image is not None:
                        listing.rows.append(image[0])
                        places.add(image[0].path, number, image[1])
        except (OSError, tarfile.TarError, EOFError) as error:
            reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
            listing.leave_out(name, None, "unreadable", f"can't be read as a tar to its end ({reason}); write it anew")
    places.save(scratch / INDEX)
    return listing, TarReader(root, tuple(tars), scratch / INDEX)


def _split(stem: str, structure: Structure) -> str | None:
    """The split of a tar by its name, or by the start of its name that `data.splits` gives."""
    if structure.splits is not None:
        return next((split for split, start in structure.splits.items() if stem.startswith(start)), None)
    return split_of(stem) or split_within(stem)


def _samples(tar: tarfile.TarFile, name: str, listing: Listing) -> Iterator[dict[str, _File]]:
    """The files of each sample, by their suffixes. Files of one sample follow each other, as WebDataset needs it."""
    key, files = "", dict[str, _File]()
    for info in tar:
        tar.members = []  # type: ignore[attr-defined]  # otherwise the tar remembers all of them
        if info.isdir():
            continue
        if not info.isreg() or info.issparse():
            listing.leave_out(f"{name}/{info.name}", None, "not_a_file", "a link, a device or a sparse file")
            continue
        folder, _, base = info.name.removeprefix("./").rpartition("/")
        stem, _, suffix = base.partition(".")
        if not stem:
            continue  # a hidden file
        if f"{folder}/{stem}" != key:
            if files:
                yield files
            key, files = f"{folder}/{stem}", {}
        suffix = suffix.lower()
        if suffix in files:
            listing.leave_out(f"{name}/{info.name}", None, "named_twice", "named again in the tar")
        else:
            files[suffix] = _File(info.name.removeprefix("./"), info.offset_data, info.size)
    if files:
        yield files


def _image(
    tar: tarfile.TarFile,
    name: str,
    files: dict[str, _File],
    classes: dict[int, str],
    split: str | None,
    listing: Listing,
) -> tuple[ListedImage, _File] | None:
    """The image of a sample, and its file; None, with a problem of the listing, if it can't be used."""
    pictures = [suffix for suffix in files if f".{suffix}" in IMAGES]
    if not pictures:
        if files.keys() & set(LABELS):
            listing.leave_out(f"{name}/{next(iter(files.values())).name}", None, "missing", "a label without an image")
        return None
    image = files[pictures[0]]
    path = f"{name}/{image.name}"
    if readable(path) != path:
        listing.leave_out(path, None, "name", "the name is not UTF-8; rename it")
    elif image.size > images.MAX_BYTES:
        listing.leave_out(path, None, "too_large", f"holds more than {images.MAX_BYTES // 10**9} GB")
    else:
        label, reason = _label(tar, files, classes)
        if label:
            return ListedImage(path, label, split), image
        listing.leave_out(path, None, "no_label", reason)
    return None


def _label(tar: tarfile.TarFile, files: dict[str, _File], classes: dict[int, str]) -> tuple[str, str]:
    """The label of a sample and an empty text, or an empty label and the reason."""
    suffix = next((each for each in LABELS if each in files), None)
    if suffix is None:
        return "", f"has no label: no file {', '.join(LABELS)} of the same name"
    file = files[suffix]
    if file.size > LABEL_BYTES:
        return "", f"its label {file.name} is too long"
    assert tar.fileobj is not None
    tar.fileobj.seek(file.start)
    try:
        text = tar.fileobj.read(file.size).decode("utf-8").strip()
        value: Any = _of_json(json.loads(text)) if suffix == "json" else text
    except ValueError:
        return "", f"its label {file.name} is not {'JSON' if suffix == 'json' else 'text'}"
    label = str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    if label.isdecimal() and classes:
        if int(label) not in classes:
            return "", f"its class {label} is not one of the {len(classes)} named classes"
        return classes[int(label)], ""
    if not label or "\n" in label or "\0" in label or len(label) > WIDEST:
        return "", f"its label {file.name} is empty, or no name of a class"
    return label, ""


def _of_json(value: Any) -> Any:
    """The label in the JSON of a sample: a plain value, or the value of `label` or `cls`."""
    return next((value[key] for key in ("label", "cls") if key in value), "") if isinstance(value, dict) else value


def _classes(root: Path) -> dict[int, str]:
    """The names of the classes by number, of classes.txt (a line each) or classes.json (a list, or names by number)."""
    text, table = root / "classes.txt", root / "classes.json"
    try:
        if text.is_file():
            names: Any = [line.strip() for line in text.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        elif table.is_file():
            names = json.loads(table.read_text(encoding="utf-8-sig"))
        else:
            return {}
        pairs = names.items() if isinstance(names, dict) else enumerate(names)
        return {int(number): str(name) for number, name in pairs}
    except (OSError, ValueError, TypeError) as error:
        path = text if text.is_file() else table
        raise DataError(
            f"{path}: does not name the classes ({' '.join(str(error).split())}); write a name a line into classes.txt"
        ) from None


class _Places:
    """The growing index of the images' places."""

    def __init__(self) -> None:
        self._keys, self._numbers = bytearray(), array("Q")

    def add(self, path: str, tar: int, file: _File) -> None:
        self._keys += _key(path)
        self._numbers.extend((tar, file.start, file.size))

    def save(self, path: Path) -> None:
        numbers = np.frombuffer(self._numbers, np.uint64).reshape(-1, 3)
        places = np.empty(len(numbers), PLACE)
        places["key"] = np.frombuffer(bytes(self._keys), "S16")
        for column, name in enumerate(("tar", "start", "size")):
            places[name] = numbers[:, column]
        np.save(path, np.sort(places, order="key"))


def _key(path: str) -> bytes:
    """16 bytes that end with no zero, since NumPy drops final zeros."""
    digest = hashlib.blake2b(path.encode(), digest_size=15).digest()
    return digest + b"\x01"


@cache
def _places(index: Path) -> NDArray[Any]:
    places: NDArray[Any] = np.load(index, mmap_mode="r")
    return places
