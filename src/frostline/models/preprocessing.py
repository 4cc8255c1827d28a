"""The ways in which backbones want their input: raw pixels in [0, 255] -> the input of a body, as Keras operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

    Preprocess = Callable[[keras.KerasTensor], keras.KerasTensor]


MEANS, DEVIATIONS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels in [0, 1]


def _rescaled(x: keras.KerasTensor, scale: float | list[float], offset: float | list[float]) -> keras.KerasTensor:
    import keras

    return keras.layers.Rescaling(scale, offset, name="preprocess")(x)


def _to_caffe(x: keras.KerasTensor) -> keras.KerasTensor:
    import keras

    return _rescaled(keras.ops.flip(x, axis=-1), [1.0, 1.0, 1.0], [-103.939, -116.779, -123.68])


def _to_torch(x: keras.KerasTensor) -> keras.KerasTensor:
    offset = [-mean / deviation for mean, deviation in zip(MEANS, DEVIATIONS, strict=True)]
    return _rescaled(x, [1 / (255 * deviation) for deviation in DEVIATIONS], offset)


def _to_tf_for_torch(x: keras.KerasTensor) -> keras.KerasTensor:
    return _rescaled(
        x,
        [2 * deviation for deviation in DEVIATIONS],
        [255 * (mean - deviation) for mean, deviation in zip(MEANS, DEVIATIONS, strict=True)],
    )


# `tf` scales to [-1, 1]; `caffe` flips RGB to BGR and subtracts ImageNet's means; `torch` scales to [0, 1], then
# subtracts ImageNet's means and divides by its deviations (the names are those of
# `keras.applications.imagenet_utils.preprocess_input`); `lite` is (x - 127) / 128, as EfficientNet-Lite was trained;
# `included`: it is part of the body, which takes [0, 255]; `tf for 128` and `tf for torch`: the body scales by
# (x - 128) / 128 or like `torch`, but its weights were trained on `tf`.
WAYS: dict[str, Preprocess] = {
    "tf": lambda x: _rescaled(x, 1 / 127.5, -1.0),
    "caffe": _to_caffe,
    "torch": _to_torch,
    "lite": lambda x: _rescaled(x, 1 / 128, -127 / 128),
    "included": lambda x: _rescaled(x, 1.0, 0.0),  # integers become floats
    "tf for 128": lambda x: _rescaled(x, 128 / 127.5, 0.0),
    "tf for torch": _to_tf_for_torch,
}
