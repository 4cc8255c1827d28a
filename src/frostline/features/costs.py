"""What it costs to compute features and to store them, and which cut point is cheapest to store.

A batch is timed on each segment of the frozen prefix, and a few megabytes on the disk, once for a machine.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frostline.core import digest, machine
from frostline.data.shards import Shards
from frostline.features import measurements
from frostline.features.measurements import Speed
from frostline.features.prefix import IMAGES, Prefix
from frostline.features.store import Store
from frostline.models import backend

# Storing is still chosen if it costs this much more than not storing, because the next run finds the features.
NEXT_RUN = 0.05

# Seconds. Storing at another place than the freeze line, or not at all, saves no more than it takes to store and read
# the features there. Below this it isn't worth measuring which place is best.
WORTH_MEASURING = 0.25


@dataclass(frozen=True)
class Costs:
    """The measured costs.

    segments: seconds for an image from each stop's predecessor to the stop, empty if they were not measured; speed: of
    the store; memory: bytes that the page cache may grow to.
    """

    segments: tuple[float, ...]
    speed: Speed
    memory: float

    def read(self, row_bytes: int, rows: int) -> float:
        """Seconds to read one of `rows` rows. If memory can't hold all rows, each one comes from the disk each time."""
        return row_bytes * (self.speed.read if row_bytes * rows < self.memory / 2 else self.speed.cold)

    def between(self, first: int, last: int) -> float:
        """Seconds for an image from one stop to another."""
        return sum(self.segments[first + 1 : last + 1])


@dataclass(frozen=True)
class Work:
    """How often a phase draws images. draws: in total; rows: how many different ones (images times variants)."""

    draws: int
    rows: int


@dataclass(frozen=True)
class Place:
    """A stop that can be stored. row_bytes: of the features of one image; stored: how many rows the store has."""

    row_bytes: int
    stored: int

    def missing_bytes(self, rows: int) -> int:
        """The bytes that have to be stored for all `rows` rows to be there."""
        return (rows - self.stored) * self.row_bytes


def cheapest(
    target: int, places: Mapping[int, Place], work: Work, costs: Costs, room: float, must_store: bool
) -> int | None:
    """The place that is cheapest to store when the features of `target` are drawn; None to store nothing.

    places: by the number of their stop, `target` among them; room: bytes that may still be stored; must_store: choose
    the cheapest of the places that fit, even if it is cheaper to store nothing.
    """
    complete = [IMAGES, *(at for at, place in places.items() if place.stored >= work.rows)]

    def read(at: int) -> float:
        return 0.0 if at == IMAGES else costs.read(places[at].row_bytes, work.rows)

    def draw(at: int) -> float:
        return read(at) + costs.between(at, target)

    def store(at: int) -> float:
        compute = min(read(before) + costs.between(before, at) for before in complete if before <= at)
        write = places[at].row_bytes * costs.speed.write
        return (work.rows - places[at].stored) * (compute + write) + work.draws * draw(at)

    store_nothing = work.draws * min(draw(at) for at in complete)
    fitting = [at for at, place in places.items() if place.missing_bytes(work.rows) <= room]
    best = min(fitting, key=store, default=None)
    if best is not None and (must_store or store(best) <= store_nothing * (1 + NEXT_RUN)):
        return best
    return None


def is_cheap(line: Place, work: Work, costs: Costs, room: float) -> bool:
    """Whether the freeze line itself is the place to store, which then is known without measuring a segment.

    All features have to be computed at least once in any case, and what comes on top costs next to nothing.
    """
    missing = line.missing_bytes(work.rows)
    seconds_on_top = missing * costs.speed.write + work.draws * costs.read(line.row_bytes, work.rows)
    return missing <= room and seconds_on_top < WORTH_MEASURING


def measure(prefix: Prefix, images: Shards, store: Store) -> tuple[float, ...]:
    """Seconds for an image in each segment of the prefix, timed on a batch unless they were measured before."""
    rows = backend.batch_rows()
    keys = ["", *(stop.entry.key for stop in prefix.stops)]
    names = [_name("costs", prefix, *ends) for ends in pairwise(keys)]
    seconds = [measurements.recall(store.folder, name) for name in names]
    unknown = [at for at, value in enumerate(seconds) if value is None]
    if unknown:
        x: NDArray[Any] = _batch(images)
        for at in range(unknown[-1] + 1):
            segment = prefix.segment(at)
            output = segment.predict_on_batch(x)  # compiles
            if at in unknown:
                seconds[at] = _seconds(segment, x) / rows
                measurements.remember(store.folder, names[at], seconds[at])
            x = output
    return tuple(seconds)


def rounds_alike(prefix: Prefix, images: Shards, store: Store) -> bool:
    """Whether the features of an image are the same bits at any place of a batch; tried once for a machine."""
    last = len(prefix.stops) - 1
    name = _name("alike", prefix, prefix.stops[last].entry.key)
    alike = measurements.recall(store.folder, name)
    if alike is None:
        alike = backend.rounds_alike(lambda x: prefix.run(IMAGES, last, x), _batch(images))
        measurements.remember(store.folder, name, alike)
    return bool(alike)


def _name(kind: str, prefix: Prefix, *keys: str) -> str:
    """The name of a measurement of what lies between stops, on this machine and its devices."""
    number = prefix.source.devices.number
    several = [f"{number} devices"] if number > 1 else []
    about = [platform.node(), machine.cores(), backend.batch_rows(), *several, *keys]
    return f"{kind}-{digest.of_value(about)[:32]}"


def _batch(images: Shards) -> NDArray[np.uint8]:
    """A batch of images, some of them repeated if there are too few."""
    rows = backend.batch_rows()
    return images.take(np.resize(np.arange(min(rows, len(images))), rows))


def _seconds(segment: backend.Predicts, batch: NDArray[Any]) -> float:
    """Seconds for a batch: the shorter of two runs, or of one that takes more than a second."""
    times: list[float] = []
    while len(times) < 2 and sum(times) < 1:
        start = time.perf_counter()
        segment.predict_on_batch(batch)
        times.append(time.perf_counter() - start)
    return min(times)
