"""Put a new project into its folder: all of it, or nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from frostline.core import atomic
from frostline.errors import UserError


def require_free(folder: Path, files: Iterable[Path]) -> None:
    """Raise UserError if something lies in a folder where one of these files would go."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; give the name of a new folder")
    taken = sorted(str(each) for each in files if os.path.lexists(folder / each))
    if taken:
        more = f" (and {len(taken) - 1} more)" if len(taken) > 1 else ""
        raise UserError(
            f"{folder / taken[0]}: exists{more}, and nothing is overwritten; give a new folder, or `frostline init "
            "--update` for a project that is there already"
        )


def place(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary folder, and move what it wrote into the folder, which may exist."""
    if not folder.exists():
        with atomic.folder(folder) as temporary:
            write(temporary)
        return
    atomic.require_writable(folder)
    with atomic.scratch(folder / "init") as temporary:
        write(temporary)
        moved: list[Path] = []
        try:
            for path in sorted(temporary.iterdir()):
                _move(path, folder / path.name, moved)
        except BaseException:
            for path in reversed(moved):
                _remove(path)
            raise


def _move(path: Path, target: Path, moved: list[Path]) -> None:
    """Move a file or folder; a folder that is there is filled. moved: is given what did not exist before."""
    if target.is_dir() and path.is_dir():
        for each in sorted(path.iterdir()):
            _move(each, target / each.name, moved)
    else:
        path.rename(target)
        moved.append(target)


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
