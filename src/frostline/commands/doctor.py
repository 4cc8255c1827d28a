"""`frostline doctor`: quick checks of a project before a stage starts."""

from __future__ import annotations

from datetime import datetime

from frostline import paths
from frostline.core import atomic
from frostline.features import store
from frostline.features.store import Store
from frostline.ingest import inspection
from frostline.models import backbones, layer_names
from frostline.params.schema import Params
from frostline.project import requirements
from frostline.tracking import checkup


def check(params: Params) -> str:
    """A line with the backbone and the source, the content of the activation store, and a line about MLflow.

    No image is opened and Keras is not loaded, so it takes seconds. Raises UserError for a problem that would stop a
    stage later.
    """
    with atomic.scratch(paths.state() / "doctor") as scratch:
        inspection.check(params, scratch)
    backbone = params.backbone
    backbones.check(backbone.name, backbone.weights, params.data.image_size, backbone.alpha)
    layer_names.check(params)
    backbones.require(backbone.name, backbone.weights)
    for folder in (paths.features(), paths.checkpoints(), paths.PREPARED.parent, paths.REPORTS):
        atomic.require_writable(folder)
    lines = [f"doctor: {backbone.name} ({backbone.weights}) on {params.data.source}; all folders are writable"]
    lines += [*_store_lines(store.opened(params.cache)), checkup.line(params.tracking)]
    return "\n".join([*lines, *_lock_lines()])


def _lock_lines() -> list[str]:
    """A warning if requirements.lock, by which stages notice an upgrade, pins another frostline than this one."""
    text = paths.REQUIREMENTS.read_text(encoding="utf-8") if paths.REQUIREMENTS.is_file() else ""
    pinned = requirements.outdated(text)
    if pinned is None:
        return []
    return [
        f"warning: {paths.REQUIREMENTS}: pins frostline {pinned}, not the one that runs; run `frostline init --update`"
    ]


def _store_lines(features: Store) -> list[str]:
    """The size of the store, then a line for each entry, the last used first."""
    entries = features.usage()
    lines = [
        f"features: {sum(entry.bytes for entry in entries) / 1e9:.2f} of {features.budget / 1e9:g} GB in "
        f"{features.folder}, {len(entries)} {'entry' if len(entries) == 1 else 'entries'}; all files can be deleted"
    ]
    for entry in entries:
        about = entry.about
        origin = f"{about.get('backbone', '?')} to {about.get('layer', '?')}, {about.get('image_size', '?')} px"
        time = datetime.fromtimestamp(entry.used).strftime("%Y-%m-%d %H:%M")
        lines.append(f"  {entry.bytes / 1e6:9.1f} MB  {entry.images:9,} images  {origin}, {entry.dtype}, used {time}")
    return lines
