"""The pooled activations of many depths of several bodies, in one pass over the images.

Bodies that share their lower layers, such as several that were fine-tuned from one start, share the pass: a tensor is
known by the digest of all that it depends on, and each is computed once, whatever body it is met in (as Alsatian does,
SIGMOD 2025).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from frostline.core import digest, progress
from frostline.data.shards import Shards
from frostline.features.store import Entry, Store
from frostline.models import all_depths, backend, freezing, graph, heads, vision_transformer
from frostline.models.backbones import Backbone
from frostline.models.freezing import CutPoint

Pooled = NDArray[np.float32]
Depths = Callable[[keras.Model], Sequence[CutPoint]]  # chooses depths of a body, from the bottom up

CHUNK = 1536  # images whose vectors are in memory before they are stored


@dataclass(frozen=True)
class Depth:
    """A place in a body. layer: its name; share: of the body's compute that lies before it, in (0, 1]; entry: of its
    pooled activations in the store."""

    layer: str
    share: float
    entry: Entry


@dataclass(frozen=True)
class _Stop:
    """A depth with its cut point, the key of its tensor, and the layer that pools it."""

    depth: Depth
    cut: CutPoint
    key: str
    pool: keras.layers.Layer


class Pass:
    """One pass over images for the pooled activations of many depths of several bodies.

    depths: of each body, from the bottom up. The weights are read when this is made.
    """

    def __init__(self, bodies: Sequence[Backbone], task: str, choose: Depths = all_depths.depths) -> None:
        """bodies: at least one, all for images of one size; task: the word before the progress; choose: the depths."""
        self._bodies, self._task = [(body, _stops(body, choose(body.model))) for body in bodies], task
        self.depths = [[stop.depth for stop in stops] for _, stops in self._bodies]
        self._networks: dict[frozenset[str], tuple[keras.Model, list[str]]] = {}

    def vectors(
        self, images: Shards, rows: NDArray[np.int64], store: Store, kept: Container[str] | None = None
    ) -> dict[str, Pooled]:
        """The pooled activations of some images at all depths, float32 (len(rows), width) each, by the key of their
        entry. rows: int64, the numbers of the images.

        What the store lacks is computed, and stored if there is room. kept: keys of the entries that are stored, None
        for all.
        """
        found: dict[str, Pooled] = {}
        missing: dict[str, Entry] = {}
        places = np.empty(0, np.int64)
        for entry in {depth.entry.key: depth.entry for depths in self.depths for depth in depths}.values():
            stored = store.find(entry, images.identities[rows])
            known = np.flatnonzero(stored.piece >= 0)
            found[entry.key] = np.empty((len(rows), *entry.shape), np.float32)
            found[entry.key][known] = stored.take(known)
            if len(stored.missing):
                missing[entry.key] = entry
                places = np.union1d(places, stored.missing)
        if missing:
            self._fill(found, missing, places, images, rows, store, kept)
        return found

    def _fill(
        self,
        found: Mapping[str, Pooled],
        missing: Mapping[str, Entry],
        places: NDArray[np.int64],
        images: Shards,
        rows: NDArray[np.int64],
        store: Store,
        kept: Container[str] | None,
    ) -> None:
        """Compute the entries that are missing at some places of `rows`, and store them chunk by chunk."""
        wanted = frozenset(missing)
        if wanted not in self._networks:  # the splits of a project lack the same entries, and compiling takes seconds
            self._networks[wanted] = _network(self._bodies, missing)
        network, keys = self._networks[wanted]
        ends = np.cumsum([missing[key].shape[0] for key in keys])
        batch_rows = backend.batch_rows()
        is_room = True
        for start in progress.track(range(0, len(places), CHUNK), len(places), self._task, CHUNK):
            chunk = places[start : start + CHUNK]
            batches = [rows[chunk[at : at + batch_rows]] for at in range(0, len(chunk), batch_rows)]
            joined = np.concatenate([backend.predict(network, images.take(each), batch_rows) for each in batches])
            for key, part in zip(keys, np.split(joined, ends[:-1], axis=1), strict=True):
                found[key][chunk] = part
                if is_room and (kept is None or key in kept):  # one warning is enough
                    identities = images.identities[rows[chunk]]
                    is_room = store.add(missing[key], identities, partial(map, part.__getitem__), len(chunk))


def _stops(backbone: Backbone, chosen: Sequence[CutPoint]) -> list[_Stop]:
    """The chosen depths of a body."""
    body = backbone.model
    shares = freezing.compute_below(body)
    images = keras.Input(body.input.shape[1:], dtype="uint8", name="images")
    prepared = backbone.preprocess(images)
    before = graph.tensor_keys(keras.Model(images, prepared))[id(prepared)]
    keys = graph.tensor_keys(body, {id(body.input): before})  # quicker than to call the body once more
    engine = [keras.__version__, keras.backend.backend()]
    stops = []
    for cut in chosen:
        shape = tuple(cut.tensor.shape[1:])
        leading = vision_transformer.leading_tokens(keras.Model(body.input, cut.tensor)) if len(shape) == 2 else 0
        pooling = "avg" if len(shape) in (2, 3) else "flatten"
        pool = heads.pool(shape, pooling, leading)
        width = int(pool.compute_output_shape((None, *shape))[-1])
        key = digest.of_value(["pooled in one pass", keys[id(cut.tensor)], pooling, leading, *engine])
        about = {"backbone": backbone.name, "image_size": body.input.shape[1], "layer": cut.layer}
        share = float(shares[cut.depth])
        depth = Depth(cut.layer, share, Entry(key, (width,), "float32", about))
        stops.append(_Stop(depth, cut, keys[id(cut.tensor)], pool))
    return stops


def _network(bodies: Sequence[tuple[Backbone, list[_Stop]]], missing: Container[str]) -> tuple[keras.Model, list[str]]:
    """A model from images to the pooled vectors of all missing entries side by side, and the entries' keys in order."""
    images = keras.Input(bodies[0][0].model.input.shape[1:], dtype="uint8", name="images")
    tensors: dict[str, Any] = {}
    pooled: dict[str, Any] = {}
    for backbone, stops in bodies:
        before, x = backbone.model.input, _wrapped(backbone.preprocess, images)
        deepest = max((at for at, stop in enumerate(stops) if stop.depth.entry.key in missing), default=-1)
        for stop in stops[: deepest + 1]:
            if stop.key not in tensors:
                tensors[stop.key] = graph.inference_twin(before, stop.cut.tensor)(x)
            before, x = stop.cut.tensor, tensors[stop.key]
            key = stop.depth.entry.key
            if key in missing and key not in pooled:
                pooled[key] = _wrapped(stop.pool, x)
    vectors = list(pooled.values())
    joined = vectors[0] if len(vectors) == 1 else keras.layers.Concatenate()(vectors)
    return keras.Model(images, joined), list(pooled)


def _wrapped(function: Callable[[Any], Any], x: Any) -> Any:
    """What a function makes of x, as a model of its own: the names of layers may be used by several bodies."""
    inside = keras.Input(x.shape[1:], dtype=x.dtype)
    return keras.Model(inside, function(inside))(x)
