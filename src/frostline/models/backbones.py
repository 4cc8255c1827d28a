"""The backbones, as a table.

A backbone is a classifier without its classification layers. A row says of which family it is, and the family's file
builds it. Its preprocessing belongs to it and becomes part of the model graph, so that the input is always raw images,
uint8 or float in [0, 255].
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from frostline.core import own_code, suggest
from frostline.errors import ParamsError, WeightsError
from frostline.models import (
    applications,
    efficientnet_lite,
    freeze_rules,
    frostnet,
    hub,
    hub_presets,
    own_backbone,
    preprocessing,
)
from frostline.models.family import Family, Whereabouts, reason
from frostline.models.made_from import LoadedWeights
from frostline.models.weights import KEYWORDS, Locate, layers_of
from frostline.models.weights import check as check_weights
from frostline.params.schema import BackboneSection

if TYPE_CHECKING:
    import keras

    from frostline.models.preprocessing import Preprocess

SIZES = Path(__file__).with_name("backbones.csv")


@dataclass(frozen=True)
class Spec:
    """One row of the table.

    family: how the body is built; preprocessing: a name of `preprocessing.WAYS`, or `own`: the family says it; native,
    smallest: sides of images in pixels; top1: accuracy on ImageNet in percent at the usual width, as the source of the
    weights states it, None if there are no such weights; alphas: the widths that have ImageNet weights, empty if there
    is one width.
    """

    family: Family
    preprocessing: str
    native: int
    top1: float | None = None
    smallest: int = 32
    alphas: tuple[float, ...] = ()


# The sources of `top1`: for EfficientNetLite the page that efficientnet_lite.py names, for MobileNetV3 the docstring of
# keras.applications at alpha 1.0, for all others the table of https://keras.io/api/applications/.
TABLE: dict[str, Spec] = {
    "frostnet": Spec(frostnet.FAMILY, "tf", 64, smallest=16),
    "EfficientNetLite0": Spec(efficientnet_lite.FAMILY, "lite", 224, 75.1),
    "EfficientNetLite1": Spec(efficientnet_lite.FAMILY, "lite", 240, 76.7),
    "EfficientNetLite2": Spec(efficientnet_lite.FAMILY, "lite", 260, 77.6),
    "MobileNet": Spec(applications.FAMILY, "tf", 224, 70.4, alphas=(0.25, 0.5, 0.75, 1.0)),
    "MobileNetV2": Spec(applications.FAMILY, "tf", 224, 71.3, alphas=(0.35, 0.5, 0.75, 1.0, 1.3, 1.4)),
    "MobileNetV3Small": Spec(applications.FAMILY, "included", 224, 68.1, alphas=(0.75, 1.0)),
    "MobileNetV3Large": Spec(applications.FAMILY, "included", 224, 75.6, alphas=(0.75, 1.0)),
    "EfficientNetB0": Spec(applications.FAMILY, "included", 224, 77.1),
    "EfficientNetB1": Spec(applications.FAMILY, "included", 240, 79.1),
    "EfficientNetB2": Spec(applications.FAMILY, "included", 260, 80.1),
    "EfficientNetB3": Spec(applications.FAMILY, "included", 300, 81.6),
    "EfficientNetB4": Spec(applications.FAMILY, "included", 380, 82.9),
    "EfficientNetB5": Spec(applications.FAMILY, "included", 456, 83.6),
    "EfficientNetB6": Spec(applications.FAMILY, "included", 528, 84.0),
    "EfficientNetB7": Spec(applications.FAMILY, "included", 600, 84.3),
    "EfficientNetV2B0": Spec(applications.FAMILY, "included", 224, 78.7),
    "EfficientNetV2B1": Spec(applications.FAMILY, "included", 240, 79.8),
    "EfficientNetV2B2": Spec(applications.FAMILY, "included", 260, 80.5),
    "EfficientNetV2B3": Spec(applications.FAMILY, "included", 300, 82.0),
    "EfficientNetV2S": Spec(applications.FAMILY, "included", 384, 83.9),
    "EfficientNetV2M": Spec(applications.FAMILY, "included", 480, 85.3),
    "EfficientNetV2L": Spec(applications.FAMILY, "included", 480, 85.7),
    "ConvNeXtTiny": Spec(applications.FAMILY, "included", 224, 81.3),
    "ConvNeXtSmall": Spec(applications.FAMILY, "included", 224, 82.3),
    "ConvNeXtBase": Spec(applications.FAMILY, "included", 224, 85.3),
    "ConvNeXtLarge": Spec(applications.FAMILY, "included", 224, 86.3),
    "ConvNeXtXLarge": Spec(applications.FAMILY, "included", 224, 86.7),
    "DenseNet121": Spec(applications.FAMILY, "torch", 224, 75.0),
    "DenseNet169": Spec(applications.FAMILY, "torch", 224, 76.2),
    "DenseNet201": Spec(applications.FAMILY, "torch", 224, 77.3),
    "InceptionV3": Spec(applications.FAMILY, "tf", 299, 77.9, smallest=75),
    "InceptionResNetV2": Spec(applications.FAMILY, "tf", 299, 80.3, smallest=75),
    "NASNetMobile": Spec(applications.FAMILY, "tf", 224, 74.4),
    "NASNetLarge": Spec(applications.FAMILY, "tf", 331, 82.5),
    "ResNet50": Spec(applications.FAMILY, "caffe", 224, 74.9),
    "ResNet101": Spec(applications.FAMILY, "caffe", 224, 76.4),
    "ResNet152": Spec(applications.FAMILY, "caffe", 224, 76.6),
    "ResNet50V2": Spec(applications.FAMILY, "tf", 224, 76.0),
    "ResNet101V2": Spec(applications.FAMILY, "tf", 224, 77.2),
    "ResNet152V2": Spec(applications.FAMILY, "tf", 224, 78.0),
    "VGG16": Spec(applications.FAMILY, "caffe", 224, 71.3),
    "VGG19": Spec(applications.FAMILY, "caffe", 224, 71.3),
    "Xception": Spec(applications.FAMILY, "tf", 299, 79.0, smallest=71),
}


class Size(NamedTuple):
    """The numbers of layers, parameters (scalars), cut points and multiply-adds of a backbone at its native size."""

    layers: int
    parameters: int
    cut_points: int
    multiply_adds: int


def sizes() -> dict[str, Size]:
    """The sizes by name. `benchmarks/backbone_sizes.py` counts them, since building all backbones takes minutes."""
    with SIZES.open(encoding="utf-8", newline="") as file:
        return {name: Size(*map(int, counts)) for name, *counts in list(csv.reader(file))[1:]}


# The row of all presets of KerasHub. The native size of most is in their names.
PRESET = Spec(hub.FAMILY, "own", 224)
# The row of functions of one's own.
OWN = Spec(own_backbone.FAMILY, "included", 224, smallest=8)


@dataclass(frozen=True)
class Backbone:
    """A body whose layers can be frozen, with its preprocessing.

    model: a functional model, preprocessed float32 (n, size, size, 3) -> the last feature map (n, height, width,
    channels), or tokens (n, tokens, width); preprocess: raw pixels
    -> the input of the model, as Keras operations; loaded: the layers that a file of weights set, None if the weights
    are not from a file.
    """

    name: str
    model: keras.Model
    preprocess: Preprocess
    pretrained: bool
    loaded: LoadedWeights | None = None


def spec_of(name: str) -> Spec:
    """The row of a backbone. Raises ParamsError for a name that is not known, WeightsError if KerasHub is missing."""
    if hub_presets.is_name(name):
        hub_presets.check(name)
        return PRESET
    if own_code.is_reference(name):
        own_code.check(name, own_backbone.KEY)
        return OWN
    if name not in TABLE:
        fix = suggest.hint(name, TABLE, otherwise=f"use one of {', '.join(TABLE)}", cutoff=0.5)
        raise ParamsError(f"params.yaml: backbone.name {name!r} is not known; {fix}")
    return TABLE[name]


def usual(name: str) -> BackboneSection:
    """The whole body with its usual weights, as params.yaml would have it. Raises the errors of `spec_of`."""
    return BackboneSection(name=name, weights=spec_of(name).family.keywords[0], alpha=None, until=None)


def check(name: str, weights: str, size: int, alpha: float | None = None) -> Spec:
    """Check all that can be checked without loading Keras. Returns the backbone's row of the table.

    Raises ParamsError or WeightsError, one line with the fix.
    """
    spec = spec_of(name)
    if size < spec.smallest:
        raise ParamsError(f"params.yaml: data.image_size {size} is too small for {name}; use at least {spec.smallest}")
    if alpha is not None and not spec.alphas:
        raise ParamsError(f"params.yaml: backbone.alpha {alpha:g} is given, but {name} has one width; set it to null")
    if weights == "imagenet" and alpha is not None and alpha not in spec.alphas:
        widths = ", ".join(f"{each:g}" for each in spec.alphas)
        raise ParamsError(f"params.yaml: backbone.alpha {alpha:g} has no ImageNet weights for {name}; use {widths}")
    words = [*spec.family.keywords, "none"]
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

    weights: `none`, a keyword of its family (`builtin`, `imagenet`, `preset`), a file (`.weights.h5`, `.keras`, `.h5`,
    `.safetensors`, an archive with one `.h5`, or frostnet's `.npz`), or a folder with a bundle, a SavedModel or a file.
    until: name of the layer, or operation, whose output is the last feature map; None for the whole body. alpha: width,
    None for the backbone's own. Raises ParamsError, or WeightsError if no layer of a file fits.
    """
    family = check(name, weights, size, alpha).family
    model = family.build(name, weights if weights in KEYWORDS else "none", size, alpha)
    body = model if until is None else _cut(model, until)
    loaded = None
    if weights not in KEYWORDS and (loaded := _load(model, name, weights)):
        loaded = loaded.among([layer.name for layer in layers_of(body)])
        if not loaded.layers:
            raise _unfit(weights, name, f"none of {loaded.of} layers fits")
    return Backbone(name, body, preprocess(name, loaded), weights != "none", loaded)


def preprocess(name: str, loaded: LoadedWeights | None = None) -> Preprocess:
    """The preprocessing of a backbone: raw pixels -> the input of its body, as Keras operations.

    loaded: the weights from a file, which may need another one than the backbone's own.
    """
    spec = spec_of(name)
    if spec.family.preprocess:
        return spec.family.preprocess(name)
    return preprocessing.WAYS[(loaded and loaded.preprocessing) or spec.preprocessing]


def require(name: str, weights: str) -> None:
    """Raise WeightsError if `build` could not get the weights that a keyword means. Keras is not loaded."""
    family = spec_of(name).family
    if weights in family.keywords:
        family.require(name)


def whereabouts(name: str) -> Whereabouts | None:
    """Where the weights of a backbone are that were trained on large data; None if it has none."""
    return spec_of(name).family.whereabouts(name)


def _load(model: keras.Model, name: str, weights: str) -> LoadedWeights | None:
    try:
        return spec_of(name).family.load(model, name, Path(weights))
    except Exception as error:  # NumPy, h5py and Keras raise OSError, ValueError, KeyError and more for other files
        raise _unfit(weights, name, reason(error)) from error


def _unfit(weights: str, name: str, why: str) -> WeightsError:
    keys = "backbone.weights or backbone.name" + (" or backbone.alpha" if spec_of(name).alphas else "")
    return WeightsError(f"{weights}: does not hold the weights of {name} ({why}); fix {keys}")


def _cut(model: keras.Model, until: str) -> keras.Model:
    import keras

    operations = {operation.name: operation for operation in model.operations}
    if until not in operations:
        raise freeze_rules.unknown_cut(until, model.name, list(operations))
    body = keras.Model(model.input, operations[until].output, name=model.name)
    if len(body.output.shape) not in (3, 4):
        raise ParamsError(
            f"params.yaml: backbone.until {until!r} gives no feature map and no tokens; name a convolution or a sum"
        )
    if not body.weights:
        raise ParamsError(f"params.yaml: backbone.until {until!r} leaves a body without weights; name a deeper layer")
    return body
