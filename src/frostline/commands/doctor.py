"""What can be said about a project in a moment, before a stage starts."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from frostline import paths
from frostline.core import atomic
from frostline.errors import DataError
from frostline.features import store
from frostline.features.store import Store
from frostline.models import backbones
from frostline.params.schema import Params


def check(params: Params) -> str:
    """What will be trained on what, in a line, and what the activation store holds.

    Raises UserError for what would stop a stage later; DVC too stops at a missing source, but with the words of a file
    system and without a fix.
    """
    source = Path(params.data.source)
    if not source.exists():
        raise DataError(f"{source}: not found; set data.source to a folder, a table, an archive or a card")
    named = params.backbone
    backbones.check(named.name, named.weights, params.data.image_size, named.alpha)
    for place in (paths.features(), paths.checkpoints(), paths.PREPARED.parent, paths.REPORTS):
        atomic.require_writable(place)
    lines = [f"doctor: {params.backbone.name} ({params.backbone.weights}) on {source}; all places can be written"]
    return "\n".join([*lines, *_stored(store.opened(params.cache))])


def _stored(opened: Store) -> list[str]:
    """What the store holds, the last used first; a line an entry."""
    kept = opened.usage()
    lines = [
        f"features: {sum(entry.bytes for entry in kept) / 1e9:.2f} of {opened.budget / 1e9:g} GB in {opened.folder}, "
        f"{len(kept)} {'entry' if len(kept) == 1 else 'entries'}; deleting any of it is safe"
    ]
    for entry in kept:
        about = entry.about
        made = f"{about.get('backbone', '?')} to {about.get('layer', '?')}, {about.get('image_size', '?')} px"
        used = datetime.fromtimestamp(entry.used).strftime("%Y-%m-%d %H:%M")
        lines.append(f"  {entry.bytes / 1e6:9.1f} MB  {entry.images:9,} images  {made}, {entry.dtype}, used {used}")
    return lines
