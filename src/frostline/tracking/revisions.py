"""What a revision says of its evaluation: the small files from git, the others from DVC, where they are at hand."""

from __future__ import annotations

from pathlib import Path

from frostline import paths
from frostline.errors import StateError
from frostline.tracking import dvc_files, git

IN_GIT = (paths.PARAMS, paths.METRICS, paths.HISTORY)
IN_DVC = (paths.CONFUSION, paths.PREDICTIONS)


def reports(revision: str, folder: Path) -> list[Path]:
    """Write the files of a revision's evaluation into a folder. Returns those that could be had.

    DVC looks for a file in its cache and, if there is one, on its remote. Raises StateError for an unknown revision.
    """
    if git.output("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}") is None:
        raise StateError(f"{revision}: git has no such commit; `git fetch` brings the branches of a remote")
    found = []
    for path in (*IN_GIT, *IN_DVC):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if path in IN_DVC:
            is_there = _from_dvc(revision, path, target)
        elif is_there := (text := git.output("show", f"{revision}:./{path}")) is not None:
            target.write_text(f"{text}\n", encoding="utf-8")
        if is_there:
            found.append(path)
    return found


def _from_dvc(revision: str, path: Path, target: Path) -> bool:
    from dvc.exceptions import DvcException
    from dvc.scm import SCMError

    try:
        files, place = dvc_files.at(revision)
        files.get(f"{place}{path.as_posix()}", str(target))
    except (DvcException, SCMError, OSError):
        return False
    return target.is_file()
