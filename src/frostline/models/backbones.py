"""The backbones, as a table.

A backbone is a Keras application without its top, or frostnet. Its preprocessing belongs to it and becomes part of
the model graph, so that the input is always raw images, uint8 or float in [0, 255].
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from frostline.core import suggest
from frostline.errors import ParamsError, WeightsError
from frostline.models import freeze_rules, frostnet
from frostline.models.made_from import LoadedWeights
from frostline.models.weights import KEYWORDS, Locate, layers_of, load
from frostline.models.weights import check as check_weights
from frostline.params.schema import BackboneSection

if TYPE_CHECKING:
    import keras

    Preprocess = Callable[[keras.KerasTensor], keras.KerasTensor]

SIZES = Path(__file__).with_name("backbones.csv")


@dataclass(frozen=True)
class Spec:
    """One row of the table.

    preprocessing: `tf` scales to [-1, 1]; `caffe` flips RGB to BGR and subtracts ImageNet's means; `torch` scales to
    [0, 1], then subtracts ImageNet's means and divides by its deviations (the names are those of
    `keras.applications.imagenet_utils.preprocess_input`); `included`: it is part of the body, which takes [0, 255].
    native, smallest: sides of images in pixels. alphas: the widths that have ImageNet weights; empty if there is one
    width.
    """

    preprocessing: str
    native: int
    smallest: int = 32
    alphas: tuple[float, ...] = ()


TABLE: dict[str, Spec] = {
    "frostnet": Spec("tf", 64, 16),
    "MobileNet": Spec("tf", 224, alphas=(0.25, 0.5, 0.75, 1.0)),
    "MobileNetV2": Spec("tf", 224, alphas=(0.35, 0.5, 0.75, 1.0, 1.3, 1.4)),
    "MobileNetV3Small": Spec("included", 224, alphas=(0.75, 1.0)),
    "MobileNetV3Large": Spec("included", 224, alphas=(0.75, 1.0)),
    "EfficientNetB0": Spec("included", 224),
    "EfficientNetB1": Spec("included", 240),
    "EfficientNetB2": Spec("included", 260),
    "EfficientNetB3": Spec("included", 300),
    "EfficientNetB4": Spec("included", 380),
    "EfficientNetB5": Spec("included", 456),
    "EfficientNetB6": Spec("included", 528),
    "EfficientNetB7": Spec("included", 600),
    "EfficientNetV2B0": Spec("included", 224),
    "EfficientNetV2B1": Spec("included", 240),
    "EfficientNetV2B2": Spec("included", 260),
    "EfficientNetV2B3": Spec("included", 300),
    "EfficientNetV2S": Spec("included", 384),
    "EfficientNetV2M": Spec("included", 480),
    "EfficientNetV2L": Spec("included", 480),
    "ConvNeXtTiny": Spec("included", 224),
    "ConvNeXtSmall": Spec("included", 224),
    "ConvNeXtBase": Spec("included", 224),
    "ConvNeXtLarge": Spec("included", 224),
    "ConvNeXtXLarge": Spec("included", 224),
    "DenseNet121": Spec("torch", 224),
    "DenseNet169": Spec("torch", 224),
    "DenseNet201": Spec("torch", 224),
    "InceptionV3": Spec("tf", 299, 75),
    "InceptionResNetV2": Spec("tf", 299, 75),
    "NASNetMobile": Spec("tf", 224),
    "NASNetLarge": Spec("tf", 331),
    "ResNet50": Spec("caffe", 224),
    "ResNet101": Spec("caffe", 224),
    "ResNet152": Spec("caffe", 224),
    "ResNet50V2": Spec("tf", 224),
    "ResNet101V2": Spec("tf", 224),
    "ResNet152V2": Spec("tf", 224),
    "VGG16": Spec("caffe", 224),
    "VGG19": Spec("caffe", 224),
    "Xception": Spec("tf", 299, 71),
}


class Size(NamedTuple):
    """The numbers of layers, parameters (scalars) and cut points of a backbone at its native size."""

    layers: int
    parameters: int
    cut_points: int


def sizes() -> dict[str, Size]:
    """The sizes by name. `benchmarks/backbone_sizes.py` counts them, since building all backbones takes minutes."""
    with SIZES.open(encoding="utf-8", newline="") as file:
        return {name: Size(*map(int, counts)) for name, *counts in list(csv.reader(file))[1:]}


@dataclass(frozen=True)
class Backbone:
    """A body whose layers can be frozen, with its preprocessing.

    model: a functional model, preprocessed float32 (n, size, size, 3) -> the last feature map, with the layers of
    keras.applications; preprocess: raw pixels -> the input of the model, as Keras operations; loaded: the layers that
    a file of weights set, None if the weights are not from a file.
    """

    name: str
    model: keras.Model
    preprocess: Preprocess
    pretrained: bool
    loaded: LoadedWeights | None = None


def check(name: str, weights: str, size: int, alpha: float | None = None) -> Spec:
    """Check all that can be checked without loading Keras. Returns the backbone's row of the table.

    Raises ParamsError or WeightsError, one line with the fix.
    """
    if name not in TABLE:
        fix = suggest.hint(name, TABLE, otherwise=f"use one of {', '.join(TABLE)}", cutoff=0.5)
        raise ParamsError(f"params.yaml: backbone.name {name!r} is not known; {fix}")
    spec = TABLE[name]
    if size < spec.smallest:
        raise ParamsError(f"params.yaml: data.image_size {size} is too small for {name}; use at least {spec.smallest}")
    if alpha is not None and not spec.alphas:
        raise ParamsError(f"params.yaml: backbone.alpha {alpha:g} is given, but {name} has one width; set it to null")
    if weights == "imagenet" and alpha is not None and alpha not in spec.alphas:
        widths = ", ".join(f"{each:g}" for each in spec.alphas)
        raise ParamsError(f"params.yaml: backbone.alpha {alpha:g} has no ImageNet weights for {name}; use {widths}")
    words = ["builtin", "none"] if name == "frostnet" else ["imagenet", "none"]
    if weights not in KEYWORDS:
        check_weights(weights, name, alpha, words)
    elif weights not in words:
        raise ParamsError(
            f"params.yaml: backbone.weights {weights!r} does not exist for {name}; use {' or '.join(words)}, or a path"
        )
    return spec


def of_section(section: BackboneSection, locate: Locate, size: int) -> Backbone:
    """The backbone that params.yaml names. locate: finds its weights on this machine. Raises the errors of `build`."""
    return build(section.name, locate(section.weights), size, section.until, section.alpha)


def build(name: str, weights: str, size: int, until: str | None = None, alpha: float | None = None) -> Backbone:
    """Build a backbone for images of `size` pixels a side.

    weights: `none`, `builtin` (frostnet), `imagenet`, a bundle's folder, or a file: `.weights.h5`, `.keras`, `.h5`, or
    frostnet's `.npz`. until: name of the layer, or operation, whose output is the last feature map; None for the whole
    body. alpha: width, None for the backbone's own. Raises ParamsError, or WeightsError if no layer of a file fits.
    """
    check(name, weights, size, alpha)
    constructor_weights = weights if weights in KEYWORDS else "none"
    model = frostnet.build(size) if name == "frostnet" else _application(name, constructor_weights, size, alpha)
    body = model if until is None else _cut(model, until)
    loaded = None
    if weights == "builtin" or weights.endswith(".npz"):
        _load_frostnet(model, name, weights)
    elif weights not in KEYWORDS:
        loaded = _load(model, name, weights).among([layer.name for layer in layers_of(body)])
        if not loaded.layers:
            raise _unfit(weights, name, f"none of {loaded.of} layers fits")
    return Backbone(name, body, preprocessing(name), weights != "none", loaded)


def preprocessing(name: str) -> Preprocess:
    """The preprocessing of a backbone: raw pixels -> the input of its body, as Keras operations."""
    return _PREPROCESSING[TABLE[name].preprocessing]


def _load_frostnet(model: keras.Model, name: str, weights: str) -> None:
    path = frostnet.WEIGHTS if weights == "builtin" else Path(weights)
    try:
        frostnet.load_weights(model, path)
    except Exception as error:  # NumPy raises many kinds of errors for a file that is not its own
        raise _unfit(str(path), name, _first_line(error)) from error


def _load(model: keras.Model, name: str, weights: str) -> LoadedWeights:
    try:
        return load(model, Path(weights))
    except Exception as error:  # h5py and Keras raise OSError, ValueError, KeyError and more for other files
        raise _unfit(weights, name, _first_line(error)) from error


def _unfit(weights: str, name: str, reason: str) -> WeightsError:
    keys = "backbone.weights or backbone.name" + (" or backbone.alpha" if TABLE[name].alphas else "")
    return WeightsError(f"{weights}: does not hold the weights of {name} ({reason}); fix {keys}")


def _application(name: str, weights: str, size: int, alpha: float | None) -> keras.Model:
    import keras

    from frostline.models import keras_internals

    constructor = partial(getattr(keras.applications, name), include_top=False, input_shape=(size, size, 3))
    if alpha is not None:
        constructor = partial(constructor, alpha=alpha)
    with keras_internals.names_from_one():
        if weights == "none":
            try:
                return constructor(weights=None)
            except ValueError as error:  # a layer without channels
                if alpha is None:
                    raise
                raise ParamsError(
                    f"params.yaml: backbone.alpha {alpha:g} is not a width of {name} "
                    f"({_first_line(error)}); use a larger one"
                ) from error
        try:
            return constructor(weights=weights)
        except Exception as error:  # keras.utils.get_file raises a bare Exception if the download fails
            raise WeightsError(
                f"{name}'s ImageNet weights are not available ({_first_line(error)}); connect once, "
                "or set backbone.weights to a *_notop.h5 file"
            ) from error


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines() or [type(error).__name__]
    return text[0][:160].rstrip(" .")


def _cut(model: keras.Model, until: str) -> keras.Model:
    import keras

    operations = {operation.name: operation for operation in model.operations}
    if until not in operations:
        raise freeze_rules.unknown_cut(until, model.name, list(operations))
    body = keras.Model(model.input, operations[until].output, name=model.name)
    if len(body.output.shape) != 4:
        raise ParamsError(f"params.yaml: backbone.until {until!r} gives no feature map; name a convolution or a sum")
    if not body.weights:
        raise ParamsError(f"params.yaml: backbone.until {until!r} leaves a body without weights; name a deeper layer")
    return body


def _rescaled(x: keras.KerasTensor, scale: float | list[float], offset: float | list[float]) -> keras.KerasTensor:
    import keras

    return keras.layers.Rescaling(scale, offset, name="preprocess")(x)


def _to_caffe(x: keras.KerasTensor) -> keras.KerasTensor:
    import keras

    return _rescaled(keras.ops.flip(x, axis=-1), [1.0, 1.0, 1.0], [-103.939, -116.779, -123.68])


def _to_torch(x: keras.KerasTensor) -> keras.KerasTensor:
    means, deviations = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    offset = [-mean / deviation for mean, deviation in zip(means, deviations, strict=True)]
    return _rescaled(x, [1 / (255 * deviation) for deviation in deviations], offset)


_PREPROCESSING: dict[str, Preprocess] = {
    "tf": lambda x: _rescaled(x, 1 / 127.5, -1.0),
    "caffe": _to_caffe,
    "torch": _to_torch,
    "included": lambda x: _rescaled(x, 1.0, 0.0),  # integers become floats
}
