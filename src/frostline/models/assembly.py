"""Backbone and head as models: the prefix before a cut, the suffix behind it, and the whole."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from numpy.typing import NDArray

from frostline.core import progress
from frostline.data.shards import Rows
from frostline.models import backend, graph
from frostline.models.backbones import Backbone
from frostline.models.freezing import CutPoint
from frostline.models.heads import Head, trained_logits


def segment(backbone: Backbone, head: Head, start: CutPoint | None, end: CutPoint) -> keras.Model:
    """A model from one cut (None: images) to a deeper one, in inference mode.

    At the end of the body, the output is the pooled vector. The weights are copies.
    """
    body = backbone.model
    crossing = _images(body) if start is None else keras.Input(start.tensor.shape[1:], name="crossing")
    x = graph.inference_twin(body.input if start is None else start.tensor, end.tensor)(
        backbone.preprocess(crossing) if start is None else crossing
    )
    return keras.Model(crossing, head.pool(x) if _is_end(body, end) else x)


def crossing_shape(backbone: Backbone, head: Head, cut: CutPoint) -> tuple[int, ...]:
    """Shape of the tensor at a cut, for one image. At the end of the body it is the pooled vector."""
    shape = cut.tensor.shape
    return tuple((head.pool.compute_output_shape(shape) if _is_end(backbone.model, cut) else shape)[1:])


def keys(backbone: Backbone, head: Head, cuts: Sequence[CutPoint]) -> list[str]:
    """Digest of all that the features at each cut depend on besides the image, without the version of the backend."""
    images = _images(backbone.model)
    pooled = head.pool(backbone.model(backbone.preprocess(images)))
    digests = graph.tensor_keys(keras.Model(images, pooled))
    return [digests[id(pooled if _is_end(backbone.model, cut) else cut.tensor)] for cut in cuts]


def suffix(
    backbone: Backbone, head: Head, cut: CutPoint | None, augmenter: keras.layers.Layer | None = None
) -> keras.Model:
    """A model from the tensor at a cut to logits, or from images if there is no cut. It shares the backbone's layers.

    It is for training. Call it after `freezing.freeze`, because it computes frozen layers in a faster way. augmenter:
    images -> their variants in training, used if there is no cut.
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
    """The model of a bundle: images -> probabilities, float32 whatever the precision of training."""
    images = _images(backbone.model)
    logits = head.top(head.pool(backbone.model(backbone.preprocess(images))))
    return squashed(keras.Model(images, logits), temperature=1.0)


def squashed(logits: keras.Model, temperature: float) -> keras.Model:
    """Turn a model of logits into one of probabilities, float32: the sigmoid of one unit, or the softmax of several."""
    x = logits.output
    if temperature != 1:
        x = keras.layers.Rescaling(1 / temperature, dtype="float32", name="temperature")(x)
    squash = keras.layers.Activation(
        "sigmoid" if x.shape[-1] == 1 else "softmax", dtype="float32", name="probabilities"
    )
    return keras.Model(logits.input, squash(x), name="classifier")


def outputs(model: keras.Model, inputs: Rows) -> NDArray[np.float32]:
    """The outputs of a model for prepared images or for their features, float32 (n, units)."""
    raw = np.empty((len(inputs), model.output.shape[-1]), np.float32)
    size = backend.batch_rows()
    for start in progress.track(range(0, len(inputs), size), len(inputs), "predict", size):
        rows = np.arange(start, min(start + size, len(inputs)))
        raw[rows] = backend.predict(model, inputs.take(rows), size)
    return raw


def by_class(raw: NDArray[np.float32]) -> NDArray[np.float32]:
    """A model's output (n, units) as probabilities (n, classes). A sigmoid's output is that of the second class."""
    return np.concatenate([1 - raw, raw], axis=1) if raw.shape[1] == 1 else raw


def _images(body: keras.Model) -> keras.KerasTensor:
    return keras.Input(body.input.shape[1:], dtype="uint8", name="images")


def _is_end(body: keras.Model, cut: CutPoint) -> bool:
    return cut.tensor is body.output
