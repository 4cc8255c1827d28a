"""Load weights from files and bundles, layer by layer, into all layers of a body that they fit.

file_kinds.py tells by the content what a file is; keras_files.py, saved_model.py and torch_weights.py read it without
building the model that wrote it. Layers of a head are not loaded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from frostline import paths
from frostline.core import digest
from frostline.errors import WeightsError
from frostline.models import account, file_kinds, keras_files, saved_model, torch_weights, weight_files
from frostline.models.file_kinds import Found
from frostline.models.keras_files import LayerArrays
from frostline.models.made_from import LoadedWeights

if TYPE_CHECKING:
    import keras

KEYWORDS = {"none", "builtin", "imagenet", "preset"}
REGISTERED = "models:/"

# `backbone.weights` -> the same, or the folder of a registered model on this machine.
Locate = Callable[[str], str]

# Names that Keras makes of the class and a number, which depends on what the process built before. These names only
# tell the order of the layers, and are used only if all layers of the class fit in this order.
_NUMBERED = re.compile(
    r"(conv2d|depthwise_conv2d|separable_conv2d|batch_normalization|layer_normalization|normalization)(?:_(\d+))?"
)

# ImageNet's standard deviations. The files of EfficientNetB0 to B7 have them instead of the variances.
_DEVIATIONS = np.array([0.229, 0.224, 0.225], np.float32)


def check(weights: str, name: str, alpha: float | None, words: Sequence[str]) -> None:
    """Check all of a file or a bundle's folder that can be checked without loading Keras.

    words: the keywords of the backbone. Raises WeightsError, one line with the fix.
    """
    path = Path(weights)
    if weights.startswith(REGISTERED):
        return
    if path == paths.BUNDLE and not path.exists():
        raise WeightsError(
            f"{path}: backbone.weights names the output of finetune, and DVC deletes it first; copy the folder and "
            f"name the copy, or register it and name {REGISTERED}NAME@ALIAS"
        )
    if not path.exists():
        raise WeightsError(f"{path}: backbone.weights names no file; use {', '.join(words)}, or fix the path")
    try:
        found = file_kinds.find(path)
    except (file_kinds.ForeignFileError, OSError) as error:
        raise WeightsError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if found.kind == "bundle":
        _check_bundle(path, name, alpha)
    elif found.kind == "safetensors":
        try:
            torch_weights.find(name, found.path)
        except (ValueError, OSError) as error:
            raise WeightsError(f"{path}: can't be the weights of {name}: {error}") from error


def _check_bundle(folder: Path, name: str, alpha: float | None) -> None:
    try:
        origin = account.peek(folder).made_from.backbone
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{folder}: backbone.weights names a folder without a bundle ({account.first_line(error)}); name a file, "
            "or a folder with a bundle.json of frostline"
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


def load(model: keras.Model, name: str, path: Path) -> LoadedWeights:
    """Load the weights of a file or a bundle into a body, by name if the file does not begin with its layers in order.

    name: of the backbone; path: what `check` accepts. Raises OSError, ValueError or KeyError for any other file, and
    UnsafeFileError (a ValueError) for a file that is not safe to load.
    """
    found = file_kinds.find(path)
    if found.kind == "npz":
        raise ValueError("it is an archive of NumPy's, which only frostnet has")
    layers = list(layers_of(model))
    if found.kind == "safetensors":
        file = torch_weights.find(name, found.path)
        for layer, arrays in zip(layers, torch_weights.arrays(file, layers), strict=True):
            _assign(layer, arrays)
        return LoadedWeights(len(layers), len(layers), [], [], file.preprocessing)
    file_layers, in_order, preprocessing = _read(found)
    if not file_layers:  # from a Keras 3 that did not write names: the structure of the model must be the same
        model.load_weights(found.path)
        return LoadedWeights(len(layers), len(layers), [], [])
    missing, mismatched = _set(layers, file_layers, in_order)
    return LoadedWeights(len(layers) - len(missing) - len(mismatched), len(layers), missing, mismatched, preprocessing)


def _read(found: Found) -> tuple[LayerArrays, bool, str | None]:
    """The layers of a file, whether they are in the order of the model, and the preprocessing that they need."""
    if found.kind == "saved_model":
        return saved_model.read(found.path), False, None
    path, preprocessing = found.path, None
    if found.kind == "bundle":
        loaded = account.read(path).made_from.backbone.loaded
        path, preprocessing = path / account.MODEL, loaded.preprocessing if loaded else None
    weight_files.require_safe(path)
    return (*keras_files.read(path), preprocessing)


def _set(layers: Sequence[Any], file_layers: LayerArrays, in_order: bool) -> tuple[list[str], list[str]]:
    """Set the layers that fit. Returns the names of those that the file has not, and of those with other shapes."""
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
    return missing, mismatched


def layers_of(model: keras.Model) -> Iterator[Any]:
    """The layers that have weights, including those of nested models, but without the models themselves."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from layers_of(layer)
        elif layer.weights:
            yield layer


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
