"""Stage `augment`: seeded variants of the training split, and a contact sheet of what they look like."""

from __future__ import annotations

from frostline import paths
from frostline.core import atomic
from frostline.data import shards, variants
from frostline.params.schema import Params


def run(params: Params) -> str:
    """Make the variants; one line that says what came out."""
    settings = params.augment
    train = shards.open_folder(paths.PREPARED / "train")
    with atomic.folder(paths.AUGMENTED) as folder, atomic.file(paths.CONTACT_SHEET) as sheet:
        variants.write(settings, train, params.seed, folder)
        variants.contact_sheet(settings, train, params.seed).save(sheet, format="PNG")
    if settings.mode == "live":
        return f"augment: nothing to store, variants are drawn live; {paths.CONTACT_SHEET} shows what they look like"
    return f"augment: {settings.copies} variants of {len(train)} training images; look at {paths.CONTACT_SHEET}"
