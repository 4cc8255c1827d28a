"""Check a file of weights before any part of it is loaded.

An HDF5 file can name other files, whose bytes would be read as weights, by external links
(https://docs.h5py.org/en/stable/high/group.html#external-links) and by external storage. A small file can also claim
to hold terabytes that are compressed or were never written.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Collection
from io import BytesIO
from pathlib import Path
from typing import Any

from frostline.models import file_kinds

EXPANSION = 20  # the content may have that many times the size of the file; compression hardly shrinks trained weights
FREE = 64 * 2**20  # bytes of content that any file may have in addition
OBJECTS = 100_000  # most groups and arrays of a file; the largest networks have some thousands

WEIGHTS = "model.weights.h5"  # member of a .keras archive
CONFIG = 2**26  # most bytes of its description of the network


class UnsafeFileError(ValueError):
    """A file of weights that must not be loaded. The text is a short reason, without the name of the file."""


def require_safe(path: Path) -> None:
    """Check a `.keras` archive, an `.npz` archive or an HDF5 file.

    Raises UnsafeFileError if it is not safe to load, and OSError if it can't be read. A missing file is not an error.
    """
    if not path.is_file():
        return  # the function that loads the file reports it
    size = path.stat().st_size
    if zipfile.is_zipfile(path):
        _archive(path, size)
    elif path.suffix in {".keras", ".npz"}:
        raise UnsafeFileError("it is not a zip archive, or is damaged")
    else:
        _hdf5(path, size)


def member(path: Path, name: str) -> bytes:
    """The bytes of a member of a checked archive. Raises UnsafeFileError if it is damaged or missing."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(name)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise UnsafeFileError(f"it is damaged: {' '.join(str(error).split())}") from None
    except KeyError:
        raise UnsafeFileError(f"it holds no {name}") from None


def weights_member(path: Path) -> bytes:
    """The bytes of the HDF5 file in a checked archive: that of a `.keras`, or the only one, as in Teachable Machine's.

    Raises UnsafeFileError if it is damaged or missing.
    """
    with zipfile.ZipFile(path) as archive:
        return member(path, _weights_name(archive.namelist()))


def _weights_name(names: Collection[str]) -> str:
    return WEIGHTS if WEIGHTS in names else next(filter(file_kinds.is_hdf5, names), WEIGHTS)


def _archive(path: Path, size: int) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {info.filename: info.file_size for info in archive.infolist()}
            _require_room(sum(sizes.values()), size)
            bad_member = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error) as error:
        raise UnsafeFileError(f"it is damaged: {' '.join(str(error).split())}") from None
    if bad_member:
        raise UnsafeFileError(f"it is damaged: the checksum of {bad_member} differs")
    if max((size for name, size in sizes.items() if name.endswith(".json")), default=0) > CONFIG:
        raise UnsafeFileError("its description of the network is too long")
    name = _weights_name(sizes)
    if name in sizes:
        _hdf5(BytesIO(member(path, name)), sizes[name])


def _hdf5(source: Any, size: int) -> None:
    """Check all links of a file. No group is visited twice, so that a ring of links ends."""
    import h5py

    with h5py.File(source, "r") as file:
        total_bytes, addresses, groups = 0, set(), [file["/"]]
        while groups:
            group = groups.pop()
            for name in group:
                link = group.get(name, getlink=True)
                if not isinstance(link, h5py.HardLink):
                    raise UnsafeFileError(f"{name} is a link to {'another file' if _is_external(link) else 'a place'}")
                item = group[name]
                address = h5py.h5o.get_info(item.id).addr
                if address in addresses:
                    continue
                addresses.add(address)
                if isinstance(item, h5py.Group):
                    groups.append(item)
                elif isinstance(item, h5py.Dataset):
                    if item.external or item.is_virtual:
                        raise UnsafeFileError(f"{name} keeps its numbers in another file")
                    total_bytes += item.nbytes
                if len(addresses) > OBJECTS:
                    raise UnsafeFileError(f"it holds more than {OBJECTS:,} groups and arrays")
        _require_room(total_bytes, size)


def _is_external(link: Any) -> bool:
    import h5py

    return isinstance(link, h5py.ExternalLink)


def _require_room(content: int, size: int) -> None:
    if content > FREE + EXPANSION * size:
        raise UnsafeFileError(f"it says that it holds {content / 1e6:,.0f} MB in a file of {size / 1e6:,.1f} MB")
