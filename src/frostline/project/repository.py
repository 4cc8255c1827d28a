"""The git repository of a project: an existing one, or one of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from frostline.errors import UserError
from frostline.tracking import git

WATCHED = ("dvc.yaml", "dvc.lock", "params.yaml", "requirements.lock")  # what DVC and git must both see


def find(folder: Path) -> Path | None:
    """The top of the repository that a folder lies in, or would lie in; None outside of one.

    Raises UserError if git is not installed, does not answer for the repository, or ignores the folder.
    """
    if shutil.which("git") is None:
        raise UserError("git: not found; install it, because DVC and the records of runs need it")
    here = next(each for each in (folder, *folder.parents) if each.is_dir())
    top = git.output("-C", str(here), "rev-parse", "--show-toplevel")
    if top is None:
        broken = next((each for each in (here, *here.parents) if (each / ".git").exists()), None)
        if broken is not None:
            raise UserError(f"{broken}: is a git repository that git does not read; see `git -C {broken} status`")
        return None
    for name in WATCHED:
        if (rule := git.output("-C", top, "check-ignore", "--verbose", str(folder / name))) is not None:
            raise UserError(f"{folder / name}: is ignored by git ({rule.split()[0]}); change that, or the folder")
    return Path(top)


def start(folder: Path) -> None:
    """Make a folder a repository. Raises UserError with git's reason if that fails."""
    if git.output("-C", str(folder), "-c", "init.defaultBranch=main", "init", "--quiet") is None:
        raise UserError(f"{folder}: `git init` fails there; try it by hand")


def add(folder: Path, files: Iterable[Path]) -> bool:
    """Stage files, by their paths in a folder. Returns whether git did it."""
    return git.output("-C", str(folder), "add", "--", *map(str, files)) is not None


def changed(folder: Path, files: Iterable[Path]) -> list[str]:
    """Which of these files in a folder differ from the last commit, or are not in it."""
    names = [str(each) for each in files]
    if not names:
        return []
    differ = git.output("-C", str(folder), "diff", "--name-only", "--relative", "-z", "HEAD", "--", *names)
    new = git.output("-C", str(folder), "ls-files", "--others", "-z", "--", *names)
    if differ is None or new is None:  # there is no commit yet
        return names
    return [name for name in f"{differ}\0{new}".split("\0") if name]
