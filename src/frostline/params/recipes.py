"""Recipes: complete params.yaml files with a header that explains when to use them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from frostline.core import suggest
from frostline.errors import ParamsError

# Sections that describe the project, and not how its classifier is trained.
PROJECT_SECTIONS = ("data", "tracking", "registry")

SECTION = re.compile(r"^(\w+):", re.MULTILINE)


@dataclass(frozen=True)
class Recipe:
    """A recipe. name: of its file, without suffix; text: the whole file."""

    name: str
    text: str

    @property
    def header(self) -> str:
        """The comment at the top of the file, without the `#` signs."""
        lines = []
        for line in self.text.splitlines():
            if not line.startswith("#"):
                break
            lines.append(line.removeprefix("#").removeprefix(" "))
        return "\n".join(lines)

    @property
    def summary(self) -> str:
        """The first paragraph of the header: when to use the recipe."""
        return " ".join(self.header.partition("\n\n")[0].split())


def every(folder: Path) -> list[Recipe]:
    """The recipes of a folder, sorted by name. Raises ParamsError if there are none."""
    recipes = [Recipe(path.stem, path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.yaml"))]
    if not recipes:
        raise ParamsError(f"{folder}/: holds no recipe; run from the project's folder")
    return recipes


def find(folder: Path, name: str) -> Recipe:
    """The recipe with this name. Raises ParamsError, naming the most similar one, if there is none."""
    recipes = {recipe.name: recipe for recipe in every(folder)}
    if name not in recipes:
        raise ParamsError(f"{folder / name}.yaml: no such recipe; {suggest.hint(name, recipes, cutoff=0.0)}")
    return recipes[name]


def merged(recipe: str, present: str) -> str:
    """The text of a recipe with the PROJECT_SECTIONS of the present params.yaml.

    recipe, present: texts of params.yaml files. The header of the recipe is removed, because it is no longer true when
    values are changed.
    """
    own_sections = _sections(present)
    parts = []
    for name, text in _sections(recipe).items():
        own_text = own_sections.get(name) if name in PROJECT_SECTIONS else None
        parts.append(text if own_text is None else own_text.rstrip("\n") + "\n" * (len(text) - len(text.rstrip("\n"))))
    return "".join(parts)


def _sections(text: str) -> dict[str, str]:
    """The text of each top-level key, up to the next one."""
    starts = [(match[1], match.start()) for match in SECTION.finditer(text)]
    ends = [start for _, start in starts[1:]] + [len(text)]
    return {name: text[start:end] for (name, start), end in zip(starts, ends, strict=True)}
