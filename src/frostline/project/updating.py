"""Bring a project that an older version made to this version's template and keys, as a change in git to be read."""

from __future__ import annotations

import re
import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from frostline import paths
from frostline.core import atomic
from frostline.errors import ParamsError, UserError
from frostline.params import edit
from frostline.params.schema import load
from frostline.project import completing, repository, requirements, settings, template

PIN = re.compile(rf"{requirements.NAME}(\[[\w,-]*\])?==[^\"']+")


def update(folder: Path, renames: Mapping[str, str] = completing.RENAMED) -> str:
    """Write anew what belongs to the template, and what params.yaml lacks. Returns a few lines on it.

    renames: new names of keys by their old ones. A file of the template that is not there any more is not made again.
    Raises UserError if the folder is no project, or if a file that would change has uncommitted changes.
    """
    folder = folder.absolute()
    for path in (paths.PARAMS, paths.PIPELINE, paths.PYPROJECT):
        if not (folder / path).is_file():
            raise UserError(f"{folder / path}: not found; name the folder of a project that `frostline init` made")
    top = repository.find(folder)
    if top is None:
        raise UserError(f"{folder}: is in no git repository, so the update could not be undone; run `git init` first")
    source = requirements.origin()
    before = {path: _read(folder / path) for path in _files(folder)}
    after = _texts(folder, top, source, before) | {paths.PARAMS: _params(folder, before[paths.PARAMS], renames)}
    different = [path for path in sorted(after) if after[path] != before.get(path)]
    if changed := repository.changed(folder, different):
        raise UserError(f"{changed[0]}: has uncommitted changes, and the update would change it too; commit it first")
    for path in different:
        with atomic.file(folder / path) as temporary:
            temporary.write_text(after[path], encoding="utf-8")
    if not different:
        return f"init: {folder.name} is up to date with frostline {source.version}"
    if source.wheel is not None and paths.REQUIREMENTS in different:
        _exchange(folder, source.wheel)
    return "\n".join([f"init: {', '.join(map(str, different))} changed", *_notes(source, different, _problem(folder))])


def _files(folder: Path) -> list[Path]:
    """The files that an update may change and that are there."""
    wanted = [*template.KEPT_CURRENT, paths.PARAMS, paths.PYPROJECT, paths.REQUIREMENTS]
    return [path for path in wanted if (folder / path).is_file()]


def _texts(folder: Path, top: Path, source: requirements.Origin, before: Mapping[Path, str]) -> dict[Path, str]:
    """The new texts of all files but params.yaml."""
    pyproject = PIN.sub(rf"{requirements.NAME}\g<1>=={source.version}", before[paths.PYPROJECT])
    project = _project(folder, pyproject)
    needs = [str(each) for each in project.get("dependencies", [])]
    requirement = next((each for each in needs if PIN.fullmatch(each)), f"{requirements.NAME}=={source.version}")
    facts = template.facts_of(folder, top, requirement, str(project["name"]))
    texts = {path: text for path, text in template.files(facts).items() if path in before}
    kept = {path: text for path, text in texts.items() if path in template.KEPT_CURRENT}
    kept[paths.SCHEMA] = template.files(facts)[paths.SCHEMA]  # a project that is older than it gets it
    return kept | {paths.PYPROJECT: pyproject, paths.REQUIREMENTS: requirements.lock(needs or [requirement], source)}


def _project(folder: Path, text: str) -> dict[str, Any]:
    try:
        project: dict[str, Any] = tomllib.loads(text).get("project", {})
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{folder / paths.PYPROJECT}: is no TOML ({error}); fix it") from None
    if not project.get("name"):
        raise UserError(f"{folder / paths.PYPROJECT}: has no project.name; add it")
    return project


def _params(folder: Path, text: str, renames: Mapping[str, str]) -> str:
    """params.yaml with the keys of this version. The values of renamed keys stay."""
    shorter, values = completing.renamed(text, renames)
    whole = completing.completed(shorter, settings.text(None))
    if values:
        with atomic.scratch(paths.state() / "update") as scratch:
            draft = scratch / paths.PARAMS
            draft.write_text(whole, encoding="utf-8")
            edit.change(draft, values)
            whole = _read(draft)
    return whole


def _exchange(folder: Path, wheel: Path) -> None:
    """Put a wheel of frostline beside the project's other ones, in place of those that git can bring back."""
    (folder / paths.WHEELS).mkdir(exist_ok=True)
    for old in (folder / paths.WHEELS).glob(f"{requirements.NAME}-*.whl"):
        if not repository.changed(folder, [old.relative_to(folder)]):
            old.unlink()
    shutil.copy(wheel, folder / paths.WHEELS)


def _problem(folder: Path) -> str | None:
    """What is still wrong with params.yaml, one line; None if nothing is."""
    try:
        load(folder / paths.PARAMS)
    except ParamsError as error:
        return str(error)
    return None


def _notes(source: requirements.Origin, different: list[Path], problem: str | None) -> list[str]:
    has_wheel = source.wheel is not None and paths.REQUIREMENTS in different
    notes = [f"note      {source.advice}"] if source.advice and paths.REQUIREMENTS in different else []
    notes += [f"warning: {problem}"] if problem else []
    return [
        *notes,
        "next      git diff                   # read it; `git checkout -p FILE` takes parts of it back",
        "          dvc repro                  # trains again if requirements.lock or a value changed",
        f"          {f'git add {paths.WHEELS} && ' if has_wheel else ''}git commit -am 'Update frostline'",
    ]


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")
