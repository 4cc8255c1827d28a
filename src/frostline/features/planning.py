"""The plan: at which place of the frozen prefix features are stored, or that they are not, by measured costs.

What crosses the freeze line may be large and quick to compute, and a shallower place small: storing that one and
computing the rest on the fly can be the cheapest. Nautilus (Nakandala & Kumar, SIGMOD 2022) decides this from constants
that its user guesses; here a batch is timed on each segment and a few megabytes on the disk, once for a machine.

The plan is about time alone: features are the same bits wherever they are taken from, or the plan's line says that
they are not.
"""

from __future__ import annotations

import math
import platform
import sys
import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from frostline.core import digest, machine
from frostline.data.shards import Shards
from frostline.features import measurements
from frostline.features.measurements import Speed
from frostline.features.prefix import IMAGES, FeatureSource, Prefix, Rows, Stop
from frostline.features.store import Store
from frostline.models import backend
from frostline.models.freezing import CutPoint

# Storing may cost so much more than not storing and is chosen still: the next run finds the features.
NEXT_RUN = 0.05

# Seconds. A place other than the freeze line, or none, saves no more than storing and reading there take; below that it
# isn't worth measuring which is best.
WORTH_MEASURING = 0.25


@dataclass(frozen=True)
class Demand:
    """What a phase of training draws. line: the last cut with nothing but frozen layers before it; epochs: how often
    it draws all images; variants: which of them its epochs reach, 0 being the originals."""

    name: str
    line: CutPoint
    epochs: int
    variants: Set[int]


@dataclass(frozen=True)
class Costs:
    """What was measured. segments: seconds an image, from each stop's predecessor to it, none where nothing depends on
    them; speed: the store's; memory: bytes that the page cache may grow to."""

    segments: tuple[float, ...]
    speed: Speed
    memory: float

    def read(self, row_bytes: int, rows: int) -> float:
        """Seconds that one of `rows` rows takes to read: what memory can't hold comes from the disk each time."""
        return row_bytes * (self.speed.read if row_bytes * rows < self.memory / 2 else self.speed.cold)

    def between(self, first: int, last: int) -> float:
        """Seconds an image from one stop to another."""
        return sum(self.segments[first + 1 : last + 1])


@dataclass(frozen=True)
class Work:
    """How often a phase draws images. draws: altogether; rows: different ones (images times variants)."""

    draws: int
    rows: int


@dataclass(frozen=True)
class Place:
    """A stop that may be stored. row_bytes: of one image's features; there: how many of the rows the store has."""

    row_bytes: int
    there: int


@dataclass(frozen=True)
class Route:
    """Where a phase takes its features.

    stop: where they are wanted; kept: the stop that is stored for those variants, or None; usable: the stops whose
    features may be used on the way.
    """

    stop: int
    kept: int | None
    variants: Set[int]
    usable: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Plan:
    """How the features of all phases are had. read: stops whose features are used as far as they are stored;
    text: the plan in one line."""

    prefix: Prefix
    store: Store
    routes: Mapping[str, Route]
    read: frozenset[int]
    text: str

    def rows(self, phase: str, images: Shards, variant: int = 0) -> Rows:
        """The features of the validation split, or of the training images in that variant, for a phase."""
        route = self.routes[phase]
        kept = {other.kept for other in self.routes.values() if variant in other.variants and other.kept is not None}
        return self.prefix.rows(route.stop, kept & route.usable, self.read & route.usable, self.store, images)


def make(
    source: FeatureSource,
    phases: Sequence[Demand],
    variants: Sequence[Shards],
    validation: Shards | None,
    store: Store,
    mode: str,
    dtype: str,
) -> Plan:
    """Plan phases of which each has something frozen, in the order of training.

    variants: the images and their augmented variants; validation: others that every epoch draws as well.
    mode: `auto` (the cheapest), `always` (the cheapest that stores) or `never` (features computed for each batch, in
    float32). Where a later phase stores at a place, an earlier one computes its features from there. What has no room
    is computed for each batch, with a line of warning.
    """
    lines = {phase.name: phase.line.depth for phase in phases}
    if mode == "never":
        prefix = Prefix(source, [stop for stop in source.stops("float32") if stop.cut.depth in lines.values()])
        routes = {name: Route(prefix.depths.index(depth), None, frozenset()) for name, depth in lines.items()}
        text = f"plan: features of frozen layers computed for every batch{_exactness(prefix, variants[0], store)}"
        return Plan(prefix, store, routes, frozenset(), text)

    stops = [stop for stop in source.stops(dtype) if stop.cut.depth <= max(lines.values())]
    usable = {phase.name: _usable(stops, phase.line, store) for phase in phases}
    wanted = {stop.cut.depth for found in usable.values() for stop in found}
    prefix = Prefix(source, [stop for stop in stops if stop.cut.depth in wanted])
    costs = Costs((), measurements.speed(store.folder), machine.free_memory())
    each_epoch = [validation] if validation else []
    room = store.room()
    routes, read, words = {}, set(), []
    kept_later: set[int] = set()
    for phase in reversed(phases):
        sets = [*(variants[number] for number in sorted(phase.variants)), *each_epoch]
        rows = sum(len(images) for images in sets)
        identities = np.concatenate([images.identities for images in sets])
        target = prefix.depths.index(phase.line.depth)
        places = {}
        for stop in usable[phase.name]:
            there = store.count(stop.entry, identities)
            at = prefix.depths.index(stop.cut.depth)
            places[at] = Place(stop.entry.row_bytes, there)
            read |= {at} if there else set()
        if dtype == "float32":  # what a later phase keeps will be there
            places |= {at: Place(prefix.stops[at].entry.row_bytes, rows) for at in kept_later if at <= target}
        work = Work(phase.epochs * sum(len(images) for images in (variants[0], *each_epoch)), rows)
        if not costs.segments and not _is_foregone(places[target], work, costs, room):
            costs = replace(costs, segments=measure(prefix, variants[0], store))
        kept = choose(target, places, work, costs, room, mode == "always") if costs.segments else target
        if kept is None and choose(target, places, work, costs, math.inf, mode == "always") is not None:
            print(
                f"warning: the features for phase {phase.name} are computed for every batch, because there is room for "
                f"{_bytes(room)} in {store.folder}; free some disk, raise cache.disk_gb, or set cache.mode to never",
                file=sys.stderr,
            )
        routes[phase.name] = Route(target, kept, phase.variants, frozenset(places))
        if kept is not None:
            kept_later.add(kept)
            room -= (rows - places[kept].there) * places[kept].row_bytes
        words.append(_words(prefix, phase.name, target, kept, places, rows))
    known = [f"store {1e-9 / costs.speed.write:.1f} GB/s written, {1e-9 / max(costs.speed.read, 1e-12):.1f} read"]
    if costs.segments:
        rate = 1 / max(costs.between(IMAGES, len(prefix.stops) - 1), 1e-9)
        known.insert(0, f"{rate:,.0f} images/s through the frozen layers")
    text = f"plan: {'; '.join(reversed(words))} (measured: {', '.join(known)})"
    text += _exactness(prefix, variants[0], store)
    return Plan(prefix, store, routes, frozenset(read), text)


def choose(
    target: int, places: Mapping[int, Place], work: Work, costs: Costs, room: float, must_store: bool
) -> int | None:
    """Which place is cheapest to store, None for none, so that the features of `target` can be drawn.

    places: those that may be stored or read, `target` among them. room: bytes that may still be stored. must_store: of
    those that fit the one that is cheapest, even where storing nothing is cheaper.
    """
    complete = [IMAGES, *(place for place in places if places[place].there >= work.rows)]

    def read(place: int) -> float:
        return 0.0 if place == IMAGES else costs.read(places[place].row_bytes, work.rows)

    def draw(place: int) -> float:
        return read(place) + costs.between(place, target)

    def store(place: int) -> float:
        new = work.rows - places[place].there
        make = min(read(before) + costs.between(before, place) for before in complete if before <= place)
        return new * (make + places[place].row_bytes * costs.speed.write) + work.draws * draw(place)

    without = work.draws * min(draw(place) for place in complete)
    fitting = [p for p in places if (work.rows - places[p].there) * places[p].row_bytes <= room]
    best = min(fitting, key=store, default=None)
    if best is not None and (must_store or store(best) <= without * (1 + NEXT_RUN)):
        return best
    return None


def measure(prefix: Prefix, images: Shards, store: Store) -> tuple[float, ...]:
    """Seconds an image of each segment of the prefix, timed on a batch; what is known from before is not timed."""
    rows = backend.batch_rows()
    keys = ["", *(stop.entry.key for stop in prefix.stops)]
    names = [
        f"costs-{digest.of_value([platform.node(), machine.cores(), rows, *ends])[:32]}" for ends in pairwise(keys)
    ]
    seconds = [measurements.recall(store.folder, name) for name in names]
    unknown = [at for at, value in enumerate(seconds) if value is None]
    if unknown:
        x: NDArray[Any] = images.take(np.resize(np.arange(min(rows, len(images))), rows))
        for at in range(unknown[-1] + 1):
            segment = prefix.segment(at)
            crossing = segment.predict_on_batch(x)  # compiles
            if at in unknown:
                seconds[at] = _seconds(segment, x) / rows
                measurements.remember(store.folder, names[at], seconds[at])
            x = crossing
    return tuple(seconds)


def _exactness(prefix: Prefix, images: Shards, store: Store) -> str:
    """What the plan's line says of rounding: nothing where features are the same to the last bit. Tried once for a
    machine, on a batch."""
    last, rows = len(prefix.stops) - 1, backend.batch_rows()
    name = f"alike-{digest.of_value([platform.node(), machine.cores(), rows, prefix.stops[last].entry.key])[:32]}"
    alike = measurements.recall(store.folder, name)
    if alike is None:
        batch = images.take(np.resize(np.arange(min(rows, len(images))), rows))
        alike = backend.rounds_alike(lambda x: prefix.run(IMAGES, last, x), batch)
        measurements.remember(store.folder, name, alike)
    return "" if alike else "; features are equal to 1e-5 only, because this engine rounds by the place in the batch"


def _is_foregone(line: Place, work: Work, costs: Costs, room: float) -> bool:
    """Whether it is plain without measuring a segment that the freeze line itself is stored: that all features have to
    be made at least once is so anyway, and what comes on top costs next to nothing."""
    new = (work.rows - line.there) * line.row_bytes
    on_top = new * costs.speed.write + work.draws * costs.read(line.row_bytes, work.rows)
    return new <= room and on_top < WORTH_MEASURING


def _usable(stops: Sequence[Stop], line: CutPoint, store: Store) -> list[Stop]:
    """The stops before a freeze line that can be worth storing, or extending from; the line's own is the last.

    One with a deeper one behind it that is no larger never is, unless something is stored for it already. In float16
    what is computed from a stored place would be other than what is computed from the images: only the line's own.
    """
    *others, own = [stop for stop in stops if stop.cut.depth <= line.depth]
    found = [own]
    smallest = own.entry.row_bytes
    for stop in reversed(others if own.entry.dtype == "float32" else []):
        if stop.entry.row_bytes < smallest or store.holds(stop.entry):
            found.append(stop)
        smallest = min(smallest, stop.entry.row_bytes)
    return found[::-1]


def _seconds(segment: keras.Model, batch: NDArray[Any]) -> float:
    """Seconds of a batch: the better of two, or one where it takes more than one second."""
    times: list[float] = []
    while len(times) < 2 and sum(times) < 1:
        start = time.perf_counter()
        segment.predict_on_batch(batch)
        times.append(time.perf_counter() - start)
    return min(times)


def _words(prefix: Prefix, phase: str, target: int, kept: int | None, places: Mapping[int, Place], rows: int) -> str:
    """What a phase does, in a few words."""
    wanted = f"{phase} on {prefix.stops[target].cut.layer}"
    if kept is None:
        return f"{wanted}, computed for every batch"
    place = places[kept]
    there = "all there" if place.there >= rows else f"{place.there:,} of {rows:,} images there"
    stored = f"stored ({_bytes(rows * place.row_bytes)}, {there})"
    if kept == target:
        return f"{wanted}, {stored}"
    return f"{wanted}, computed for every batch from {prefix.stops[kept].cut.layer}, {stored}"


def _bytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
