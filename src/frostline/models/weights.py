"""Load weights from files and bundles, layer by layer, into all layers of a body that they fit.

It reads two layouts of HDF5 without building the model that wrote them: the one of Keras 3 (`*.weights.h5`, also inside
`*.keras`), and the older one of Keras's own downloads and of `model.save("*.h5")`. Layers of a head are not loaded.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from frostline import paths
from frostline.core import digest
from frostline.errors import WeightsError
from frostline.models import account, weight_files
from frostline.models.made_from import LoadedWeights

if TYPE_CHECKING:
    import keras

KEYWORDS = {"none", "builtin", "imagenet", "preset"}
REGISTERED = "models:/"

# `backbone.weights` -> the same, or the folder of a registered model on this machine.
Locate = Callable[[str], str]

# Names that Keras makes of the class and a number, which depends on what the process built before. These names only
# tell the order of the layers, and are used only if all layers of the class fit in this order.
_NUMBERED = re.compile(r"(conv2d|depthwise_conv2d|separable_conv2d|batch_normalization|normalization)(?:_(\d+))?")

# ImageNet's standard deviations. The files of EfficientNetB0 to B7 have them instead of the variances.
_DEVIATIONS = np.array([0.229, 0.224, 0.225], np.float32)

# The layers with weights of a file, in its order: their names and arrays.
LayerArrays = list[tuple[str, list[NDArray[Any]]]]


def check(weights: str, name: str, alpha: float | None, words: Sequence[str]) -> None:
    """Check all of a file or a bundle's folder that can be checked without loading Keras.

    words: the keywords of the backbone. Raises WeightsError, one line with the fix.
    """
    path = Path(weights)
    if path.is_dir():
        _check_bundle(path, name, alpha)
    elif weights.startswith(REGISTERED) or path.is_file():
        return
    elif path == paths.BUNDLE:
        raise WeightsError(
            f"{path}: backbone.weights names the output of finetune, and DVC deletes it first; copy the folder and "
            f"name the copy, or register it and name {REGISTERED}NAME@ALIAS"
        )
    else:
        raise WeightsError(f"{path}: backbone.weights names no file; use {', '.join(words)}, or fix the path")


def _check_bundle(folder: Path, name: str, alpha: float | None) -> None:
    try:
        origin = account.peek(folder).made_from.backbone
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{folder}: backbone.weights names a folder without a bundle; name a file, or a folder with a bundle.json "
            "of frostline"
        ) from error
    if origin.name != name:
        raise WeightsError(
            f"{folder}: backbone.weights names a bundle of {origin.name}; set backbone.name to {origin.name}"
        )
    if (origin.alpha or 1.0) != (alpha or 1.0):
        width = "null" if origin.alpha is None else f"{origin.alpha:g}"
        raise WeightsError(f"{folder}: backbone.weights names a bundle of alpha {width}; set backbone.alpha to {width}")


def content(weights: str) -> str | None:
    """The digest of the file or of the bundle's folder that `backbone.weights` names; None for a keyword."""
    path = Path(weights)
    if weights in KEYWORDS:
        return None
    if path.is_dir():
        return digest.of_folder(path)
    return digest.of_file(path) if path.is_file() else None


def load(model: keras.Model, path: Path) -> LoadedWeights:
    """Load the weights of a file or a bundle into a body, by name if the file does not begin with its layers in order.

    path: `*.weights.h5`, `*.keras`, an older `*.h5`, or a bundle's folder. Raises OSError, ValueError or KeyError for
    any other file, and UnsafeFileError (a ValueError) for a file that is not safe to load.
    """
    layers = list(layers_of(model))
    if path.is_dir():
        account.read(path)
        path = path / account.MODEL
    weight_files.require_safe(path)
    file_layers, in_order = read(path)
    if not file_layers:  # from a Keras 3 that did not write names: the structure of the model must be the same
        model.load_weights(path)
        return LoadedWeights(len(layers), len(layers), [], [])
    first_arrays = [arrays for _, arrays in file_layers[: len(layers)]]
    fits_in_order = in_order and list(map(_shapes, first_arrays)) == [_shapes(layer.weights) for layer in layers]
    missing, mismatched = [], []
    for layer, arrays in zip(
        layers, first_arrays if fits_in_order else _arrays_by_name(layers, file_layers), strict=True
    ):
        if arrays is None:
            missing.append(layer.name)
        elif _shapes(arrays) != _shapes(layer.weights):
            mismatched.append(layer.name)
        else:
            _assign(layer, arrays)
    return LoadedWeights(len(layers) - len(missing) - len(mismatched), len(layers), missing, mismatched)


def layers_of(model: keras.Model) -> Iterator[Any]:
    """The layers that have weights, including those of nested models, but without the models themselves."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from layers_of(layer)
        elif layer.weights:
            yield layer


def read(path: Path) -> tuple[LayerArrays, bool]:
    """The layers with names and weights of a file, and whether they are in the order of the model.

    Raises OSError, ValueError or KeyError for a file of another kind.
    """
    import h5py

    source: Any = path
    if path.suffix == ".keras":
        source = io.BytesIO(weight_files.member(path, weight_files.WEIGHTS))
    with h5py.File(source, "r") as file:
        group = file.get("model_weights", file)
        is_old = any(key.startswith("layer_names") for key in group.attrs)
        return (_of_keras_2(group), True) if is_old else (_of_keras_3(file), False)


def _of_keras_2(group: Any) -> LayerArrays:
    """Read Keras's older layout: a group for each layer of the model, with the names of its weights in order."""
    layers: LayerArrays = []
    for name in _names(group, "layer_names"):
        arrays_by_layer: dict[str, list[NDArray[Any]]] = {}
        for weight in _names(group[name], "weight_names"):
            *_, inner, _ = ("", name, *weight.split("/"))  # the layer, also inside a nested model
            arrays_by_layer.setdefault(inner, []).append(np.asarray(group[name][weight]))
        is_nested = len(arrays_by_layer) > 1
        layers += arrays_by_layer.items() if is_nested else [(name, arrays) for arrays in arrays_by_layer.values()]
    return layers


def _names(group: Any, key: str) -> list[str]:
    """Read a list of names, which is split into several numbered attributes if it is too long for one."""
    chunks = [key] if key in group.attrs else sorted((k for k in group.attrs if k.startswith(key)), key=_number)
    names = [name for chunk in chunks for name in group.attrs[chunk]]
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _of_keras_3(file: Any) -> LayerArrays:
    """Read the layout of Keras 3: a group `vars` for each layer, with its name. The order is that of classes."""
    layers: LayerArrays = []

    def visit(path: str, group: Any) -> None:
        if path.endswith("vars") and not path.startswith("optimizer") and "name" in group.attrs and len(group):
            arrays = [np.asarray(group[key]) for key in sorted(group, key=_number)]
            layers.append((str(group.attrs["name"]), arrays))

    file.visititems(visit)
    return layers


def _number(name: str) -> int:
    return int(re.sub(r"\D", "", name) or 0)


def _arrays_by_name(layers: Sequence[Any], file_layers: LayerArrays) -> Iterator[list[NDArray[Any]] | None]:
    """The arrays of a file for each layer: None if the file has none, and [] if a numbered name does not fit."""
    keys = _keys([layer.name for layer in layers])
    file_keys = _keys([name for name, _ in file_layers])
    arrays_by_key = dict(zip(file_keys, (arrays for _, arrays in file_layers), strict=True))
    mismatched_classes = {
        key[0]
        for key, layer in zip(keys, layers, strict=True)
        if isinstance(key, tuple) and key in arrays_by_key and _shapes(arrays_by_key[key]) != _shapes(layer.weights)
    }
    for key in keys:
        yield [] if isinstance(key, tuple) and key[0] in mismatched_classes else arrays_by_key.get(key)


def _keys(names: Sequence[str]) -> list[Any]:
    """The keys of layers: their names, or class and rank if the name is only the class and a number."""
    keys: list[Any] = list(names)
    numbers_by_class: dict[str, list[tuple[int, int]]] = {}
    for place, name in enumerate(names):
        if match := _NUMBERED.fullmatch(name):
            numbers_by_class.setdefault(match[1], []).append((int(match[2] or 0), place))
    for kind, numbers in numbers_by_class.items():
        for rank, (_, place) in enumerate(sorted(numbers)):
            keys[place] = (kind, rank)
    return keys


def _shapes(arrays: Sequence[Any]) -> list[tuple[int, ...]]:
    return [tuple(array.shape) for array in arrays]


def _assign(layer: Any, arrays: Sequence[NDArray[Any]]) -> None:
    if not hasattr(layer, "finalize_state"):
        layer.set_weights(arrays)
        return
    mean, variance, *count = arrays
    # Keras adds a Rescaling layer to the graph if it downloads the weights itself, but not if they are from a file.
    if np.allclose(variance, _DEVIATIONS, rtol=1e-3):
        variance = variance * _DEVIATIONS
    layer.set_weights([mean, variance, *count])
    layer.finalize_state()  # otherwise it would keep its initial mean and variance
