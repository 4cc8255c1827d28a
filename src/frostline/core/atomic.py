"""Files and folders that appear whole or not at all.

Everything is first written under a temporary name beside its final place and renamed at the end, so that a killed
process leaves no half output that DVC would take for a result. What a killed process did leave is swept by the next.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from frostline.errors import NO_SPACE, StateError


@contextmanager
def folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder that becomes `path`, replacing what is there, when the block ends well."""
    temporary = _beside(path)
    try:
        temporary.mkdir()
        with _named(path):
            yield temporary
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def file(path: Path) -> Iterator[Path]:
    """Give a temporary path, with the same suffix, that becomes `path` when the block ends well."""
    temporary = _beside(path)
    try:
        with _named(path):
            yield temporary
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside `path`, which other users can't look into, removed when the block ends."""
    temporary = _beside(path)
    try:
        temporary.mkdir(0o700)
        with _named(path):
            yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Let an error of a full disk, which the system does not say the place of, name the file that was to be written."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE and error.filename is None:
            error.filename = str(path)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON with a final newline."""
    with file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


@contextmanager
def lock(path: Path, waiting: str | None = None) -> Iterator[None]:
    """Keep other processes out of the block; a killed one lets go. waiting: what to say where it isn't free at once."""
    with path.open("a") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting:
                print(waiting, file=sys.stderr)
            fcntl.flock(held, fcntl.LOCK_EX)
        yield


@contextmanager
def shared_lock(path: Path) -> Iterator[None]:
    """Hold a lock together with others that share it; `lock` and `try_lock` wait for all of them, or find it taken."""
    with path.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        yield


@contextmanager
def try_lock(path: Path) -> Iterator[str | None]:
    """Take a lock if it is free: None. Otherwise the process that holds it, in words, and the block runs without.

    The file stays: whoever removed it could take a lock on a name that another process no longer sees.
    """
    with path.open("a+") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held.seek(0)
            holder = held.read().strip()
            yield holder or "another process"
            return
        held.truncate(0)
        held.write(f"process {os.getpid()} on {socket.gethostname()}")
        held.flush()
        yield None


def require_writable(folder: Path) -> None:
    """Make a folder where it is missing. Raises StateError where files can't be made in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StateError(f"{folder}: can't be made ({error.strerror}); free that name or its permissions") from error
    if not os.access(folder, os.W_OK):
        raise StateError(f"{folder}: is not writable; fix its permissions, or choose another place")


def _beside(path: Path) -> Path:
    """A temporary name of this process beside `path`; leftovers of dead processes are removed."""
    require_writable(path.parent)
    # The host belongs to the name: containers that share a folder number their processes alike.
    before, after = f".{path.stem}.{socket.gethostname()}-", f".part{path.suffix}"
    for leftover in path.parent.iterdir():
        pid = leftover.name.removeprefix(before).removesuffix(after)
        if pid.isdecimal() and leftover.name == f"{before}{pid}{after}" and not _is_another(int(pid)):
            shutil.rmtree(leftover, ignore_errors=True) if leftover.is_dir() else leftover.unlink(missing_ok=True)
    return path.with_name(f"{before}{os.getpid()}{after}")


def _is_another(pid: int) -> bool:
    """Whether another process of that number lives; in containers a dead one often had our own number."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
