"""`frostline backbones`: the possible values of `backbone.name`, without loading Keras."""

from __future__ import annotations

import json
from typing import Any

from frostline.models import backbones, hub_presets
from frostline.models.hub_presets import Preset

COLUMNS = {
    "name": "name",
    "parameters": "parameters",
    "multiply_adds": "multiply-adds",
    "native": "native",
    "smallest": "smallest",
    "layers": "layers",
    "cut_points": "cut points",
    "imagenet_top1": "top-1",
    "imagenet_weights": "weights",
    "alphas": "alpha, with ImageNet weights",
}
TO_THE_LEFT = ("name", "imagenet_weights", "alphas")


def run(as_json: bool = False) -> str:
    """All backbones, without their classification layers, as a table or a JSON array.

    With KerasHub installed, its presets are in it as well. Keras does not have to be loaded, so only the number of
    parameters is known of them, with all parts of the preset.

    parameters, multiply_adds: in millions, the second for an image of the native size; native, smallest: sides of an
    image in pixels; layers: as `finetune.freeze` counts them; cut_points: the number of places where frozen features
    can be stored; imagenet_top1: accuracy on ImageNet in percent, as the source of the weights states it;
    imagenet_weights: `installed` (a Python package), `cached` (by Keras) or `download`, null if there are none.
    """
    rows = [*map(_row, backbones.TABLE), *map(_preset_row, hub_presets.usable())]
    if as_json:
        return json.dumps(rows, indent=2)
    lines = [tuple(COLUMNS.values()), *(_cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if key in TO_THE_LEFT else cell.rjust(width)
            for key, cell, width in zip(COLUMNS, line, widths, strict=True)
        ).rstrip()
        for line in lines
    )


def _row(name: str) -> dict[str, Any]:
    spec, size = backbones.TABLE[name], backbones.sizes()[name]
    return {
        "name": name,
        "parameters": round(size.parameters / 1e6, 2),
        "multiply_adds": round(size.multiply_adds / 1e6),
        "native": spec.native,
        "smallest": spec.smallest,
        "layers": size.layers,
        "cut_points": size.cut_points,
        "imagenet_top1": spec.top1,
        "imagenet_weights": backbones.whereabouts(name),
        "alphas": list(spec.alphas),
        "preprocessing": spec.preprocessing,
    }


def _preset_row(preset: Preset) -> dict[str, Any]:
    unknown = dict.fromkeys(COLUMNS)
    known = {"name": f"{hub_presets.PREFIX}{preset.name}", "parameters": round(preset.parameters / 1e6, 2)}
    return unknown | known | {"imagenet_weights": preset.whereabouts, "alphas": [], "preprocessing": "own"}


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    forms = {"parameters": "{:.1f} M", "multiply_adds": "{:,} M", "imagenet_top1": "{:.1f}"}
    cells = {key: "" if value is None else forms.get(key, "{}").format(value) for key, value in row.items()}
    cells["alphas"] = " ".join(f"{each:g}" for each in row["alphas"])
    return tuple(cells[key] for key in COLUMNS)
