"""Weights from files and bundles: read layer by layer, and put into whichever layers of a body they fit.

Two layouts of HDF5 are read, without building the model that wrote them: Keras 3's (`*.weights.h5`, and the one inside
`*.keras`), and the older one of Keras's own downloads and of `model.save("*.h5")`. A head's layers are left alone.
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

KEYWORDS = {"none", "builtin", "imagenet"}
REGISTERED = "models:/"

# `backbone.weights` -> the same, or the folder where a registered model lies on this machine.
Locate = Callable[[str], str]

# Layers that Keras names by their class, numbered by what the process built before: such names tell the order alone,
# and count only where all of a class fit in it.
_NUMBERED = re.compile(r"(conv2d|depthwise_conv2d|separable_conv2d|batch_normalization|normalization)(?:_(\d+))?")

# ImageNet's deviations. EfficientNetB0's to B7's files have them where the variance belongs.
_DEVIATIONS = np.array([0.229, 0.224, 0.225], np.float32)

# A file's layers with weights, in its order.
Stored = list[tuple[str, list[NDArray[Any]]]]


def check(weights: str, name: str, alpha: float | None, words: Sequence[str]) -> None:
    """What can be checked of a file or a bundle's folder without loading Keras.

    words: the keywords that the backbone has. Raises WeightsError, one line with the fix.
    """
    path = Path(weights)
    if path.is_dir():
        _check_bundle(path, name, alpha)
    elif weights.startswith(REGISTERED) or path.is_file():
        return
    elif path == paths.BUNDLE:
        raise WeightsError(
            f"{path}: backbone.weights names what finetune writes, and DVC deletes it first; copy the folder and name "
            f"the copy, or register it and name {REGISTERED}NAME@ALIAS"
        )
    else:
        raise WeightsError(f"{path}: backbone.weights names no file; use {', '.join(words)}, or fix the path")


def _check_bundle(folder: Path, name: str, alpha: float | None) -> None:
    try:
        origin = account.peek(folder).made_from.backbone
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{folder}: backbone.weights names a folder without a bundle; name a file, or a folder that has a "
            "bundle.json of frostline's"
        ) from error
    if origin.name != name:
        raise WeightsError(
            f"{folder}: backbone.weights names a bundle of {origin.name}; set backbone.name to {origin.name}"
        )
    if (origin.alpha or 1.0) != (alpha or 1.0):
        width = "null" if origin.alpha is None else f"{origin.alpha:g}"
        raise WeightsError(f"{folder}: backbone.weights names a bundle of alpha {width}; set backbone.alpha to {width}")


def content(weights: str) -> str | None:
    """Digest of the file or of the bundle's folder that `backbone.weights` names; None for a keyword."""
    path = Path(weights)
    if weights in KEYWORDS:
        return None
    if path.is_dir():
        return digest.of_folder(path)
    return digest.of_file(path) if path.is_file() else None


def load(model: keras.Model, path: Path) -> LoadedWeights:
    """Put a file's or a bundle's weights into a body, by name where the file does not begin with its layers in order.

    path: `*.weights.h5`, `*.keras`, an older `*.h5`, or a bundle's folder. Raises OSError, ValueError or KeyError for a
    file that is none of these, and UnsafeFileError (a ValueError) for one that is not to be loaded.
    """
    layers = list(layers_of(model))
    if path.is_dir():
        account.read(path)
        path = path / account.MODEL
    weight_files.require_safe(path)
    stored, in_order = read(path)
    if not stored:  # written before Keras 3 noted the names; it has all weights, or none that can be told apart
        model.load_weights(path)
        return LoadedWeights(len(layers), len(layers), [], [])
    first = [arrays for _, arrays in stored[: len(layers)]]
    same = in_order and list(map(_shapes, first)) == [_shapes(layer.weights) for layer in layers]
    missing, mismatched = [], []
    for layer, arrays in zip(layers, first if same else _by_name(layers, stored), strict=True):
        if arrays is None:
            missing.append(layer.name)
        elif _shapes(arrays) != _shapes(layer.weights):
            mismatched.append(layer.name)
        else:
            _assign(layer, arrays)
    return LoadedWeights(len(layers) - len(missing) - len(mismatched), len(layers), missing, mismatched)


def layers_of(model: keras.Model) -> Iterator[Any]:
    """The layers that have weights, those of nested models in place of the models."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from layers_of(layer)
        elif layer.weights:
            yield layer


def read(path: Path) -> tuple[Stored, bool]:
    """The named layers with weights that a file holds, and whether they are in their order.

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


def _of_keras_2(group: Any) -> Stored:
    """Keras's older layout: a group for each layer of the model, with the names of its weights in order."""
    stored: Stored = []
    for name in _names(group, "layer_names"):
        parts: dict[str, list[NDArray[Any]]] = {}
        for weight in _names(group[name], "weight_names"):
            *_, inner, _ = ("", name, *weight.split("/"))  # of a nested model, its own layers
            parts.setdefault(inner, []).append(np.asarray(group[name][weight]))
        stored += list(parts.items()) if len(parts) > 1 else [(name, arrays) for arrays in parts.values()]
    return stored


def _names(group: Any, key: str) -> list[str]:
    """A list of names, which is split into numbered ones where it is too long for one attribute."""
    chunks = [key] if key in group.attrs else sorted((k for k in group.attrs if k.startswith(key)), key=_number)
    names = [name for chunk in chunks for name in group.attrs[chunk]]
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _of_keras_3(file: Any) -> Stored:
    """Keras 3's layout: a group `vars` for each layer, which knows the layer's name; the order is that of classes."""
    stored: Stored = []

    def visit(path: str, group: Any) -> None:
        if path.endswith("vars") and not path.startswith("optimizer") and "name" in group.attrs and len(group):
            arrays = [np.asarray(group[key]) for key in sorted(group, key=_number)]
            stored.append((str(group.attrs["name"]), arrays))

    file.visititems(visit)
    return stored


def _number(name: str) -> int:
    return int(re.sub(r"\D", "", name) or 0)


def _by_name(layers: Sequence[Any], stored: Stored) -> Iterator[list[NDArray[Any]] | None]:
    """What a file has for each layer: its arrays, none of them where only a number tells, and None."""
    keys = _keys([layer.name for layer in layers])
    there = dict(zip(_keys([name for name, _ in stored]), (arrays for _, arrays in stored), strict=True))
    shifted = {
        key[0]
        for key, layer in zip(keys, layers, strict=True)
        if isinstance(key, tuple) and key in there and _shapes(there[key]) != _shapes(layer.weights)
    }
    for key in keys:
        yield [] if isinstance(key, tuple) and key[0] in shifted else there.get(key)


def _keys(names: Sequence[str]) -> list[Any]:
    """What layers are known by: their names, but class and rank where the name is only a number."""
    keys: list[Any] = list(names)
    numbered: dict[str, list[tuple[int, int]]] = {}
    for place, name in enumerate(names):
        if match := _NUMBERED.fullmatch(name):
            numbered.setdefault(match[1], []).append((int(match[2] or 0), place))
    for kind, found in numbered.items():
        for rank, (_, place) in enumerate(sorted(found)):
            keys[place] = (kind, rank)
    return keys


def _shapes(arrays: Sequence[Any]) -> list[tuple[int, ...]]:
    return [tuple(array.shape) for array in arrays]


def _assign(layer: Any, arrays: Sequence[NDArray[Any]]) -> None:
    if not hasattr(layer, "finalize_state"):
        layer.set_weights(arrays)
        return
    mean, variance, *count = arrays
    # Keras's graph has a further Rescaling layer where it downloads the weights itself, and none where they are a file.
    if np.allclose(variance, _DEVIATIONS, rtol=1e-3):
        variance = variance * _DEVIATIONS
    layer.set_weights([mean, variance, *count])
    layer.finalize_state()  # or it goes on with the mean and variance that it began with
