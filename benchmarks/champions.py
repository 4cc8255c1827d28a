"""Bundles as versions of a registered model, without training, and moves of its champion."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from frostline.core import digest
from frostline.params.schema import TrackingSection
from frostline.tracking import moves, registry
from frostline.tracking import tracker as tracking


def register(settings: TrackingSection, name: str, bundles: Sequence[Path]) -> None:
    """Make each bundle's folder a version, 1, 2, ..., and the first one the champion."""
    tracker = tracking.tracker(settings)
    for bundle in bundles:
        with tracker.result(digest.of_folder(bundle), bundle.name) as log:
            log.model(bundle)
    with registry.registry(settings, name) as models:
        for bundle in bundles:
            models.register(digest.of_folder(bundle), {}, bundle.name)
    crown(settings, name, 1)


def crown(settings: TrackingSection, name: str, number: int) -> None:
    """Make a version the champion."""
    with registry.registry(settings, name) as models:
        models.client.set_registered_model_alias(name, moves.CHAMPION, str(number))
