"""Backbone and head as models: the prefix before a cut, the suffix behind it, the whole."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from numpy.typing import NDArray

from frostline.core import progress
from frostline.data.shards import Shards
from frostline.models import backend, graph
from frostline.models.backbones import Backbone
from frostline.models.freezing import CutPoint
from frostline.models.heads import Head, trained_logits


def segment(backbone: Backbone, head: Head, start: CutPoint | None, end: CutPoint) -> keras.Model:
    """What crosses one cut (None: images) -> what crosses a deeper one, in inference mode.

    Behind the last layer, where nothing is left to train, the pooled vector crosses. The weights are copies.
    """
    body = backbone.model
    crossing = _images(body) if start is None else keras.Input(start.tensor.shape[1:], name="crossing")
    x = graph.inference_twin(body.input if start is None else start.tensor, end.tensor)(
        backbone.preprocess(crossing) if start is None else crossing
    )
    return keras.Model(crossing, head.pool(x) if _is_end(body, end) else x)


def crossing_shape(backbone: Backbone, head: Head, cut: CutPoint) -> tuple[int, ...]:
    """Shape of what crosses a cut, of one image."""
    shape = cut.tensor.shape
    return tuple((head.pool.compute_output_shape(shape) if _is_end(backbone.model, cut) else shape)[1:])


def keys(backbone: Backbone, head: Head, cuts: Sequence[CutPoint]) -> list[str]:
    """Digest of all that the features at each cut depend on besides the image; the engine's version is not in it."""
    images = _images(backbone.model)
    pooled = head.pool(backbone.model(backbone.preprocess(images)))
    found = graph.tensor_keys(keras.Model(images, pooled))
    return [found[id(pooled if _is_end(backbone.model, cut) else cut.tensor)] for cut in cuts]


def suffix(
    backbone: Backbone, head: Head, cut: CutPoint | None, augmenter: keras.layers.Layer | None = None
) -> keras.Model:
    """What crosses the cut -> logits; without a cut, images -> logits. Shares its layers with the backbone.

    It is for training, after `freezing.freeze`: what is frozen then is computed the quickest way. augmenter: images
    -> their variants in training, where there is no cut.
    """
    body = backbone.model
    if cut is None:
        images = _images(body)
        x = images if augmenter is None else augmenter(images)
        return keras.Model(images, trained_logits(head, head.pool(graph.Fused(body)(backbone.preprocess(x)))))
    if _is_end(body, cut):
        pooled = keras.Input(crossing_shape(backbone, head, cut), name="crossing")
        return keras.Model(pooled, trained_logits(head, pooled))
    crossing = keras.Input(cut.tensor.shape[1:], name="crossing")
    rest = graph.Fused(keras.Model(cut.tensor, body.output))
    return keras.Model(crossing, trained_logits(head, head.pool(rest(crossing))))


def whole(backbone: Backbone, head: Head) -> keras.Model:
    """Images -> probabilities, float32 whatever the precision of training; what a bundle is saved as."""
    images = _images(backbone.model)
    logits = head.top(head.pool(backbone.model(backbone.preprocess(images))))
    return squashed(keras.Model(images, logits), temperature=1.0)


def squashed(logits: keras.Model, temperature: float) -> keras.Model:
    """A model that gives logits -> one that gives probabilities, float32: a sigmoid of one unit, a softmax of more."""
    x = logits.output
    if temperature != 1:
        x = keras.layers.Rescaling(1 / temperature, dtype="float32", name="temperature")(x)
    squash = keras.layers.Activation(
        "sigmoid" if x.shape[-1] == 1 else "softmax", dtype="float32", name="probabilities"
    )
    return keras.Model(logits.input, squash(x), name="classifier")


def outputs(model: keras.Model, images: Shards) -> NDArray[np.float32]:
    """What a model of images gives for prepared ones, float32 (n, units)."""
    raw = np.empty((len(images), model.output.shape[-1]), np.float32)
    size = backend.batch_rows()
    for start in progress.track(range(0, len(images), size), len(images), "predict", size):
        rows = np.arange(start, min(start + size, len(images)))
        raw[rows] = backend.predict(model, images.take(rows), size)
    return raw


def by_class(raw: NDArray[np.float32]) -> NDArray[np.float32]:
    """A model's output, (n, units), as probabilities (n, classes): a sigmoid's is that of the second of two."""
    return np.concatenate([1 - raw, raw], axis=1) if raw.shape[1] == 1 else raw


def _images(body: keras.Model) -> keras.KerasTensor:
    return keras.Input(body.input.shape[1:], dtype="uint8", name="images")


def _is_end(body: keras.Model, cut: CutPoint) -> bool:
    return cut.tensor is body.output
