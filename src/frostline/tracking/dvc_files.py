"""The files of a revision that DVC keeps, wherever the project lies in its git repository."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from frostline import paths
from frostline.tracking import git

if TYPE_CHECKING:
    from dvc.api import DVCFileSystem


def at(revision: str) -> tuple[DVCFileSystem, str]:
    """The files of a revision, and the project's folder in them, empty or with a slash at its end.

    DVC shows a revision from the top of its git repository, and a project that lies deeper is another repository of
    DVC's to it. Raises DVC's errors.
    """
    from dvc.api import DVCFileSystem

    top = git.output("-C", str(paths.root()), "rev-parse", "--show-toplevel")
    place = "." if top is None else os.path.relpath(paths.root(), Path(top).resolve())
    if top is None or place == ".":
        return DVCFileSystem(str(paths.root()), rev=revision), ""
    return DVCFileSystem(top, rev=revision, subrepos=True), f"{Path(place).as_posix()}/"
