"""Where a classifier looks: Grad-CAM (Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via
Gradient-based Localization", ICCV 2017)."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from frostline.data.images import Pixels
from frostline.models import bundles
from frostline.models.bundles import Bundle

Heat = NDArray[np.float32]

# From no heat to most: the colours in RGB, and how much of the image they cover.
COLORS = np.array([[255, 230, 40], [255, 150, 20], [220, 20, 20]], np.float32)
COVER = 0.65
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue (ITU-R BT.601)
AT_ONCE = 8  # images, which bounds the memory


class GradCam:
    """Heat maps of one bundle's answers. Built once, it may be called as often as wanted; on TensorFlow it is compiled
    at the first call, on JAX at the first call with that many images.

    method: how the maps are made, None where a head allows none: then there is no heat.
    """

    def __init__(self, bundle: Bundle) -> None:
        backbone, head = bundles.parts(bundle)
        images = keras.Input(bundle.model.input.shape[1:], dtype="uint8")
        self._body = keras.Model(images, backbone.model(backbone.preprocess(images)))
        maps = keras.Input(self._body.output.shape[1:], dtype=self._body.output.dtype)
        self._head = keras.Model(maps, head.top(head.pool(maps)))
        self._size = bundle.layout.image_size
        # A linear classifier of scikit-learn's ends in a Dense layer, as what Keras trained does.
        has_gradient = isinstance(head.top, keras.Sequential) or isinstance(head.top.layers[-1], keras.layers.Dense)
        self._top, self._channels = head.top, self._body.output.shape[-1]
        has_places = head.top.input.shape[-1] == self._channels
        self.method = "Grad-CAM" if has_gradient else "each place alone" if has_places else None
        self._compiled = _compiled(self._heat if has_gradient else self._places if has_places else self._nothing)

    def __call__(self, images: Pixels, classes: NDArray[np.int64]) -> Heat:
        """What speaks for a class, float32 (n, size, size) in [0, 1]: each map's highest place is 1, or all is 0 where
        nothing speaks for it.

        images: uint8 (n, size, size, 3), resized as the bundle says; classes: of each image the class to explain,
        int (n,). The maps come from the feature map before pooling, so they are no finer than that.
        """
        starts = range(0, len(images), AT_ONCE)
        chunks = [(images[at : at + AT_ONCE], np.asarray(classes[at : at + AT_ONCE], np.int32)) for at in starts]
        return np.concatenate([np.asarray(self._compiled(*chunk)) for chunk in chunks])

    def _heat(self, images: Any, classes: Any) -> Any:
        ops = keras.ops
        maps = self._body(images, training=False)

        def score(maps: Any) -> Any:
            """Sum of the logits of the classes; an image's own depends on no other image."""
            logits = ops.cast(self._head(maps, training=False), "float32")
            if logits.shape[-1] == 1:  # a sigmoid's logit speaks for the second of two classes
                return ops.sum(logits[:, 0] * ops.cast(2 * classes - 1, "float32"))
            return ops.sum(logits * ops.one_hot(classes, logits.shape[-1], dtype="float32"))

        gradients = ops.cast(_gradient(score, maps), "float32")
        weights = ops.mean(gradients, axis=(1, 2), keepdims=True)
        return self._scaled(ops.relu(ops.sum(weights * ops.cast(maps, "float32"), axis=-1, keepdims=True)))

    def _places(self, images: Any, classes: Any) -> Any:
        """For heads without a gradient, such as a forest: how much likelier than on average the class is by the
        features of a place alone."""
        ops = keras.ops
        maps = self._body(images, training=False)
        _, height, width, _ = ops.shape(maps)
        logits = ops.cast(self._top(ops.reshape(maps, (-1, self._channels)), training=False), "float32")
        shares = ops.reshape(ops.softmax(logits), (-1, height, width, logits.shape[-1]))
        wanted = ops.one_hot(classes, logits.shape[-1], dtype="float32")[:, None, None, :]
        share = ops.sum(shares * wanted, axis=-1, keepdims=True)
        return self._scaled(ops.relu(share - ops.mean(share, axis=(1, 2), keepdims=True)))

    def _nothing(self, images: Any, classes: Any) -> Any:
        """For heads without a gradient that take no single place's features (`pooling: flatten`)."""
        return keras.ops.zeros_like(keras.ops.cast(images[..., 0], "float32"))

    def _scaled(self, heat: Any) -> Any:
        """Heat (n, height, width, 1) of any size -> (n, size, size) with 1 at the highest place."""
        ops = keras.ops
        heat = ops.image.resize(heat, (self._size, self._size), interpolation="bilinear")[..., 0]
        highest = ops.max(heat, axis=(1, 2), keepdims=True)
        return ops.where(highest > 0, heat / ops.where(highest > 0, highest, 1.0), 0.0)


def overlay(images: Pixels, heat: Heat) -> Pixels:
    """Images in grey under their heat, from yellow to red: uint8 (n, size, size, 3). What has a colour is heat."""
    places = np.linspace(0, 1, len(COLORS))
    colors = np.stack([np.interp(heat, places, channel) for channel in COLORS.T], axis=-1)
    cover = COVER * heat[..., None]
    grey = images @ LUMA
    return np.round(grey[..., None] * (1 - cover) + colors * cover).astype(np.uint8)


def _compiled(function: Any) -> Any:
    """A function of images and classes, compiled by Keras's engine."""
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
