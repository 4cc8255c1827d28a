"""The plan: at which cut point of the frozen prefix features are stored, if at all, by measured costs.

The features at the freeze line may be large and quick to compute, and those at an earlier cut point small: to store the
small ones and to compute the rest for each batch can be the cheapest. Nautilus (Nakandala & Kumar, SIGMOD 2022) decides
this from constants that its user guesses; here costs are measured (costs.py).

A plan only changes the time: features are the same bits wherever they are taken from, or the plan's line says that they
are not.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

import numpy as np

from frostline.core import machine
from frostline.data.shards import Rows, Shards
from frostline.features import costs, measurements
from frostline.features.costs import Costs, Place, Work
from frostline.features.prefix import IMAGES, FeatureSource, Prefix, Stop
from frostline.features.store import Store
from frostline.models.freezing import CutPoint


@dataclass(frozen=True)
class Demand:
    """The features that a phase of training draws.

    line: the last cut point with only frozen layers before it; epochs: how often the phase draws all images; variants:
    which of them its epochs reach, where 0 are the originals.
    """

    name: str
    line: CutPoint
    epochs: int
    variants: Set[int]


@dataclass(frozen=True)
class Route:
    """Where a phase takes its features from, by the numbers of stops.

    stop: where the phase needs them; kept: the stop that is stored for those variants, or None; usable: the stops whose
    features may be used on the way.
    """

    stop: int
    kept: int | None
    variants: Set[int]
    usable: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Plan:
    """Where all phases take their features from.

    read: the stops whose features are used as far as they are stored; text: the plan in one line.
    """

    prefix: Prefix
    store: Store
    routes: Mapping[str, Route]
    read: frozenset[int]
    text: str

    def rows(self, phase: str, images: Shards, variant: int = 0) -> Rows:
        """The features of the validation images, or of the training images in that variant, for a phase."""
        route = self.routes[phase]
        kept = {other.kept for other in self.routes.values() if variant in other.variants and other.kept is not None}
        return self.prefix.rows(route.stop, kept & route.usable, self.read & route.usable, self.store, images)


def make(
    source: FeatureSource,
    demands: Sequence[Demand],
    variants: Sequence[Shards],
    validation: Shards | None,
    store: Store,
    mode: str,
    dtype: str,
) -> Plan:
    """Plan phases that each have something frozen, in the order of training.

    variants: the training images and their augmented variants; validation: images that every epoch draws as well; mode:
    `auto` (the cheapest), `always` (the cheapest that stores) or `never` (features are computed for each batch, in
    float32). If a later phase stores features, an earlier phase computes its own from them. Features that have no room
    are computed for each batch, and a line of warning says so.
    """
    if mode == "never":
        return _computing_all(source, demands, variants[0], store)
    prefix, usable = _candidates(source, demands, store, dtype)
    planner = _Planner(prefix, store, variants[0], is_exact=dtype == "float32", must_store=mode == "always")
    each_epoch = [validation] if validation else []
    decisions: list[_Decision] = []
    for demand in reversed(demands):
        images = [*(variants[number] for number in sorted(demand.variants)), *each_epoch]
        draws = demand.epochs * sum(map(len, (variants[0], *each_epoch)))
        decisions.insert(0, planner.decide(demand, usable[demand.name], images, draws))
    text = f"plan: {'; '.join(map(str, decisions))} (measured: {planner.measured()})"
    text += _exactness(prefix, variants[0], store)
    routes = {decision.phase: decision.route for decision in decisions}
    return Plan(prefix, store, routes, frozenset(planner.read), text)


def _computing_all(source: FeatureSource, demands: Sequence[Demand], images: Shards, store: Store) -> Plan:
    """The plan that stores nothing."""
    lines = {demand.name: demand.line.depth for demand in demands}
    prefix = Prefix(source, [stop for stop in source.stops("float32") if stop.cut.depth in lines.values()])
    routes = {name: Route(prefix.depths.index(depth), None, frozenset()) for name, depth in lines.items()}
    text = f"plan: features of frozen layers computed for every batch{_exactness(prefix, images, store)}"
    return Plan(prefix, store, routes, frozenset(), text)


def _candidates(
    source: FeatureSource, demands: Sequence[Demand], store: Store, dtype: str
) -> tuple[Prefix, dict[str, list[Stop]]]:
    """The prefix with the stops that can be worth storing, and for each phase those that it can use."""
    deepest = max(demand.line.depth for demand in demands)
    stops = [stop for stop in source.stops(dtype) if stop.cut.depth <= deepest]
    usable = {demand.name: _usable(stops, demand.line, store) for demand in demands}
    depths = {stop.cut.depth for stops_of_phase in usable.values() for stop in stops_of_phase}
    return Prefix(source, [stop for stop in stops if stop.cut.depth in depths]), usable


def _usable(stops: Sequence[Stop], line: CutPoint, store: Store) -> list[Stop]:
    """The stops up to a freeze line that can be worth storing or reading; the last one is the line's own.

    A stop is left out if a deeper one is no larger, unless something is stored for it already. In float16 the features
    computed from a stored stop would differ from those computed from the images, so only the line's own stop is used.
    """
    *earlier, own = [stop for stop in stops if stop.cut.depth <= line.depth]
    usable = [own]
    smallest = own.entry.row_bytes
    for stop in reversed(earlier if own.entry.dtype == "float32" else []):
        if stop.entry.row_bytes < smallest or store.holds(stop.entry):
            usable.append(stop)
        smallest = min(smallest, stop.entry.row_bytes)
    return usable[::-1]


@dataclass(frozen=True)
class _Decision:
    """What a phase does. places: the stops that it can use; rows: how many different rows it draws."""

    phase: str
    prefix: Prefix
    route: Route
    places: Mapping[int, Place]
    rows: int

    def __str__(self) -> str:
        target, kept = self.route.stop, self.route.kept
        phase = f"{self.phase} on {self.prefix.stops[target].cut.layer}"
        if kept is None:
            return f"{phase}, computed for every batch"
        place = self.places[kept]
        stored = "all there" if place.stored >= self.rows else f"{place.stored:,} of {self.rows:,} images there"
        storing = f"stored ({_bytes(self.rows * place.row_bytes)}, {stored})"
        if kept == target:
            return f"{phase}, {storing}"
        return f"{phase}, computed for every batch from {self.prefix.stops[kept].cut.layer}, {storing}"


@dataclass
class _Planner:
    """Decides for one phase after another, from the last to the first.

    images: to measure with; is_exact: whether features are stored without loss; room: bytes that may still be stored;
    kept: the stops that later phases store; read: the stops with something in the store.
    """

    prefix: Prefix
    store: Store
    images: Shards
    is_exact: bool
    must_store: bool
    room: float = field(init=False)
    costs: Costs = field(init=False)
    kept: set[int] = field(default_factory=set, init=False)
    read: set[int] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        self.room = self.store.room()
        self.costs = Costs((), measurements.speed(self.store.folder), machine.free_memory())

    def decide(self, demand: Demand, usable: Sequence[Stop], images: Sequence[Shards], draws: int) -> _Decision:
        """Choose what a phase stores. images: all that it draws; draws: how many rows it draws in total."""
        target = self.prefix.depths.index(demand.line.depth)
        work = Work(draws, sum(map(len, images)))
        places = self._places(target, usable, images, work.rows)
        kept = self._cheapest(target, places, work)
        if kept is not None:
            self.kept.add(kept)
            self.room -= places[kept].missing_bytes(work.rows)
        elif costs.cheapest(target, places, work, self.costs, math.inf, self.must_store) is not None:
            print(
                f"warning: the features for phase {demand.name} are computed for every batch, because there is room "
                f"for {_bytes(self.room)} in {self.store.folder}; free some disk, raise cache.disk_gb, or set "
                "cache.mode to never",
                file=sys.stderr,
            )
        route = Route(target, kept, demand.variants, frozenset(places))
        return _Decision(demand.name, self.prefix, route, places, work.rows)

    def measured(self) -> str:
        """The measurements that the plan rests on, in words."""
        speed = self.costs.speed
        words = f"store {1e-9 / speed.write:.1f} GB/s written, {1e-9 / max(speed.read, 1e-12):.1f} read"
        if not self.costs.segments:
            return words
        rate = 1 / max(self.costs.between(IMAGES, len(self.prefix.stops) - 1), 1e-9)
        return f"{rate:,.0f} images/s through the frozen layers, {words}"

    def _places(self, target: int, usable: Sequence[Stop], images: Sequence[Shards], rows: int) -> dict[int, Place]:
        """The stops that a phase can store or read, with what is stored of them."""
        identities = np.concatenate([each.identities for each in images])
        places = {}
        for stop in usable:
            at = self.prefix.depths.index(stop.cut.depth)
            places[at] = Place(stop.entry.row_bytes, self.store.count(stop.entry, identities))
            self.read |= {at} if places[at].stored else set()
        if self.is_exact:  # the stops that a later phase stores will be complete
            places |= {at: Place(self.prefix.stops[at].entry.row_bytes, rows) for at in self.kept if at <= target}
        return places

    def _cheapest(self, target: int, places: Mapping[int, Place], work: Work) -> int | None:
        """The stop to store. Segments are measured the first time that the answer depends on them."""
        if not self.costs.segments:
            if costs.is_cheap(places[target], work, self.costs, self.room):
                return target
            self.costs = replace(self.costs, segments=costs.measure(self.prefix, self.images, self.store))
        return costs.cheapest(target, places, work, self.costs, self.room, self.must_store)


def _exactness(prefix: Prefix, images: Shards, store: Store) -> str:
    """The words on rounding: none if features are the same to the last bit."""
    if costs.rounds_alike(prefix, images, store):
        return ""
    return "; features are equal to 1e-5 only, because this engine rounds by the place in the batch"


def _bytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
