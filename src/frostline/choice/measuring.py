"""The probes of bodies at all their depths, on the prepared images of train and validation; test is not opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from frostline import paths
from frostline.choice import bodies, probes
from frostline.choice.bodies import Candidate
from frostline.choice.verdict import BodyProbe, DepthProbe, Situation
from frostline.data import shards
from frostline.data.shards import Shards
from frostline.errors import DataError
from frostline.features import store
from frostline.models import backbones, backend
from frostline.params.schema import Params

if TYPE_CHECKING:
    from frostline.models.backbones import Backbone
    from frostline.models.weights import Locate

PIXELS = "pixels"  # the name of the floor that is the images themselves
CHUNK = 1024  # images that are in memory at once


@dataclass(frozen=True)
class Measured:
    """bodies: what each is worth at its depths; situation: the images that it was measured on, and the floors."""

    bodies: list[BodyProbe]
    situation: Situation


def measure(params: Params, chosen: Sequence[Candidate], locate: Locate) -> Measured:
    """Probe all depths of bodies whose weights are at hand, and the floors.

    Raises DataError if there are no prepared images, or none that can be compared.
    """
    features = store.opened(params.cache)
    splits = [shards.open_folder(paths.PREPARED / name, features.memory) for name in ("train", "val")]
    train = len(splits[0])
    splits = [each for each in splits if len(each)]
    labels = np.concatenate([each.labels for each in splits]) if splits else np.empty(0, np.int64)
    if len(np.unique(labels)) < 2:
        raise DataError(f"{paths.PREPARED}: has images of fewer than two classes; run `dvc repro prepare`")
    with backend.quiet():
        from frostline.choice import depths

    together = pd.concat([each.together for each in splits], ignore_index=True)
    fold = probes.folds(labels, together, params.seed)
    if len(np.unique(fold)) < 2:
        raise DataError(f"{paths.PREPARED}: all images of train and val are one group; there is nothing to compare")
    everybody = [*chosen, bodies.floor()]
    one_pass = depths.Pass([_built(each, locate, splits[0].layout.image_size, params.seed) for each in everybody])
    parts = [one_pass.vectors(images, features) for images in splits]
    cache: dict[str, DepthProbe] = {}
    found = []
    for candidate, places in zip(everybody, one_pass.depths, strict=True):
        measured = []
        for depth in places:
            key = depth.entry.key
            if key not in cache:
                vectors = np.concatenate([part[key] for part in parts])
                ridge, nearest = probes.ridge(vectors, labels, fold), probes.nearest(vectors, labels, fold)
                cache[key] = DepthProbe(depth.layer, depth.share, ridge, nearest)
            known = cache[key]
            measured.append(DepthProbe(depth.layer, depth.share, known.ridge, known.nearest))
        found.append(BodyProbe(candidate, measured))
    pixels = np.concatenate([_pixels(each) for each in splits])
    floors = [
        (bodies.RANDOM, found[-1].best.ridge.accuracy),
        (PIXELS, probes.ridge(pixels, labels, fold).accuracy),
    ]
    return Measured(found[:-1], Situation(len(labels), len(np.unique(labels)), train, floors))


def _built(candidate: Candidate, locate: Locate, size: int, seed: int) -> Backbone:
    """The body. Random weights are the same every time, so that the store has what is computed with them."""
    backend.make_deterministic(seed)
    return backbones.of_section(candidate.section, locate, size)


def _pixels(images: Shards) -> NDArray[np.float32]:
    rows = np.arange(len(images))
    chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
    return np.concatenate([probes.pixels(images.take(chunk)) for chunk in chunks])
