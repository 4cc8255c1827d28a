"""The private names of Keras that this package uses, and no other file does. A test checks that they exist.

Keras 3.15 has no public way to walk a functional graph, nor to number layers anew for one model.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import keras


def nodes(model: keras.Model) -> list[Any]:
    """The nodes of a functional model, one for each call of an operation, in topological order."""
    own = {id(node) for nodes in model._nodes_by_depth.values() for node in nodes}
    return [node for operation in model.operations for node in operation._inbound_nodes if id(node) in own]


def rows_per_image(model: keras.Model) -> dict[int, Fraction]:
    """How many rows each tensor of a model has for an image, by the tensor's id. Only Keras's `reshape` changes it."""
    rows: dict[int, Fraction] = {}
    for node in nodes(model):
        count = max((rows[id(tensor)] for tensor in node.input_tensors), default=Fraction(1))
        if hasattr(node.operation, "newshape"):
            before, after = (math.prod(each[0].shape[1:]) for each in (node.input_tensors, node.output_tensors))
            count *= Fraction(before, after)
        rows |= {id(tensor): count for tensor in node.output_tensors}
    return rows


def replay(model: Any, x: Any) -> Any:
    """The first output of a functional model for another first input, by calling its operations one after the other.

    Unlike a call of the model, this adds the operations themselves to the graph of x, and keeps the dtype of x.
    """
    tensors = {id(model.inputs[0]): x}
    for node in nodes(model):
        if not isinstance(node.operation, keras.layers.InputLayer):
            args, kwargs = node.arguments.fill_in(tensors)
            outputs = keras.tree.flatten(node.operation(*args, **kwargs))
            tensors |= {id(old): new for old, new in zip(node.output_tensors, outputs, strict=True)}
    return tensors[id(model.outputs[0])]


def producer(tensor: keras.KerasTensor) -> Any:
    """The operation whose output a tensor is."""
    return tensor._keras_history.operation


def consumers(operation: Any) -> list[Any]:
    """The operations that take an output of this one, in any model."""
    return [node.operation for node in operation._outbound_nodes]


def is_plain(layer: Any) -> bool:
    """Whether a layer is Keras's own, so that a bundle loads it without anybody's code."""
    return type(layer).__module__.startswith("keras.")


def sublayers(layer: Any) -> list[Any]:
    """The layers that a layer calls, without those inside of them."""
    return list(layer._flatten_layers(include_self=False, recursive=False))


def all_layers(layers: Iterable[Any]) -> Iterator[Any]:
    """Layers, and those inside of them."""
    for layer in layers:
        yield layer
        yield from all_layers(sublayers(layer))


def own_weights(layer: Any) -> list[Any]:
    """The weights of a layer itself, without those of its sublayers."""
    return [*layer._trainable_variables, *layer._non_trainable_variables]


@contextmanager
def names_from_one() -> Iterator[None]:
    """Let Keras number layers from 1, as in a new process, since bundles, `freeze` and `until` use the names."""
    from keras.src.backend.common import global_state

    key = "object_name_uids"
    before = global_state.get_global_attribute(key)
    global_state.set_global_attribute(key, defaultdict(int))
    try:
        yield
    finally:
        global_state.set_global_attribute(key, before if before is not None else defaultdict(int))
