"""Files and folders that appear whole or not at all.

They are first written under a temporary name in the same folder and renamed at the end, so that a killed process leaves
no half output that DVC would take for a result. The next process removes the temporary files of a killed one.
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
    """Yield a temporary folder that replaces `path` when the block ends without an error."""
    temporary = _beside(path)
    try:
        temporary.mkdir()
        with _with_file_name(path):
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
    """Yield a temporary path with the same suffix. The file replaces `path` when the block ends without an error."""
    temporary = _beside(path)
    try:
        with _with_file_name(path):
            yield temporary
            with temporary.open("rb") as output:
                os.fsync(output.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that other users can't read. It is removed when the block ends."""
    temporary = _beside(path)
    try:
        temporary.mkdir(0o700)
        with _with_file_name(path):
            yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _with_file_name(path: Path) -> Iterator[None]:
    """Add the path to the error of a full disk, because the system's error has no file name."""
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
    """Run the block in one process at a time. A killed process releases the lock. waiting: printed if it must wait."""
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting:
                print(waiting, file=sys.stderr)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def shared_lock(path: Path) -> Iterator[None]:
    """Hold a lock that several processes can share. `lock` waits for all of them, and `try_lock` does not get it."""
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_SH)
        yield


@contextmanager
def try_lock(path: Path) -> Iterator[str | None]:
    """Take a lock if it is free, and yield None. Otherwise yield a description of the process that holds it.

    The file is never removed: otherwise two processes could hold locks on two files with the same name.
    """
    with path.open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            holder = handle.read().strip()
            yield holder or "another process"
            return
        handle.truncate(0)
        handle.write(f"process {os.getpid()} on {socket.gethostname()}")
        handle.flush()
        yield None


def require_writable(folder: Path) -> None:
    """Create a folder if it does not exist. Raises StateError if no files can be created in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StateError(
            f"{folder}: can't be made ({error.strerror}); fix its permissions, or remove the file with that name"
        ) from error
    if not os.access(folder, os.W_OK):
        raise StateError(f"{folder}: is not writable; fix its permissions, or choose another place")


def _beside(path: Path) -> Path:
    """A temporary path of this process beside `path`. It also removes leftovers of dead processes."""
    require_writable(path.parent)
    # The name contains the host, because containers that share a folder use the same process numbers.
    before, after = f".{path.stem}.{socket.gethostname()}-", f".part{path.suffix}"
    for leftover in path.parent.iterdir():
        pid = leftover.name.removeprefix(before).removesuffix(after)
        if pid.isdecimal() and leftover.name == f"{before}{pid}{after}" and not _is_another(int(pid)):
            shutil.rmtree(leftover, ignore_errors=True) if leftover.is_dir() else leftover.unlink(missing_ok=True)
    return path.with_name(f"{before}{os.getpid()}{after}")


def _is_another(pid: int) -> bool:
    """Whether another process with this number is alive. In containers, a dead one often had our own number."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
