"""What a file of weights is allowed to hold: it is looked through before anything of it is loaded.

HDF5 can name other files, whose bytes would be taken for weights: by external links
(https://docs.h5py.org/en/stable/high/group.html#external-links) and by external storage. And a small file can say that
it holds terabytes, packed or never written.
"""

from __future__ import annotations

import zipfile
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

PACKED = 20  # times a file's own size that its content may have; trained weights hardly shrink at all
FREE = 64 * 2**20  # bytes of content that are fine in any file
OBJECTS = 100_000  # groups and arrays of a file; the largest networks have some thousands

WEIGHTS = "model.weights.h5"  # of a .keras archive
CONFIG = 2**26  # bytes of its description of the network, at most


class UnsafeFileError(ValueError):
    """A file of weights that is not loaded; the text is the reason in a few words, without the file's name."""


def require_safe(path: Path) -> None:
    """Look through a `.keras` archive, an `.npz` archive or an HDF5 file.

    Raises UnsafeFileError, and OSError where it can't be read.
    """
    if not path.is_file():
        return  # what is missing is said by whoever loads it
    size = path.stat().st_size
    if zipfile.is_zipfile(path):
        _archive(path, size)
    elif path.suffix in {".keras", ".npz"}:
        raise UnsafeFileError("it is no zip archive, or is damaged")
    else:
        _hdf5(path, size)


def member(path: Path, name: str) -> bytes:
    """A member of an archive that was looked through. Raises UnsafeFileError where it is damaged or missing."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(name)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise UnsafeFileError(f"it is damaged: {' '.join(str(error).split())}") from None
    except KeyError:
        raise UnsafeFileError(f"it holds no {name}") from None


def _archive(path: Path, size: int) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {info.filename: info.file_size for info in archive.infolist()}
            _require_room(sum(sizes.values()), size)
            damaged = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error) as error:
        raise UnsafeFileError(f"it is damaged: {' '.join(str(error).split())}") from None
    if damaged:
        raise UnsafeFileError(f"it is damaged: the checksum of {damaged} differs")
    if max((size for name, size in sizes.items() if name.endswith(".json")), default=0) > CONFIG:
        raise UnsafeFileError("its description of the network is too long")
    if WEIGHTS in sizes:
        _hdf5(BytesIO(member(path, WEIGHTS)), sizes[WEIGHTS])


def _hdf5(source: Any, size: int) -> None:
    """Go through all links of a file; what was met once is not entered again, so a ring of links ends."""
    import h5py

    with h5py.File(source, "r") as file:
        held, seen, waiting = 0, set(), [file["/"]]
        while waiting:
            group = waiting.pop()
            for name in group:
                link = group.get(name, getlink=True)
                if not isinstance(link, h5py.HardLink):
                    raise UnsafeFileError(f"{name} is a link to {'another file' if _is_external(link) else 'a place'}")
                found = group[name]
                place = h5py.h5o.get_info(found.id).addr
                if place in seen:
                    continue
                seen.add(place)
                if isinstance(found, h5py.Group):
                    waiting.append(found)
                elif isinstance(found, h5py.Dataset):
                    if found.external or found.is_virtual:
                        raise UnsafeFileError(f"{name} keeps its numbers in another file")
                    held += found.nbytes
                if len(seen) > OBJECTS:
                    raise UnsafeFileError(f"it holds more than {OBJECTS:,} groups and arrays")
        _require_room(held, size)


def _is_external(link: Any) -> bool:
    import h5py

    return isinstance(link, h5py.ExternalLink)


def _require_room(content: int, size: int) -> None:
    if content > FREE + PACKED * size:
        raise UnsafeFileError(f"it says that it holds {content / 1e6:,.0f} MB in a file of {size / 1e6:,.1f} MB")
