"""The backbones: a table, not branches.

A backbone is a Keras application without its top, or frostnet. Its preprocessing belongs to it and becomes part of
the model graph, so that pictures always go in as they are, uint8 or float in [0, 255].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from frostline import frostnet
from frostline.errors import ParamsError, WeightsError

if TYPE_CHECKING:
    import keras

    Preprocess = Callable[[keras.KerasTensor], keras.KerasTensor]


@dataclass(frozen=True)
class Spec:
    """One row of the table.

    preprocessing: `tf` scales to [-1, 1]; `caffe` flips RGB to BGR and subtracts ImageNet's means (the names are
    those of `keras.applications.imagenet_utils.preprocess_input`). native, smallest: sides in pixels.
    """

    preprocessing: str
    native: int
    smallest: int


TABLE: dict[str, Spec] = {
    "frostnet": Spec("tf", 64, 16),
    "MobileNet": Spec("tf", 224, 32),
    "MobileNetV2": Spec("tf", 224, 32),
    "VGG16": Spec("caffe", 224, 32),
    "VGG19": Spec("caffe", 224, 32),
    "ResNet50": Spec("caffe", 224, 32),
    "InceptionV3": Spec("tf", 299, 75),
}


@dataclass(frozen=True)
class Backbone:
    """A body ready to be frozen.

    model: a functional model, float32 (n, size, size, 3) preprocessed -> the last feature map, with the layers that
    keras.applications gives it; preprocess: raw pixels -> what the model expects, as Keras operations.
    """

    name: str
    model: keras.Model
    preprocess: Preprocess
    pretrained: bool


def check(name: str, weights: str, size: int) -> Spec:
    """The table's row, after checking what can be checked without loading Keras.

    Raises ParamsError or WeightsError, one line with the mend.
    """
    if name not in TABLE:
        near = get_close_matches(name, TABLE, n=1, cutoff=0.5)
        mend = f"did you mean {near[0]}?" if near else f"use one of {', '.join(TABLE)}"
        raise ParamsError(f"params.yaml: backbone.name {name!r} is not known; {mend}")
    spec = TABLE[name]
    if size < spec.smallest:
        raise ParamsError(f"params.yaml: data.image_size {size} is too small for {name}; use at least {spec.smallest}")
    named = {"none", "builtin"} if name == "frostnet" else {"none", "imagenet"}
    if weights in {"none", "builtin", "imagenet"}:
        if weights not in named:
            raise ParamsError(
                f"params.yaml: backbone.weights {weights!r} does not exist for {name}; "
                f"use {' or '.join(sorted(named))}, or a path"
            )
    elif not Path(weights).is_file():
        raise WeightsError(
            f"{weights}: backbone.weights names no file; use {', '.join(sorted(named))}, or mend the path"
        )
    return spec


def build(name: str, weights: str, size: int, until: str | None = None) -> Backbone:
    """Build a backbone for images of `size` pixels a side.

    weights: `none`, `builtin` (frostnet), `imagenet`, or a file: an official `*_notop.h5` of that architecture, or
    frostnet's `.npz`. until: name of the layer whose output is the last feature map; None for the whole body.
    Raises ParamsError or WeightsError.
    """
    check(name, weights, size)
    model = _frostnet(weights, size) if name == "frostnet" else _application(name, weights, size)
    if until is not None:
        model = _cut(model, until)
    return Backbone(name, model, preprocessing(name), weights != "none")


def preprocessing(name: str) -> Preprocess:
    """Raw pixels -> what that backbone expects, as Keras operations."""
    return _PREPROCESSING[TABLE[name].preprocessing]


def _frostnet(weights: str, size: int) -> keras.Model:
    model = frostnet.build(size)
    if weights != "none":
        path = frostnet.WEIGHTS if weights == "builtin" else Path(weights)
        try:
            frostnet.load_weights(model, path)
        except Exception as error:  # NumPy raises many kinds for a foreign or short file
            raise WeightsError(
                f"{path}: does not hold frostnet's weights ({_first_line(error)}); use builtin, or mend the path"
            ) from error
    return model


def _application(name: str, weights: str, size: int) -> keras.Model:
    import keras

    constructor = getattr(keras.applications, name)
    shape = (size, size, 3)
    if weights == "none":
        return constructor(include_top=False, weights=None, input_shape=shape)
    if weights == "imagenet":
        try:
            return constructor(include_top=False, weights="imagenet", input_shape=shape)
        except Exception as error:  # keras.utils.get_file raises a bare Exception where the download fails
            raise WeightsError(
                f"{name}'s ImageNet weights can't be had ({_first_line(error)}); connect once, "
                "or set backbone.weights to a *_notop.h5 file"
            ) from error
    try:
        # h5py and Keras raise OSError, ValueError, KeyError and more for a file of other layers.
        return constructor(include_top=False, weights=weights, input_shape=shape)
    except Exception as error:
        raise WeightsError(
            f"{weights}: does not hold the weights of {name} without top ({_first_line(error)}); "
            "mend backbone.weights or backbone.name"
        ) from error


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines() or [type(error).__name__]
    return text[0][:160].rstrip(" .")


def _cut(model: keras.Model, until: str) -> keras.Model:
    import keras

    names = [layer.name for layer in model.layers]
    if until not in names:
        near = get_close_matches(until, names, n=1, cutoff=0.0)
        raise ParamsError(f"params.yaml: backbone.until {until!r} is no layer of {model.name}; did you mean {near[0]}?")
    body = keras.Model(model.input, model.get_layer(until).output, name=model.name)
    if not body.weights:
        raise ParamsError(f"params.yaml: backbone.until {until!r} leaves a body without weights; name a deeper layer")
    return body


def _to_unit(x: keras.KerasTensor) -> keras.KerasTensor:
    import keras

    return keras.layers.Rescaling(1 / 127.5, offset=-1, name="preprocess")(x)


def _to_caffe(x: keras.KerasTensor) -> keras.KerasTensor:
    import keras

    flipped = keras.ops.flip(x, axis=-1)
    return keras.layers.Rescaling([1.0, 1.0, 1.0], offset=[-103.939, -116.779, -123.68], name="preprocess")(flipped)


_PREPROCESSING: dict[str, Preprocess] = {"tf": _to_unit, "caffe": _to_caffe}
