"""Read the weights of a Keras model from the folder of a SavedModel, without loading its graph or running anything.

Keras 2's `model.save(folder)` and Keras 3's `model.export(folder)` write a checkpoint of TensorFlow's into
`variables/`. Beside the numbers it holds a table of objects (trackable_object_graph.proto), in which each variable has
the name of its layer, such as `block_1_expand/kernel`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

VARIABLES = "variables/variables"
OBJECTS = "_CHECKPOINTABLE_OBJECT_GRAPH"
LONGEST = 2**26  # bytes of the table of objects
OTHERS = ("optimizer", "_all_variables/")  # in the keys of an optimizer's variables, and of Keras 3's second copies
NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def read(folder: Path) -> list[tuple[str, list[NDArray[Any]]]]:
    """The layers with weights, in the order of the model's variables: their names and arrays.

    Raises ValueError, one short reason, for a folder that is damaged, not safe to load, or not of Keras.
    """
    import tensorflow as tf

    room = sum(file.stat().st_size for file in (folder / "variables").glob("variables.data-*"))
    try:
        checkpoint = tf.train.load_checkpoint(str(folder / VARIABLES))
        shapes, dtypes = checkpoint.get_variable_to_shape_map(), checkpoint.get_variable_to_dtype_map()
        if OBJECTS not in shapes:
            raise ValueError("its variables have no layers, so it is not of Keras")
        claimed = sum(int(np.prod(shape)) * dtypes[key].size for key, shape in shapes.items() if key != OBJECTS)
        if claimed > room:
            raise ValueError(f"it says that it holds {claimed / 1e6:,.1f} MB in files of {room / 1e6:,.1f} MB")
        layers: dict[str, dict[str, NDArray[Any]]] = {}
        for layer, weight, key in _variables(checkpoint.get_tensor(OBJECTS)):
            if key not in shapes or weight in layers.setdefault(layer, {}):
                raise ValueError(f"it holds {layer}/{weight} twice, or not at all")
            layers[layer][weight] = checkpoint.get_tensor(key)
    except (tf.errors.OpError, IndexError) as error:
        raise ValueError(f"its variables are damaged: {str(error)[:120]}") from None
    return [(name, [weights[each] for each in sorted(weights, key=_rank)]) for name, weights in layers.items()]


def _rank(weight: str) -> int:
    """The place of a weight in its layer. Only those of BatchNorm can be mistaken for each other, by their shapes."""
    return NORM.index(weight) if weight in NORM else 0


def _variables(graph: bytes) -> Iterator[tuple[str, str, str]]:
    """Layer, name and key of each variable of a model in order, without those of an optimizer."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tensorflow.core.protobuf import trackable_object_graph_pb2

    if len(graph) > LONGEST:
        raise ValueError("its table of objects is too long")
    try:
        nodes = trackable_object_graph_pb2.TrackableObjectGraph.FromString(graph).nodes
    except DecodeError as error:
        raise ValueError("its table of objects is damaged") from error
    for node in nodes:
        for attribute in node.attributes:
            *_, layer, weight = ["", *str(attribute.full_name).split("/")]
            is_weight = attribute.name == "VARIABLE_VALUE" and layer
            if is_weight and not any(other in attribute.checkpoint_key for other in OTHERS):
                yield layer, weight, attribute.checkpoint_key
