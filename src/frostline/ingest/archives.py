"""Archives as sources: .zip and .tar files, unpacked without trusting them."""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from frostline.core import progress
from frostline.data.data_report import Problem
from frostline.errors import NO_SPACE, DataError
from frostline.ingest.listing import readable

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
MEMBER_BYTES = 10**9  # no image is larger; a few kilobytes of an archive can claim terabytes
EXPANSION, FREE = 100, 10**9  # all members together: up to 100 times the bytes of the archive, plus 1 GB
BLOCK = 1 << 20


class _RefusedError(Exception):
    """A member must not be unpacked. Arguments: the kind and the reason of the problem."""


class _BombError(Exception):
    """All members together are too large."""


@dataclass(frozen=True)
class _Member:
    """A member of an archive.

    name: as in the archive; kind: folder, file or other; open: opens the content.
    """

    name: str
    kind: str
    open: Callable[[], AbstractContextManager[IO[bytes]]]


def is_archive(path: Path) -> bool:
    """Whether the file name ends with the suffix of an archive."""
    return path.name.lower().endswith(SUFFIXES)


def unpack(archive: Path, folder: Path) -> list[Problem]:
    """Unpack an archive into an existing empty folder. Returns the members left out, such as links and devices.

    No member is written outside the folder. Raises DataError if the archive itself is damaged, if it unpacks to far
    more than its own size, or if the disk is full.
    """
    problems = []
    remaining = FREE + EXPANSION * archive.stat().st_size
    try:
        with (_zip_members if archive.suffix.lower() == ".zip" else _tar_members)(archive, remaining) as members:
            for member in progress.track(members, len(members), "unpack"):
                try:
                    remaining -= _write(member, folder)
                except _RefusedError as refusal:
                    kind, reason = refusal.args
                    problems.append(Problem(readable(member.name), None, kind, reason))
                _require_bounded(remaining)
    except _BombError:
        raise DataError(
            f"{archive}: unpacks to more than {EXPANSION} times its size; check where it comes from, or unpack it and "
            "name the folder"
        ) from None
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise DataError(f"{archive}: can't be unpacked ({error.strerror or error}); fetch it again") from error
        raise DataError(
            f"{folder}: has no space left to unpack {archive}; free some, or name another disk by TMPDIR"
        ) from error
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error) as error:
        message = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{archive}: can't be unpacked ({message}); fetch it again") from error
    return problems


def _write(member: _Member, folder: Path) -> int:
    """Unpack one member and return its size in bytes. Raises _RefusedError if it must not be unpacked."""
    target = folder / _safe_path(member.name)
    if member.kind == "other":
        raise _RefusedError("not_a_file", "a link or device")
    try:
        if member.kind == "folder":
            target.mkdir(parents=True, exist_ok=True)
            return 0
        target.parent.mkdir(parents=True, exist_ok=True)
        file = target.open("xb")
    except FileExistsError:
        raise _RefusedError("named_twice", "collides with a member before it") from None
    except OSError as error:
        if error.errno in NO_SPACE:
            raise
        raise _RefusedError("name", f"can't be unpacked ({error.strerror})") from None
    try:
        with file, member.open() as content:
            return _copy(content, file)
    except _RefusedError:
        target.unlink()
        raise
    except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError) as error:
        target.unlink()
        message = "encrypted" if "password" in str(error) else " ".join(str(error).split())
        raise _RefusedError("unreadable", f"can't be unpacked ({message})") from None


def _require_bounded(remaining: int) -> None:
    if remaining < 0:
        raise _BombError


def _copy(content: IO[bytes], file: IO[bytes]) -> int:
    for _ in range(MEMBER_BYTES // BLOCK):
        block = content.read(BLOCK)
        if not block:
            return file.tell()
        file.write(block)
    raise _RefusedError("too_large", f"holds more than {MEMBER_BYTES // 10**9} GB")


def _safe_path(name: str) -> Path:
    """The path of the member relative to the folder. Raises _RefusedError if its name leads out of the folder."""
    path = PurePosixPath(name.replace("\\", "/") if "/" not in name else name)
    has_drive = bool(path.parts) and path.parts[0].endswith(":")
    if path.is_absolute() or has_drive or ".." in path.parts or "\0" in name:
        raise _RefusedError("outside", "leads out of the archive")
    return Path(*path.parts)


@contextmanager
def _zip_members(archive: Path, remaining: int) -> Iterator[list[_Member]]:
    with zipfile.ZipFile(archive) as file:
        _require_bounded(remaining - sum(info.file_size for info in file.infolist()))
        members = []
        for info in file.infolist():
            is_link = (info.external_attr >> 16) & 0o170000 == 0o120000
            kind = "folder" if info.is_dir() else "other" if is_link else "file"
            members.append(_Member(info.filename, kind, partial(file.open, info)))
        yield members


@contextmanager
def _tar_members(archive: Path, remaining: int) -> Iterator[list[_Member]]:
    with tarfile.open(archive) as file:
        members = []
        for info in file:
            remaining -= info.size
            _require_bounded(remaining)  # checked at once, because even skipping a member unpacks it
            # The content of a hard link is the content of another member.
            kind = "folder" if info.isdir() else "file" if info.isreg() or info.islnk() else "other"
            members.append(_Member(info.name, kind, partial(_content, file, info)))
        yield members


def _content(archive: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    try:
        content = archive.extractfile(info)
    except KeyError:
        content = None
    if content is None:
        raise _RefusedError("not_a_file", "a link to a file that is not in the archive")
    return content
