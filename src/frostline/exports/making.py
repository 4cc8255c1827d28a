"""Make an export: write the file, compare it with `predict`, write its card. All of it appears, or nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frostline.core import atomic, digest
from frostline.errors import DataError, UserError
from frostline.exports import formats, graph
from frostline.exports.formats import FORMATS, Format
from frostline.models import account

LABELS = "labels.json"
TAKES = {
    "image": "uint8 RGB (height, width, 3) of any size, upright",
    "bytes": "the bytes of a JPEG or PNG file",
}


@dataclass(frozen=True)
class Order:
    """What is asked for: a format, one of `FORMATS`; what the graph takes, `image` or `bytes`."""

    form: str
    takes: str = "image"


def make(folder: Path, order: Order, target: Path) -> str:
    """Write the export of a bundle's folder to a new folder, and say what it is.

    Raises UserError if the format is unknown, or needs a package that is not installed; DataError if the target has
    other content. A target that already has the same export is not changed.
    """
    form = _format(order.form)
    if (intake := form.takes.get(order.takes)) is None:
        able = " or ".join(name for name, each in FORMATS.items() if order.takes in each.takes)
        raise UserError(f"--bytes: {order.form} can't decode images; use --format {able}, or leave --bytes away")
    layout = account.read(folder).layout
    about = {"format": order.form, "takes": order.takes, "bundle": digest.of_folder(folder)}
    if target.exists():
        if about.items() <= _labels(target).items():
            return f"export: {target / form.file} already has this classifier"
        raise DataError(f"{target}: exists and has other content; give a new folder")
    with atomic.folder(target) as output:
        _write(form, graph.of_bundle(folder, intake), output / form.file, order.form)
        atomic.write_json(output / LABELS, layout.recorded() | about)
    return f"export: {target / form.file}; takes {TAKES[order.takes]}, see {LABELS}"


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise UserError(f"--format: {name} is unknown; use one of {', '.join(FORMATS)}")
    return FORMATS[name]


def _write(form: Format, made: graph.Graph, path: Path, name: str) -> None:
    try:
        with formats.quiet():
            form.write(made, path)
    except ImportError as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"--format: {name} needs another package ({reason}); {form.install}") from error


def _labels(target: Path) -> dict[str, Any]:
    """The labels.json of an earlier export; empty if there is none."""
    try:
        content = json.loads((target / LABELS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
