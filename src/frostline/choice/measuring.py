"""The probes of bodies at all their depths, on the prepared images of train and validation; test is not opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from frostline import paths
from frostline.choice import bodies, probes
from frostline.choice.bodies import Candidate
from frostline.choice.probes import Probe
from frostline.choice.verdict import BodyProbe, DepthProbe, Situation
from frostline.data import shards
from frostline.data.shards import Shards
from frostline.errors import DataError
from frostline.features import store
from frostline.features.store import Store
from frostline.models import backbones, backend
from frostline.params.schema import Params

if TYPE_CHECKING:
    from frostline.models.backbones import Backbone
    from frostline.models.weights import Locate

PIXELS = "pixels"  # the name of the floor that is the images themselves
FIRST = 1000  # images on which all bodies are measured, before more are used for the better ones
CHUNK = 1024  # images that are in memory at once


@dataclass(frozen=True)
class Measured:
    """bodies: what each is worth at its depths; situation: the images that they were measured on, and the floors."""

    bodies: list[BodyProbe]
    situation: Situation


@dataclass(frozen=True)
class Sample:
    """Prepared images in an order of which each beginning has about the same share of each class.

    splits: of train and validation, those that have images; order: the rows of both together; fold: of each row;
    train: images of train.
    """

    splits: list[Shards]
    labels: NDArray[np.int64]
    order: NDArray[np.int64]
    fold: NDArray[np.int64]
    train: int

    def rows(self, count: int) -> NDArray[np.int64]:
        """The rows of the first `count` images, ascending."""
        return np.sort(self.order[:count])

    def parts(self, count: int) -> list[tuple[Shards, NDArray[np.int64]]]:
        """The same rows by split: its images, and its own rows."""
        ends = np.cumsum([len(split) for split in self.splits])
        rows = self.rows(count)
        parts = np.split(rows, np.searchsorted(rows, ends[:-1]))
        return [(split, part - end + len(split)) for split, part, end in zip(self.splits, parts, ends, strict=True)]


def measure(params: Params, candidates: Sequence[Candidate], locate: Locate, most: int | None = None) -> Measured:
    """Probe all depths of bodies whose weights are at hand, and the floors.

    All bodies are measured on the first images; those that may be the best, at least half of them, on twice as many,
    and so on, until all images are used (successive halving, Jamieson & Talwalkar, AISTATS 2016; what is dropped is
    clearly worse, as in Maron & Moore, "Hoeffding Races", NIPS 1993). most: images that are used at most, None for all.
    Raises DataError if there are no prepared images, or none that can be compared.
    """
    features = store.opened(params.cache)
    sample = _sample(params, features)
    total = min(len(sample.order), most or len(sample.order))
    found: dict[int, BodyProbe] = {}
    left, count = list(range(len(candidates))), total if len(candidates) == 1 else min(FIRST, total)
    while True:
        probed = _probed(params, [candidates[number] for number in left], locate, sample, count, features)
        found |= dict(zip(left, probed, strict=True))
        if count == total:
            break
        left = promising(found, left)
        count = total if len(left) == 1 else min(2 * count, total)
    (floor,) = _probed(params, [bodies.floor()], locate, sample, count, features)
    rows = sample.rows(count)
    pixels = np.concatenate([_pixels(images, each) for images, each in sample.parts(count)])
    floors = [
        (bodies.RANDOM, floor.best.ridge.accuracy),
        (PIXELS, probes.ridge(pixels, sample.labels[rows], sample.fold[rows], sample.train).accuracy),
    ]
    situation = Situation(count, len(np.unique(sample.labels)), sample.train, floors)
    return Measured([found[number] for number in range(len(candidates))], situation)


def promising(found: Mapping[int, BodyProbe], left: Sequence[int]) -> list[int]:
    """Which bodies are measured on more images: the better half, and all that are not clearly worse than the best."""
    ranked = sorted(left, key=lambda number: -found[number].best.ridge.accuracy)
    low, _ = found[ranked[0]].best.ridge.interval
    kept = [
        number
        for place, number in enumerate(ranked)
        if place < (len(ranked) + 1) // 2 or found[number].best.ridge.interval[1] >= low
    ]
    return sorted(kept)


def _sample(params: Params, features: Store) -> Sample:
    splits = [shards.open_folder(paths.PREPARED / name, features.memory) for name in ("train", "val")]
    train = len(splits[0])
    splits = [each for each in splits if len(each)]
    labels = np.concatenate([each.labels for each in splits]) if splits else np.empty(0, np.int64)
    if len(np.unique(labels)) < 2:
        raise DataError(f"{paths.PREPARED}: has images of fewer than two classes; run `dvc repro prepare`")
    together = pd.concat([each.together for each in splits], ignore_index=True)
    fold = probes.folds(labels, together, params.seed)
    if len(np.unique(fold)) < 2:
        raise DataError(f"{paths.PREPARED}: all images of train and val are one group; there is nothing to compare")
    chance = np.random.default_rng(params.seed).permutation(len(labels))
    by_class = pd.Series(labels[chance]).groupby(labels[chance])
    place = (by_class.cumcount() + 0.5) / by_class.transform("size")
    order = chance[np.argsort(place.to_numpy(), kind="stable")]
    return Sample(splits, labels, order, fold, train)


def _probed(
    params: Params, candidates: Sequence[Candidate], locate: Locate, sample: Sample, count: int, features: Store
) -> list[BodyProbe]:
    """The probes of all depths of some bodies, in one pass over the first `count` images."""
    with backend.quiet():
        from frostline.features import depths
        from frostline.models import freezing

    size = sample.splits[0].layout.image_size
    built = [_built(each, locate, size, params.seed) for each in candidates]
    one_pass = depths.Pass(built, "choose")
    parts = [one_pass.vectors(images, rows, features) for images, rows in sample.parts(count)]
    rows = sample.rows(count)
    labels, fold = sample.labels[rows], sample.fold[rows]
    cache: dict[str, tuple[Probe, Probe]] = {}
    found = []
    for candidate, body, places in zip(candidates, built, one_pass.depths, strict=True):
        measured = []
        for depth in places:
            key = depth.entry.key
            if key not in cache:
                about = np.concatenate([part[key] for part in parts]), labels, fold, sample.train
                cache[key] = probes.ridge(*about), probes.nearest(*about)
            measured.append(DepthProbe(depth.layer, depth.share, *cache[key]))
        # All bodies see images of this size, whatever they were made for, and a narrow one costs less than a wide one.
        work = round(sum(freezing.multiply_adds(layer) for layer in body.model.layers))
        found.append(BodyProbe(replace(candidate, multiply_adds=work), measured))
    return found


def _built(candidate: Candidate, locate: Locate, size: int, seed: int) -> Backbone:
    """The body. Random weights are the same every time, so that the store has what is computed with them."""
    backend.make_deterministic(seed)
    return backbones.of_section(candidate.section, locate, size)


def _pixels(images: Shards, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
    return np.concatenate([probes.pixels(images.take(chunk)) for chunk in chunks] or [np.empty((0, 192), np.float32)])
