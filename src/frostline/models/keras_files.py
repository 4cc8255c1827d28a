"""Read the weights of a file of Keras's, layer by layer, without building the model that wrote it.

There are two layouts of HDF5: the one of Keras 3 (`*.weights.h5`, also inside `*.keras`), and the older one of Keras's
own downloads and of `model.save("*.h5")`. The export of Teachable Machine has the older one.
"""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frostline.models import weight_files

# The layers with weights of a file, in its order: their names and arrays.
LayerArrays = list[tuple[str, list[NDArray[Any]]]]


def read(path: Path) -> tuple[LayerArrays, bool]:
    """The layers with names and weights of a file, and whether they are in the order of the model.

    Raises OSError, ValueError or KeyError for a file of another kind.
    """
    import h5py

    source: Any = path
    if zipfile.is_zipfile(path):
        source = io.BytesIO(weight_files.weights_member(path))
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
    chunks = [key] if key in group.attrs else sorted((k for k in group.attrs if k.startswith(key)), key=number)
    names = [name for chunk in chunks for name in group.attrs[chunk]]
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _of_keras_3(file: Any) -> LayerArrays:
    """Read the layout of Keras 3: a group `vars` for each layer, with its name. The order is that of classes."""
    layers: LayerArrays = []

    def visit(path: str, group: Any) -> None:
        if path.endswith("vars") and not path.startswith("optimizer") and "name" in group.attrs and len(group):
            arrays = [np.asarray(group[key]) for key in sorted(group, key=number)]
            layers.append((str(group.attrs["name"]), arrays))

    file.visititems(visit)
    return layers


def number(name: str) -> int:
    return int(re.sub(r"\D", "", name) or 0)
