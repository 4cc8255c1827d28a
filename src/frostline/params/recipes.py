"""Recipes: complete params.yaml files with a header that says when to use them; applying one keeps the user's data."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from frostline.core import suggest
from frostline.errors import ParamsError

# Sections that say what a project is, and not how its classifier is trained.
KEPT = ("data", "tracking", "registry")

SECTION = re.compile(r"^(\w+):", re.MULTILINE)


@dataclass(frozen=True)
class Recipe:
    """name: of its file; text: the whole file."""

    name: str
    text: str

    @property
    def header(self) -> str:
        """The comment at the top, without its signs."""
        lines = []
        for line in self.text.splitlines():
            if not line.startswith("#"):
                break
            lines.append(line.removeprefix("#").removeprefix(" "))
        return "\n".join(lines)

    @property
    def summary(self) -> str:
        """The header's first paragraph: when to use it."""
        return " ".join(self.header.partition("\n\n")[0].split())


def every(folder: Path) -> list[Recipe]:
    """The recipes of a folder, by name. Raises ParamsError where there are none."""
    found = [Recipe(path.stem, path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.yaml"))]
    if not found:
        raise ParamsError(f"{folder}/: holds no recipe; run from the project's folder")
    return found


def named(folder: Path, name: str) -> Recipe:
    """The recipe of that name. Raises ParamsError, naming the nearest, where there is none."""
    found = {recipe.name: recipe for recipe in every(folder)}
    if name not in found:
        raise ParamsError(f"{folder / name}.yaml: no such recipe; {suggest.hint(name, found, cutoff=0.0)}")
    return found[name]


def merged(recipe: str, present: str) -> str:
    """A recipe as params.yaml, with the sections KEPT of the present file as they are written there.

    Both are texts of params.yaml with its sections at the left margin; the header goes, for what it says holds no more
    once values are changed.
    """
    ours = _sections(present)
    parts = []
    for name, text in _sections(recipe).items():
        kept = ours.get(name) if name in KEPT else None
        parts.append(text if kept is None else kept.rstrip("\n") + "\n" * (len(text) - len(text.rstrip("\n"))))
    return "".join(parts)


def _sections(text: str) -> dict[str, str]:
    """The text of each top-level key, with what follows it up to the next one."""
    starts = [(match[1], match.start()) for match in SECTION.finditer(text)]
    ends = [start for _, start in starts[1:]] + [len(text)]
    return {name: text[start:end] for (name, start), end in zip(starts, ends, strict=True)}
