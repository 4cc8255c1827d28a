"""`frostline init`: a project of one's own, ready for `dvc repro`, and its update to another version of frostline."""

from __future__ import annotations

from pathlib import Path

from frostline.errors import UserError
from frostline.project import creating, updating
from frostline.project.wishes import Wish


def run(folder: Path | None, data: Path | None, recipe: str | None, body: str | None) -> str:
    """Make a project in a folder that is new or has none of its files. Returns lines on what was chosen and is next.

    data: the images; recipe, body: what to begin with, None for what fits the images. Raises UserError, one line with
    the fix, and leaves nothing behind.
    """
    if folder is None:
        raise UserError("DIR: is missing; name a new folder, as in `frostline init myproject --data ~/photos`")
    return creating.create(Wish(folder, data, recipe, body))


def update(folder: Path | None, data: Path | None, recipe: str | None, body: str | None) -> str:
    """Bring the project of a folder, or of this one, to this version. Returns lines on what changed.

    Raises UserError for options of a new project, and for a folder that is none or has uncommitted changes.
    """
    for name, value in {"--data": data, "--recipe": recipe, "--body": body}.items():
        if value is not None:
            raise UserError(f"{name}: is for a new project, and --update keeps what params.yaml says; leave it out")
    return updating.update(folder or Path())
