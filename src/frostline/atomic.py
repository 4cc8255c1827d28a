"""Files and folders that appear whole or not at all.

Everything is first written under a temporary name beside its final place and renamed at the end, so that a killed
process leaves no half output that DVC would take for a result. What a killed process did leave is swept by the next.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from frostline.errors import StateError


@contextmanager
def folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder that becomes `path`, replacing what is there, when the block ends well."""
    temporary = _beside(path)
    try:
        temporary.mkdir()
        yield temporary
        if path.exists():
            shutil.rmtree(path)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def file(path: Path) -> Iterator[Path]:
    """Give a temporary path, with the same suffix, that becomes `path` when the block ends well."""
    temporary = _beside(path)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON with a final newline."""
    with file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _beside(path: Path) -> Path:
    """A temporary name of this process beside `path`; leftovers of dead processes are removed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StateError(
            f"{path.parent}: can't be made ({error.strerror}); free that name or its permissions"
        ) from error
    for leftover in path.parent.glob(f".{path.stem}.*.part{path.suffix}"):
        pid = leftover.name.split(".")[-2 - bool(path.suffix)]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)
    if not os.access(path.parent, os.W_OK):
        raise StateError(f"{path.parent}: is not writable; mend its permissions, or choose another place")
    return path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
