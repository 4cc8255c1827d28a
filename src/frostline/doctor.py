"""What can be said about a project in a moment, before a stage starts."""

from __future__ import annotations

from pathlib import Path

from frostline import atomic, backbones, catalog
from frostline.errors import DataError
from frostline.params import Params


def check(params: Params) -> str:
    """One line that says what will be trained on what. Raises UserError for what would stop a stage later.

    DVC too stops at a missing source, but with the words of a file system and without a mend.
    """
    source = Path(params.data.source)
    if not source.exists():
        raise DataError(f"{source}: not found; set data.source to a folder with one subfolder a class, or to a card")
    backbones.check(params.backbone.name, params.backbone.weights, params.data.image_size)
    for place in (catalog.features(), catalog.checkpoints(), catalog.PREPARED.parent, catalog.REPORTS):
        atomic.require_writable(place)
    return f"doctor: {params.backbone.name} ({params.backbone.weights}) on {source}; all places can be written"
