"""`frostline recipe`: list recipes, show one, or make it params.yaml."""

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


def run(name: str | None, apply: bool, yes: bool, image_size: bool) -> str:
    """The list of recipes, one recipe's text, or with `apply` a line on what was written.

    yes: don't ask before params.yaml is overwritten; image_size: take the recipe's into `data:`. Raises ParamsError for
    an unknown recipe, and where nobody can be asked.
    """
    if name is None:
        found = recipes.every(paths.RECIPES)
        wide = max(len(recipe.name) for recipe in found)
        return "\n".join(f"{recipe.name:<{wide}}  {recipe.summary}" for recipe in found)
    recipe = recipes.find(paths.RECIPES, name)
    if not apply:
        return recipe.text.rstrip("\n")
    return _apply(recipe, yes, image_size)


def _apply(recipe: recipes.Recipe, yes: bool, image_size: bool) -> str:
    target = paths.PARAMS
    is_there = target.is_file()
    present = target.read_text(encoding="utf-8") if is_there else ""
    with tempfile.TemporaryDirectory() as scratch:  # nothing is replaced by what can't be read
        draft = Path(scratch) / target.name
        draft.write_text(recipes.merged(recipe.text, present), encoding="utf-8")
        wanted = _read(recipe.text, scratch).data.image_size
        if image_size:
            edit.change(draft, {"data.image_size": wanted})
        made = load(draft)
        backbones.check(made.backbone.name, "none", made.data.image_size, made.backbone.alpha)
        text = draft.read_text(encoding="utf-8")
    if is_there and not yes:
        _ask(f"{target} is overwritten, its data:, tracking: and registry: sections are kept. Go on? [y/N] ")
    with atomic.file(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    lines = [f"recipe: {target} is {recipe.name} now, for {made.data.source}; `dvc repro` trains it"]
    if made.data.image_size != wanted:
        lines.append(
            f"note    it is meant for images of {wanted} pixels, data.image_size is {made.data.image_size}; "
            "--image-size takes the recipe's"
        )
    return "\n".join(lines)


def _read(text: str, scratch: str) -> Params:
    path = Path(scratch) / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path)


def _ask(question: str) -> None:
    """Raises ParamsError for any answer but yes."""
    if not sys.stdin.isatty():
        raise ParamsError(f"{paths.PARAMS}: would be overwritten, and nobody can be asked here; add --yes")
    if input(question).strip().lower() not in {"y", "yes"}:
        raise ParamsError(f"{paths.PARAMS}: left as it is; answer y, or add --yes, to overwrite it")
