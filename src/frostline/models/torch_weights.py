"""Weights that torch saved, as arrays for the layers of a body: all of them, or none with the reason.

The file is `*.safetensors`, or a folder with one and timm's `config.json`. A layer or a tensor too many is an error,
since a deeper network has all the layers of a shallower one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from frostline.models import safetensors_file, torch_names
from frostline.models.torch_names import MEANS, TorchLayout

CONFIG = "config.json"
LONGEST = 2**20  # bytes of a config

Tensors = dict[str, NDArray[np.float32]]


class TorchFile(NamedTuple):
    """A file of weights whose layout is known.

    path: of the tensors; layout: its names; input: of the training, a name of MEANS.
    """

    path: Path
    layout: TorchLayout
    input: str

    @property
    def preprocessing(self) -> str:
        """The name in `preprocessing.WAYS` of what the body's input needs with these weights."""
        return self.layout.ways[self.input]


def find(name: str, path: Path) -> TorchFile:
    """Find out which network of torch a file holds, by its names and the config beside it. It does not load Keras.

    name: of the backbone; path: `*.safetensors`, or the folder of one. Raises ValueError, one short reason, if the file
    is not safe to load or of a network that computes something else than the backbone.
    """
    if name not in torch_names.LAYOUTS:
        why = torch_names.REFUSED.get(name, "no network of torch was found to compute what Keras's {name} does")
        raise ValueError(f"it is a file of torch's, and {why.format(name=name)}")
    file = path if path.is_file() else next(path.glob("*.safetensors"))
    known = set(safetensors_file.places(file))
    layouts = torch_names.LAYOUTS[name]
    layout = next((layout for layout in layouts if layout.mark in known), None)
    if layout is None:
        raise ValueError(f"it holds no {' or '.join(layout.mark for layout in layouts)}, so it is of another network")
    architecture, means = _config(path / CONFIG) if path.is_dir() else (None, None)
    wanted = " or ".join(layout.architectures)
    if architecture is None and layout.is_ambiguous:
        raise ValueError(
            f"its names are those of timm's {wanted}, but also of a network that pads in another way; put the model's "
            f"{CONFIG} beside it and name the folder"
        )
    if architecture is not None and architecture not in layout.architectures:
        raise ValueError(f"its {CONFIG} says {architecture}, and {name} computes what {wanted} does")
    return TorchFile(file, layout, _input(layout, means))


def arrays(file: TorchFile, layers: Sequence[Any]) -> list[list[NDArray[Any]]]:
    """The weights of each layer of a body in Keras's form, float32.

    Raises ValueError, one short reason, if a layer has none or others, or if the file holds more layers.
    """
    tensors = safetensors_file.read(file.path)
    modules = file.layout.rename([layer.name for layer in layers])
    found = []
    for layer, module in zip(layers, modules, strict=True):
        weights = _normalization(file.input) if not module else _of_layer(layer, module, tensors, file.layout)
        if [array.shape for array in weights] != [tuple(weight.shape) for weight in layer.weights]:
            raise ValueError(f"{module} has not the shape of {layer.name}")
        found.append(weights)
    rest = sorted(key for key in tensors if not re.fullmatch(file.layout.head, key))
    if rest:
        raise ValueError(f"it holds {len(rest)} more, the first is {rest[0]}, so it is of another network")
    return found


def _config(path: Path) -> tuple[str | None, Any]:
    """The architecture that timm's config names, and mean and deviation of its input; None for what it does not say."""
    if not path.is_file():
        return None, None
    try:
        if path.stat().st_size > LONGEST:
            raise ValueError("it is too long")
        config = json.loads(path.read_text(encoding="utf-8"))
        details = {**config, **config.get("pretrained_cfg", {})}
        means = (details["mean"], details["std"]) if "mean" in details and "std" in details else None
        return str(config["architecture"]).partition(".")[0], means
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"its {CONFIG} is not timm's: {error}") from None


def _input(layout: TorchLayout, means: Any) -> str:
    if means is None:
        return next(iter(layout.ways))
    for name in layout.ways:
        expected = np.array(MEANS[name])
        actual = np.array(means, dtype=np.float64)
        if actual.shape == expected.shape and np.allclose(actual, expected, rtol=0, atol=1e-6):
            return name
    raise ValueError(f"its {CONFIG} says that it takes pixels of mean {means[0]}, which this body does not")


def _of_layer(layer: Any, module: str, tensors: Tensors, layout: TorchLayout) -> list[NDArray[Any]]:
    if hasattr(layer, "moving_variance"):
        weights = _taken(tensors, f"{module}.", ("weight", "bias", "running_mean", "running_var"))
        weights[3] += np.float32(layout.epsilon - layer.epsilon)  # the same root with Keras's epsilon
        return weights
    if not hasattr(layer, "kernel"):
        if len(layer.weights) == 2:
            return _taken(tensors, f"{module}.", ("weight", "bias"))
        return [array.reshape(-1) for array in _taken(tensors, module, ("",))]  # the scale of a ConvNeXt block
    weights = _taken(tensors, f"{module}.", ("weight", "bias") if layer.use_bias else ("weight",))
    if weights[0].ndim == 2:
        axes: tuple[int, ...] = (1, 0)
    else:
        axes = (2, 3, 0, 1) if hasattr(layer, "depth_multiplier") else (2, 3, 1, 0)
    return [weights[0].transpose(axes) if weights[0].ndim == len(axes) else weights[0], *weights[1:]]


def _taken(tensors: Tensors, prefix: str, parts: Iterable[str]) -> list[NDArray[Any]]:
    """Take tensors out of the file's, so that what remains is what no layer needs."""
    names = [prefix + part for part in parts]
    missing = [name for name in names if name not in tensors]
    if missing:
        raise ValueError(f"it holds no {missing[0]}")
    return [tensors.pop(name) for name in names]


def _normalization(name: str) -> list[NDArray[Any]]:
    """The weights of Keras's layer `normalization`: means, variances, and a count that is not used."""
    mean, deviation = np.array(MEANS[name], np.float32)
    return [mean, deviation**2, np.array(0)]
