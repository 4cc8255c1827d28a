"""Features: what the frozen prefix makes of images, stored or computed on the fly, as rows to draw batches from.

Every image passes the prefix alone, in inference mode and in batches of one size. So its features are the same bits
whether they come from the store, from a shallower stored place, or are computed for this very batch: where they are
taken from is a matter of time alone. That needs an engine that rounds a row alike wherever in the batch it lies, as
`engine.rounds_alike` tries; where one does not, features are equal to about 1e-5 of their size, and the plan says so.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import keras
import numpy as np
from numpy.typing import NDArray

from frostline.core import digest
from frostline.core.mapped import Pieces
from frostline.data.shards import Shards
from frostline.errors import ParamsError
from frostline.features.store import Entry, Store
from frostline.models import assembly, backend, freezing
from frostline.models.backbones import Backbone
from frostline.models.freezing import CutPoint
from frostline.models.heads import Head

IMAGES = -1  # the place before the first stop


class Rows(Protocol):
    """An array-like of images or of their features: what training draws its batches from."""

    def __len__(self) -> int: ...

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Copy the given rows, in their order: shape (len(rows), ...)."""
        ...


@dataclass(frozen=True)
class Stop:
    """A place to take features: behind a cut; behind the body's last layer it is the pooled vector that is taken."""

    cut: CutPoint
    entry: Entry


@dataclass(frozen=True)
class FeatureSource:
    """A network as it is before training. Good while its frozen weights are, whenever it is used, what they were."""

    backbone: Backbone
    head: Head

    def stops(self, dtype: str) -> list[Stop]:
        """The stops at all cut points, from shallow to deep. dtype: float16 or float32, of the features."""
        backbone = self.backbone
        about = {"backbone": backbone.name, "image_size": backbone.model.input.shape[1]}
        return [
            Stop(
                cut,
                Entry(key, assembly.crossing_shape(backbone, self.head, cut), dtype, {**about, "layer": cut.layer}),
            )
            for cut, key in self._keys
        ]

    @cached_property
    def _keys(self) -> list[tuple[CutPoint, str]]:
        engine_used = [keras.__version__, keras.backend.backend()]
        cuts = freezing.cut_points(self.backbone.model)
        keys = assembly.keys(self.backbone, self.head, cuts)
        return [(cut, digest.of_value([key, *engine_used])) for cut, key in zip(cuts, keys, strict=True)]


@dataclass(frozen=True)
class Prefix:
    """The frozen prefix of a network, as a chain of segments between stops. stops: from shallow to deep."""

    source: FeatureSource
    stops: Sequence[Stop]
    _segments: dict[int, keras.Model] = field(default_factory=dict, repr=False, compare=False)

    @property
    def depths(self) -> list[int]:
        """How many layers are before each stop: what a stop is found by."""
        return [stop.cut.depth for stop in self.stops]

    def run(self, first: int, last: int, batch: NDArray[Any]) -> NDArray[Any]:
        """What stands at stop `first` (IMAGES: images) -> what stands at stop `last`; any number of rows."""
        rows = backend.batch_rows()
        made = []
        for start in range(0, len(batch), rows):
            x = batch[start : start + rows]
            for at in range(first + 1, last + 1):
                x = backend.predict(self.segment(at), x, rows)
            made.append(x)
        return made[0] if len(made) == 1 else np.concatenate(made)

    def segment(self, at: int) -> keras.Model:
        """The compiled model that leads to a stop from the one before it."""
        if at not in self._segments:
            start = self.stops[at - 1].cut if at - 1 != IMAGES else None
            self._segments[at] = assembly.segment(self.source.backbone, self.source.head, start, self.stops[at].cut)
        return self._segments[at]

    def rows(self, stop: int, kept: Set[int], read: Set[int], store: Store, images: Shards) -> Rows:
        """The features of images at a stop.

        kept: stops whose features are put into the store; read: stops whose features are used where they are stored.
        """
        rows: Rows = images
        at = IMAGES
        for place in sorted(kept | read):
            if place <= stop:
                computed = ComputedRows(self, at, place, rows)
                rows = StoredRows(store, self.stops[place].entry, images.identities, computed, place in kept)
                at = place
        return rows if at == stop else ComputedRows(self, at, stop, rows)


@dataclass(frozen=True)
class ComputedRows:
    """Features computed on the fly from what stands at an earlier place."""

    prefix: Prefix
    first: int
    last: int
    below: Rows

    def __len__(self) -> int:
        return len(self.below)

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Copy of the rows' features. Raises ParamsError where they are not finite in the wanted dtype."""
        entry = self.prefix.stops[self.last].entry
        out = np.empty((len(rows), *entry.shape), entry.dtype)
        size = backend.batch_rows()
        for start in range(0, len(rows), size):  # what lies below may be much larger than what is asked for
            made = self.prefix.run(self.first, self.last, self.below.take(rows[start : start + size]))
            with np.errstate(over="ignore"):  # said below, with the fix
                out[start : start + size] = made
        if not np.isfinite(out).all():
            raise ParamsError(
                f"params.yaml: features are not finite in cache.dtype {entry.dtype}; set it to float32, "
                "or fix backbone.weights"
            )
        return out


@dataclass(frozen=True)
class StoredRows:
    """Features out of the store; those that are not there are computed, and with `keep` put there at the first use."""

    store: Store
    entry: Entry
    identities: NDArray[np.bytes_]
    computed: Rows
    keep: bool

    @cached_property
    def pieces(self) -> Pieces:
        """Where the store has them."""
        if self.keep:
            self.store.add(self.entry, self.identities, self.computed.take, backend.batch_rows())
        return self.store.find(self.entry, self.identities)

    @cached_property
    def _complete(self) -> bool:
        return not len(self.pieces.missing)

    def __len__(self) -> int:
        return len(self.identities)

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        if self._complete:
            return self.pieces.take(rows)
        there = self.pieces.piece[rows] >= 0
        out = np.empty((len(rows), *self.entry.shape), self.entry.dtype)
        out[there] = self.pieces.take(rows[there])
        if not there.all():
            out[~there] = self.computed.take(rows[~there])
        return out
