"""The files of a project, from the folder `template`.

Most of them are links to this repository's own, so that there is one source; a wheel has the files themselves. In a
name, `dot_` stands for a dot, `package` for the name of the project's package, and `.txt` keeps tools from taking a
file for one of ours; in a text, `@NAME@` is a fact of the project.
"""

from __future__ import annotations

import platform
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from frostline import paths
from frostline.core import own_code
from frostline.project import json_schema

FOLDER = Path(__file__).with_name("template")
FILES = FOLDER / "files"
PARAMS = FOLDER / "params.yaml"
RECIPES = FOLDER / "recipes"
PIPELINE = FOLDER / "pipeline.yaml"  # under its own name, DVC would take it for a second pipeline of this repository

PIPELINE_HEADER = """\
# The four stages. Each depends on its data, on the params that it reads, and on requirements.lock, which pins
# frostline: so another version of it trains again, and an edit of a plot or a comment does not.
"""

RUN_OWN_CODE = ("augment", "finetune", "evaluate")  # stages that may run functions of the project

# What `frostline init --update` writes anew; all others belong to the project from its first day.
KEPT_CURRENT = (
    paths.PIPELINE,
    paths.SCHEMA,
    Path("Dockerfile"),
    Path("Dockerfile.serve"),
    Path(".dockerignore"),
    Path(".github/workflows/frostline.yaml"),
    Path(".gitlab-ci.yml"),
)


@dataclass(frozen=True)
class ProjectFacts:
    """What the files of a project say of it.

    name: of the distribution; folder: where it lies in its git repository, `.` for the top; python: `3.12`;
    requirement: frostline's own, `frostline[imagenet]==0.1.0`.
    """

    name: str
    folder: str
    python: str
    requirement: str

    @property
    def package(self) -> str:
        """The name of the project's Python package."""
        word = re.sub(r"\W", "_", self.name.lower())
        return f"project_{word}" if word[0].isdigit() else word


def facts_of(folder: Path, top: Path | None, requirement: str, name: str | None = None) -> ProjectFacts:
    """What the files of a project say of it. name: of the distribution, None for one like the folder's."""
    place = folder.resolve().relative_to(top.resolve()).as_posix() if top else "."
    release = ".".join(platform.python_version_tuple()[:2])
    return ProjectFacts(name or _name(folder.resolve().name), place, release, requirement)


def _name(folder: str) -> str:
    """A name for a distribution, an experiment and a model, like that of a folder."""
    latin = unicodedata.normalize("NFKD", folder).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9]+", "-", latin).strip("-").lower() or "classifier"
    return f"{name}-project" if name == "frostline" else name  # a project can't depend on itself


def files(facts: ProjectFacts) -> dict[Path, str]:
    """The text of each file that does not depend on the data, by its path in the project."""
    texts = {_target(path, facts): _filled(_read(path), facts) for path in sorted(FILES.rglob("*")) if path.is_file()}
    return texts | {paths.PIPELINE: pipeline(), paths.SCHEMA: _read(json_schema.FILE)}


def pipeline() -> str:
    """dvc.yaml of a project: this repository's own, whose stages depend on requirements.lock and not on our sources.

    Those that may run functions of the project depend on its sources.
    """
    lines = _read(PIPELINE).splitlines(keepends=True)
    start = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    texts = []
    for line in lines[start:]:
        if line.startswith("      - src/frostline/stages/"):  # the last of our sources in a stage
            stage = Path(line.split("/")[-1]).stem
            texts.append(f"      - {own_code.SOURCES}\n" if stage in RUN_OWN_CODE else "")
        elif not line.startswith("      - src/"):
            texts.append(line)
    return PIPELINE_HEADER + "".join(texts)


def _target(path: Path, facts: ProjectFacts) -> Path:
    names = [facts.package if name == "package" else name for name in path.relative_to(FILES).parts]
    return Path(*(re.sub("^dot_", ".", name).removesuffix(".txt") for name in names))


def _filled(text: str, facts: ProjectFacts) -> str:
    known = {
        "NAME": facts.name,
        "PACKAGE": facts.package,
        "FOLDER": facts.folder,
        "PYTHON": facts.python,
        "REQUIREMENT": facts.requirement,
    }
    return re.sub(r"@([A-Z]+)@", lambda match: known[match[1]], text)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")
