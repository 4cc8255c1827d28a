"""The pooled activations of many depths of several bodies, in one pass over the images.

Bodies that share their lower layers, such as several that were fine-tuned from one start, share the pass: a tensor is
known by the digest of all that it depends on, and each is computed once, whatever body it is met in (as Alsatian does,
SIGMOD 2025).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from frostline.core import digest, progress
from frostline.data.shards import Shards
from frostline.features.store import Entry, Store
from frostline.models import backend, freezing, graph, heads, vision_transformer
from frostline.models.backbones import Backbone
from frostline.models.freezing import CutPoint

DEPTHS = 18  # about; places are spread evenly by compute, see `freezing.spread`
CHUNK = 1536  # images whose vectors are in memory before they are stored


@dataclass(frozen=True)
class Depth:
    """A place in a body. layer: its name; share: of the body's compute that lies before it, in (0, 1]; entry: of its
    pooled activations in the store."""

    layer: str
    share: float
    entry: Entry


@dataclass(frozen=True)
class _Place:
    """A cut point with the key of its tensor, and the depth that it is."""

    cut: CutPoint
    key: str
    depth: Depth


def of(backbone: Backbone) -> list[Depth]:
    """The depths of a body that are measured, from the bottom up; the last one is its end."""
    return [place.depth for place in _places(backbone)]


def vectors(backbones: Sequence[Backbone], images: Shards, store: Store) -> dict[str, NDArray[np.float32]]:
    """The pooled activations of all depths of bodies for the same images, by the key of the depth's entry.

    float32 (n, width) each. What the store lacks is computed, all in one pass, and stored.
    """
    places = [(backbone, _places(backbone)) for backbone in backbones]
    entries = {place.depth.entry.key: place.depth.entry for _, each in places for place in each}
    missing = [entry for entry in entries.values() if store.count(entry, images.identities) < len(images)]
    if missing:
        _fill(places, {entry.key: entry for entry in missing}, images, store)
    found = {}
    for key, entry in entries.items():
        rows = store.find(entry, images.identities).take(np.arange(len(images)))
        found[key] = np.asarray(rows, np.float32)
    return found


def _places(backbone: Backbone) -> list[_Place]:
    body = backbone.model
    cuts = {cut.layer: cut for cut in freezing.cut_points(body)}
    names = [name for name in freezing.spread(body, DEPTHS) if name in cuts]
    chosen = [*(cuts[str(name)] for name in names), freezing.cut_points(body)[-1]]
    work = np.cumsum([freezing.multiply_adds(layer) for layer in body.layers])
    images = keras.Input(body.input.shape[1:], dtype="uint8", name="images")
    outputs = keras.Model(body.input, [cut.tensor for cut in chosen])(backbone.preprocess(images))
    outputs = outputs if isinstance(outputs, list) else [outputs]
    keys = graph.tensor_keys(keras.Model(images, outputs))
    engine = [keras.__version__, keras.backend.backend()]
    places = []
    for cut, output in zip(chosen, outputs, strict=True):
        width = int(cut.tensor.shape[-1])
        key = digest.of_value(["pooled in one pass", keys[id(output)], *engine])
        about = {"backbone": backbone.name, "image_size": body.input.shape[1], "layer": cut.layer}
        share = float(work[cut.depth - 1] / work[-1])
        places.append(_Place(cut, keys[id(output)], Depth(cut.layer, share, Entry(key, (width,), "float32", about))))
    return places


def _fill(
    bodies: Sequence[tuple[Backbone, list[_Place]]], missing: Mapping[str, Entry], images: Shards, store: Store
) -> None:
    """Compute the entries that are missing, and store them chunk by chunk."""
    network, keys = _network(bodies, missing)
    rows = backend.batch_rows()
    ends = np.cumsum([missing[key].shape[0] for key in keys])
    starts = range(0, len(images), CHUNK)
    for start in progress.track(starts, len(images), "choose", CHUNK):
        chunk = np.arange(start, min(start + CHUNK, len(images)))
        batches = [chunk[at : at + rows] for at in range(0, len(chunk), rows)]
        joined = np.concatenate([backend.predict(network, images.take(batch), rows) for batch in batches])
        for key, part in zip(keys, np.split(joined, ends[:-1], axis=1), strict=True):
            store.add(missing[key], images.identities[chunk], lambda at, part=part: part[at], len(chunk))  # type: ignore[misc]


def _network(
    bodies: Sequence[tuple[Backbone, list[_Place]]], missing: Mapping[str, Entry]
) -> tuple[keras.Model, list[str]]:
    """A model from images to the pooled vectors of all missing entries side by side, and the entries' keys in order."""
    size = bodies[0][0].model.input.shape[1:]
    images = keras.Input(size, dtype="uint8", name="images")
    tensors: dict[str, Any] = {}
    pooled: dict[str, Any] = {}
    for backbone, places in bodies:
        body = backbone.model
        before, x = body.input, _wrapped(backbone.preprocess, images)
        deepest = max((at for at, place in enumerate(places) if place.depth.entry.key in missing), default=-1)
        for place in places[: deepest + 1]:
            if place.key not in tensors:
                tensors[place.key] = graph.inference_twin(before, place.cut.tensor)(x)
            before, x = place.cut.tensor, tensors[place.key]
            key = place.depth.entry.key
            if key in missing and key not in pooled:
                leading = vision_transformer.leading_tokens(keras.Model(body.input, before))
                pooled[key] = _wrapped(_pool(tuple(before.shape[1:]), leading), x)
    vectors = list(pooled.values())
    joined = vectors[0] if len(vectors) == 1 else keras.layers.Concatenate()(vectors)
    return keras.Model(images, joined), list(pooled)


def _wrapped(function: Callable[[Any], Any], x: Any) -> Any:
    """What a function makes of x, as a model of its own: the names of layers may be used by several bodies."""
    inside = keras.Input(x.shape[1:], dtype=x.dtype)
    return keras.Model(inside, function(inside))(x)


def _pool(shape: tuple[int, ...], leading: int) -> keras.layers.Layer:
    return heads.pool(shape, "avg" if len(shape) in (2, 3) else "flatten", leading)
