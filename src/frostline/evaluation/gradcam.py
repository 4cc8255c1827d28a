"""Where a classifier looks: Grad-CAM (Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via
Gradient-based Localization", ICCV 2017)."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from frostline.data.images import Pixels
from frostline.models import bands, bundles, freezing, vision_transformer
from frostline.models.bundles import Bundle

Heat = NDArray[np.float32]

# From no heat to most: the colours in RGB, and how much of the image they cover.
COLORS = np.array([[255, 230, 40], [255, 150, 20], [220, 20, 20]], np.float32)
COVER = 0.65
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue (ITU-R BT.601)
AT_ONCE = 8  # images, which bounds the memory


class GradCam:
    """Heat maps for the answers of one bundle. An object can be called many times; TensorFlow compiles it at the first
    call, JAX at the first call with each number of images.

    method: how the maps are computed; None if the head allows no method, then all maps are 0.
    """

    def __init__(self, bundle: Bundle) -> None:
        backbone, head = bundles.parts(bundle)
        body = backbone.model
        has_map = len(body.output.shape) > 2  # a body with the features of all depths has none
        images = keras.Input(bundle.model.input.shape[1:], dtype="uint8")
        seen = _seen(body)
        self._places = vision_transformer.grid(body)
        self._leading = vision_transformer.leading_tokens(body)
        self._body = keras.Model(images, keras.Model(body.input, seen)(backbone.preprocess(images)))
        maps = keras.Input(seen.shape[1:], dtype=seen.dtype)
        last = maps if seen is body.output else keras.Model(seen, body.output)(maps)
        self._head = keras.Model(maps, head.top(head.pool(last)))
        self._size = bundle.layout.image_size
        # A linear classifier from scikit-learn ends in a Dense layer, like a head that Keras trained.
        is_linear = isinstance(head.top.layers[-1], keras.layers.Dense)
        has_gradient = has_map and (isinstance(head.top, keras.Sequential) or is_linear)
        self._top, self._channels = head.top, body.output.shape[-1]
        has_places = has_map and head.top.input.shape[-1] == self._channels
        self.method = "Grad-CAM" if has_gradient else "each place alone" if has_places else None
        self._compiled = _compiled(self._heat if has_gradient else self._place_heat if has_places else self._no_heat)

    def __call__(self, images: Pixels, classes: NDArray[np.int64]) -> Heat:
        """How much each pixel speaks for a class, float32 (n, size, size) in [0, 1]. The maximum of each map is 1; a
        map is all 0 if nothing speaks for the class.

        images: uint8 (n, size, size, 3), resized as the bundle says; classes: the class to explain for each image,
        int (n,). The maps come from the feature map before pooling, so they are no finer than it.
        """
        starts = range(0, len(images), AT_ONCE)
        chunks = [(images[at : at + AT_ONCE], np.asarray(classes[at : at + AT_ONCE], np.int32)) for at in starts]
        return np.concatenate([np.asarray(self._compiled(*chunk)) for chunk in chunks])

    def _heat(self, images: Any, classes: Any) -> Any:
        ops = keras.ops
        maps = self._body(images, training=False)

        def score(maps: Any) -> Any:
            """The sum of the logits of the classes; the logit of an image depends on no other image."""
            logits = ops.cast(self._head(maps, training=False), "float32")
            if logits.shape[-1] == 1:  # a sigmoid's logit speaks for the second of two classes
                return ops.sum(logits[:, 0] * ops.cast(2 * classes - 1, "float32"))
            return ops.sum(logits * ops.one_hot(classes, logits.shape[-1], dtype="float32"))

        gradients = self._as_map(ops.cast(_gradient(score, maps), "float32"))
        weights = ops.mean(gradients, axis=(1, 2), keepdims=True)
        values = self._as_map(ops.cast(maps, "float32"))
        return self._scale(ops.relu(ops.sum(weights * values, axis=-1, keepdims=True)))

    def _as_map(self, values: Any) -> Any:
        """Tokens (n, tokens, width) as a map (n, rows, columns, width), without those that are no patches."""
        if len(values.shape) == 4:
            return values
        patches = values[:, self._leading :]
        side = math.isqrt(patches.shape[1])
        return keras.ops.reshape(patches, (-1, *(self._places or (side, side)), values.shape[-1]))

    def _place_heat(self, images: Any, classes: Any) -> Any:
        """For heads without a gradient, like a forest: the probability of the class by the features of one place alone,
        minus its average over all places."""
        ops = keras.ops
        maps = self._as_map(self._body(images, training=False))
        _, height, width, _ = ops.shape(maps)
        logits = ops.cast(self._top(ops.reshape(maps, (-1, self._channels)), training=False), "float32")
        probabilities = ops.reshape(ops.softmax(logits), (-1, height, width, logits.shape[-1]))
        mask = ops.one_hot(classes, logits.shape[-1], dtype="float32")[:, None, None, :]
        probability = ops.sum(probabilities * mask, axis=-1, keepdims=True)
        return self._scale(ops.relu(probability - ops.mean(probability, axis=(1, 2), keepdims=True)))

    def _no_heat(self, images: Any, classes: Any) -> Any:
        """For heads without a gradient that need the features of all places at once (`pooling: flatten`)."""
        return keras.ops.zeros_like(keras.ops.cast(images[..., 0], "float32"))

    def _scale(self, heat: Any) -> Any:
        """Resize heat (n, height, width, 1) to (n, size, size), with a maximum of 1."""
        ops = keras.ops
        heat = ops.image.resize(heat, (self._size, self._size), interpolation="bilinear")[..., 0]
        highest = ops.max(heat, axis=(1, 2), keepdims=True)
        return ops.where(highest > 0, heat / ops.where(highest > 0, highest, 1.0), 0.0)


def _seen(body: keras.Model) -> keras.KerasTensor:
    """The tensor that the maps come from: the last feature map, or the tokens before the last block.

    In that block the class token reads those of the patches; behind it, it alone has a gradient.
    """
    ends = bands.blocks(body)
    if len(body.output.shape) != 3 or len(ends) == 1:
        return body.output
    cuts = [cut for cut in freezing.cut_points(body) if cut.depth <= ends[-2] and len(cut.tensor.shape) == 3]
    return cuts[-1].tensor if cuts else body.output


def overlay(images: Pixels, heat: Heat) -> Pixels:
    """The images in grey, covered by their heat from yellow to red, uint8 (n, size, size, 3)."""
    places = np.linspace(0, 1, len(COLORS))
    colors = np.stack([np.interp(heat, places, channel) for channel in COLORS.T], axis=-1)
    cover = COVER * heat[..., None]
    grey = images @ LUMA
    return np.round(grey[..., None] * (1 - cover) + colors * cover).astype(np.uint8)


def _compiled(function: Any) -> Any:
    """A function of images and classes, compiled by the backend of Keras."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    signature = [tf.TensorSpec([None, None, None, 3], tf.uint8), tf.TensorSpec([None], tf.int32)]
    return tf.function(function, input_signature=signature)


def _gradient(score: Any, at: Any) -> Any:
    """The gradient of a scalar function, at a tensor."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.grad(score)(at)
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(at)
        value = score(at)
    return tape.gradient(value, at)
