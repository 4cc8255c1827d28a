"""Stage `augment`: seeded variants of the training split, and a contact sheet that shows them."""

from __future__ import annotations

from frostline import paths
from frostline.core import atomic
from frostline.core.executors import Executor
from frostline.data import contact_sheet, shards, variants
from frostline.params.schema import Params


def run(params: Params, executor: Executor | None = None) -> str:
    """Write the variants. Returns one line about them. executor: where they are made, None for this process."""
    settings = params.augment
    train = shards.open_folder(paths.PREPARED / "train")
    with atomic.folder(paths.AUGMENTED) as folder, atomic.file(paths.CONTACT_SHEET) as sheet:
        variants.write(settings, train, params.seed, folder, executor)
        contact_sheet.draw(settings, train, params.seed).save(sheet, format="PNG")
    if settings.mode == "live":
        return f"augment: no stored variants, because augment.mode is live; {paths.CONTACT_SHEET} shows examples"
    return f"augment: {settings.copies} variants of {len(train)} training images; look at {paths.CONTACT_SHEET}"
