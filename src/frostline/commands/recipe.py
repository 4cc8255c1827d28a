"""`frostline recipe`: list the recipes, show one, or write it to params.yaml.

They are those of the project's folder recipes/, or if it has none, those that frostline brings.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from frostline import paths
from frostline.core import atomic
from frostline.errors import ParamsError
from frostline.models import backbones
from frostline.params import edit, recipes
from frostline.params.schema import Params, load
from frostline.project import json_schema, template


def run(name: str | None, apply: bool, yes: bool, image_size: bool) -> str:
    """The list of recipes, the text of one recipe, or with `apply` a line that says what was written.

    yes: do not ask before params.yaml is overwritten; image_size: set data.image_size to that of the recipe. Raises
    ParamsError for an unknown recipe, and if there is no terminal for the question.
    """
    if name is None:
        all_recipes = recipes.every(_folder())
        width = max(len(recipe.name) for recipe in all_recipes)
        return "\n".join(f"{recipe.name:<{width}}  {recipe.summary}" for recipe in all_recipes)
    recipe = recipes.find(_folder(), name)
    if not apply:
        return recipe.text.rstrip("\n")
    return _apply(recipe, yes, image_size)


def _apply(recipe: recipes.Recipe, yes: bool, image_size: bool) -> str:
    target = paths.PARAMS
    is_there = target.is_file()
    present = target.read_text(encoding="utf-8") if is_there else ""
    with tempfile.TemporaryDirectory() as scratch:  # check the new file before it replaces the old one
        draft = Path(scratch) / target.name
        modeline = json_schema.modeline(present)  # the schema of an editor belongs to the file, not to its values
        draft.write_text(modeline + recipes.merged(recipe.text, present), encoding="utf-8")
        recipe_size = _read(recipe.text, scratch).data.image_size
        if image_size:
            edit.change(draft, {"data.image_size": recipe_size})
        settings = load(draft)
        backbones.check(settings.backbone.name, "none", settings.data.image_size, settings.backbone.alpha)
        text = draft.read_text(encoding="utf-8")
    if is_there and not yes:
        _ask(f"This overwrites {target}, except its sections data:, tracking: and registry:. Continue? [y/N] ")
    with atomic.file(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    lines = [f"recipe: {target} is {recipe.name} now, for {settings.data.source}; `dvc repro` trains it"]
    if settings.data.image_size != recipe_size:
        lines.append(
            f"note    it is meant for images of {recipe_size} pixels, data.image_size is {settings.data.image_size}; "
            "--image-size sets that of the recipe"
        )
    return "\n".join(lines)


def _folder() -> Path:
    return paths.RECIPES if paths.RECIPES.is_dir() else template.RECIPES


def _read(text: str, scratch: str) -> Params:
    path = Path(scratch) / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path)


def _ask(question: str) -> None:
    """Raise ParamsError for any answer except yes."""
    if not sys.stdin.isatty():
        raise ParamsError(f"{paths.PARAMS}: exists, and there is no terminal to ask before overwriting it; add --yes")
    if input(question).strip().lower() not in {"y", "yes"}:
        raise ParamsError(f"{paths.PARAMS}: left as it is; answer y, or add --yes, to overwrite it")
