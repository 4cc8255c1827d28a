"""Archives as sources: .zip and .tar files, unpacked without trusting what they say."""

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
from frostline.errors import NO_SPACE, DataError
from frostline.ingest.folders import readable
from frostline.ingest.problems import Problem

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
MEMBER_BYTES = 10**9  # no image is larger; a few kilobytes of an archive can claim terabytes
PACKED, FREE = 100, 10**9  # all members may have so many times the archive's own bytes, and that many in any archive
BLOCK = 1 << 20


class _RefusedError(Exception):
    """A member that is not unpacked: kind and reason."""


class _BombError(Exception):
    """The members are too large together."""


@dataclass(frozen=True)
class _Member:
    """name: as the archive has it; kind: folder, file or other; open: gives its content."""

    name: str
    kind: str
    open: Callable[[], AbstractContextManager[IO[bytes]]]


def is_archive(path: Path) -> bool:
    """Whether a file's name ends like an archive's."""
    return path.name.lower().endswith(SUFFIXES)


def unpack(archive: Path, folder: Path) -> list[Problem]:
    """Unpack an archive into an existing empty folder; the members that are left out, links and devices among them.

    No member is written outside the folder. Raises DataError where the archive itself is damaged, unpacks to more than
    archives of images do, or the disk is full.
    """
    problems = []
    left = FREE + PACKED * archive.stat().st_size
    try:
        with (_zipped if archive.suffix.lower() == ".zip" else _tarred)(archive, left) as members:
            for member in progress.track(members, len(members), "unpack"):
                try:
                    left -= _write(member, folder)
                except _RefusedError as refusal:
                    kind, reason = refusal.args
                    problems.append(Problem(readable(member.name), None, kind, reason))
                _require_bounded(left)
    except _BombError:
        raise DataError(
            f"{archive}: unpacks to more than {PACKED} times its size; check where it comes from, or unpack it and "
            "name the folder"
        ) from None
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise DataError(f"{archive}: can't be unpacked ({error.strerror or error}); fetch it again") from error
        raise DataError(
            f"{folder}: has no space left to unpack {archive}; free some, or name another disk by TMPDIR"
        ) from error
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{archive}: can't be unpacked ({said}); fetch it again") from error
    return problems


def _write(member: _Member, folder: Path) -> int:
    """Unpack one member; its bytes. Raises _RefusedError where it is none to unpack."""
    target = folder / _inside(member.name)
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
        said = "encrypted" if "password" in str(error) else " ".join(str(error).split())
        raise _RefusedError("unreadable", f"can't be unpacked ({said})") from None


def _require_bounded(left: int) -> None:
    if left < 0:
        raise _BombError


def _copy(content: IO[bytes], file: IO[bytes]) -> int:
    for _ in range(MEMBER_BYTES // BLOCK):
        block = content.read(BLOCK)
        if not block:
            return file.tell()
        file.write(block)
    raise _RefusedError("too_large", f"holds more than {MEMBER_BYTES // 10**9} GB")


def _inside(name: str) -> Path:
    """The member's place below the folder. Raises _RefusedError where its name leads elsewhere."""
    path = PurePosixPath(name.replace("\\", "/") if "/" not in name else name)
    has_drive = bool(path.parts) and path.parts[0].endswith(":")
    if path.is_absolute() or has_drive or ".." in path.parts or "\0" in name:
        raise _RefusedError("outside", "leads out of the archive")
    return Path(*path.parts)


@contextmanager
def _zipped(archive: Path, left: int) -> Iterator[list[_Member]]:
    with zipfile.ZipFile(archive) as opened:
        _require_bounded(left - sum(info.file_size for info in opened.infolist()))
        members = []
        for info in opened.infolist():
            is_link = (info.external_attr >> 16) & 0o170000 == 0o120000
            kind = "folder" if info.is_dir() else "other" if is_link else "file"
            members.append(_Member(info.filename, kind, partial(opened.open, info)))
        yield members


@contextmanager
def _tarred(archive: Path, left: int) -> Iterator[list[_Member]]:
    with tarfile.open(archive) as opened:
        members = []
        for info in opened:
            left -= info.size
            _require_bounded(left)  # at once: to pass a member over, it has to be unpacked
            # A hard link's content is another member's.
            kind = "folder" if info.isdir() else "file" if info.isreg() or info.islnk() else "other"
            members.append(_Member(info.name, kind, partial(_content, opened, info)))
        yield members


def _content(archive: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    try:
        content = archive.extractfile(info)
    except KeyError:
        content = None
    if content is None:
        raise _RefusedError("not_a_file", "a link to what the archive does not hold")
    return content
