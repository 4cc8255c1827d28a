"""Features: the output of the frozen prefix for images, stored or computed on the fly, as rows for batches.

The prefix runs in inference mode and in batches of one size. So the features of an image are the same bits, whether
they come from the store, from an earlier stop that is stored, or are computed for this batch: it only changes the time.
This needs a backend that rounds a row alike at any place of a batch, which `backend.rounds_alike` checks; with another
one, features are equal to about 1e-5 of their size, and the plan says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from frostline.core import digest
from frostline.core.executors import Executor
from frostline.core.mapped import Pieces
from frostline.data.shards import Rows, Shards
from frostline.errors import ParamsError
from frostline.features.elsewhere import RemoteNetwork
from frostline.features.store import Entry, Store
from frostline.models import assembly, backend, freezing
from frostline.models.backbones import Backbone
from frostline.models.devices import ONE, Devices
from frostline.models.freezing import CutPoint
from frostline.models.heads import Head

IMAGES = -1  # the place before the first stop


@dataclass(frozen=True)
class Stop:
    """A cut point with the store's entry for its features; behind the body's last layer these are the pooled vector."""

    cut: CutPoint
    entry: Entry


@dataclass(frozen=True)
class FeatureSource:
    """A network before training. It is valid while the frozen weights are what they were. devices: they share each
    call of its frozen layers."""

    backbone: Backbone
    head: Head
    devices: Devices = ONE

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
    _segments: dict[int, backend.Predicts] = field(default_factory=dict, repr=False, compare=False)

    @property
    def depths(self) -> list[int]:
        """How many layers are before each stop; this number identifies a stop."""
        return [stop.cut.depth for stop in self.stops]

    def run(self, first: int, last: int, batch: NDArray[Any]) -> NDArray[Any]:
        """Turn features at stop `first` (IMAGES: images) into features at stop `last`; any number of rows."""
        rows = backend.batch_rows()
        outputs = []
        for start in range(0, len(batch), rows):
            x = batch[start : start + rows]
            for at in range(first + 1, last + 1):
                x = backend.predict(self.segment(at), x, rows)
            outputs.append(x)
        return outputs[0] if len(outputs) == 1 else np.concatenate(outputs)

    def segment(self, at: int) -> backend.Predicts:
        """The compiled model from the stop before to this one."""
        if at not in self._segments:
            self._segments[at] = self.source.devices.predicting(self._model(at))
        return self._segments[at]

    def models(self, first: int, last: int) -> list[keras.Model]:
        """The models from stop `first` (IMAGES: images) to stop `last`, for another process."""
        return [self._model(at) for at in range(first + 1, last + 1)]

    def _model(self, at: int) -> keras.Model:
        source, start = self.source, self.stops[at - 1].cut if at - 1 != IMAGES else None
        return assembly.segment(source.backbone, source.head, start, self.stops[at].cut)

    def rows(self, stop: int, kept: Set[int], read: Set[int], store: Store, images: Shards) -> Rows:
        """The features of images at a stop.

        kept: the stops whose features are put into the store; read: the stops whose features are used if they are
        stored.
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
    """Features at stop `last` that are computed on the fly from the rows at stop `first`."""

    prefix: Prefix
    first: int
    last: int
    below: Rows

    def __len__(self) -> int:
        return len(self.below)

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Copy the features of the rows. Raises ParamsError if they are not finite in the entry's dtype."""
        out = np.empty((len(rows), *self._entry.shape), self._entry.dtype)
        size = backend.batch_rows()
        for start in range(0, len(rows), size):  # the rows below may be much larger than the features
            features = self.prefix.run(self.first, self.last, self.below.take(rows[start : start + size]))
            out[start : start + size] = self._stored_as(features)
        return out

    def parts(self, parts: Iterable[NDArray[np.int64]], executor: Executor | None) -> Iterator[NDArray[Any]]:
        """The features of parts of the rows. executor: where they are computed from images, None for this process."""
        if executor is None or not isinstance(self.below, Shards):
            return map(self.take, parts)
        network = RemoteNetwork.of(self.below, self.prefix.models(self.first, self.last))
        return map(self._stored_as, executor.map(network, parts, on_gpu=True))

    @property
    def _entry(self) -> Entry:
        return self.prefix.stops[self.last].entry

    def _stored_as(self, features: NDArray[Any]) -> NDArray[Any]:
        """Features in the entry's dtype. Raises ParamsError if they are not finite in it."""
        entry = self._entry
        with np.errstate(over="ignore"):  # reported below, with the fix
            out = features.astype(entry.dtype, copy=False)
        if not np.isfinite(out).all():
            raise ParamsError(
                f"params.yaml: features are not finite in cache.dtype {entry.dtype}; set it to float32, "
                "or fix backbone.weights"
            )
        return out


@dataclass(frozen=True)
class StoredRows:
    """Features from the store. Missing ones are computed, and with `keep` stored at the first use."""

    store: Store
    entry: Entry
    identities: NDArray[np.bytes_]
    computed: ComputedRows
    keep: bool

    @cached_property
    def pieces(self) -> Pieces:
        """The places of the features in the store."""
        if self.keep:
            make = partial(self.computed.parts, executor=self.store.executor)
            self.store.add(self.entry, self.identities, make, backend.batch_rows())
        return self.store.find(self.entry, self.identities)

    @cached_property
    def _complete(self) -> bool:
        return not len(self.pieces.missing)

    def __len__(self) -> int:
        return len(self.identities)

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        if self._complete:
            return self.pieces.take(rows)
        is_stored = self.pieces.piece[rows] >= 0
        out = np.empty((len(rows), *self.entry.shape), self.entry.dtype)
        out[is_stored] = self.pieces.take(rows[is_stored])
        if not is_stored.all():
            out[~is_stored] = self.computed.take(rows[~is_stored])
        return out
