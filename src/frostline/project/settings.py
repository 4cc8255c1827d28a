"""params.yaml of a new project: a recipe or this package's own, with the values that fit the images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from frostline import paths
from frostline.models import backbones, layer_names
from frostline.params import edit, recipes
from frostline.params.schema import Params, load
from frostline.project import choosing, completing, json_schema, template


def text(recipe: str | None) -> str:
    """A complete params.yaml with its comments. recipe: its name; None for this package's own settings."""
    own = _without_header(template.PARAMS.read_text(encoding="utf-8"))
    header = f"{json_schema.MODELINE}{paths.SCHEMA}\n"
    if recipe is None:
        return f"{header}{own}"
    chosen = _without_header(recipes.find(template.RECIPES, recipe).text)
    header += f"# Begun from the recipe {recipe}: `frostline recipe {recipe}` says when to use it.\n\n"
    return header + completing.completed(chosen, own)


def write(path: Path, recipe: str | None, changes: Mapping[str, Any], body: str | None) -> Params:
    """Write params.yaml. changes: values by dotted key; body: the backbone, None for the recipe's.

    Raises ParamsError for values that don't go together, UserError for an unknown body.
    """
    path.write_text(text(recipe), encoding="utf-8")
    edit.change(path, changes)
    if body is not None:
        edit.change(path, choosing.with_body(load(path), body))
    params = load(path)
    backbone = params.backbone
    backbones.check(backbone.name, backbone.weights, params.data.image_size, backbone.alpha)
    layer_names.check(params)
    return params


def _without_header(text: str) -> str:
    """The text without the comments at its top: a recipe's are no longer true when values are changed."""
    return text[next(recipes.SECTION.finditer(text)).start() :]
