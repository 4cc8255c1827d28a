"""`frostline backbones`: the possible values of `backbone.name`, without loading Keras."""

from __future__ import annotations

import json
from typing import Any

from frostline.models import backbones

COLUMNS = ("name", "parameters", "native", "smallest", "layers", "cut points", "alpha, with ImageNet weights")


def run(as_json: bool = False) -> str:
    """All backbones, without their classification layers, as a table or a JSON array.

    parameters: in millions; native, smallest: sides of an image in pixels; layers: as `finetune.freeze` counts them;
    cut_points: the number of places where frozen features can be stored.
    """
    rows = [_row(name) for name in backbones.TABLE]
    if as_json:
        return json.dumps(rows, indent=2)
    lines = [COLUMNS, *(_cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place in (0, len(widths) - 1) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _row(name: str) -> dict[str, Any]:
    spec, size = backbones.TABLE[name], backbones.sizes()[name]
    return {
        "name": name,
        "parameters": round(size.parameters / 1e6, 2),
        "native": spec.native,
        "smallest": spec.smallest,
        "layers": size.layers,
        "cut_points": size.cut_points,
        "alphas": list(spec.alphas),
        "preprocessing": spec.preprocessing,
    }


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    counts = (str(row[key]) for key in ("native", "smallest", "layers", "cut_points"))
    return (row["name"], f"{row['parameters']:.1f} M", *counts, " ".join(f"{each:g}" for each in row["alphas"]))
