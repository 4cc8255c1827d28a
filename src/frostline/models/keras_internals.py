"""The private names of Keras that this package uses, and no other file does. A test checks that they exist.

Keras 3.15 has no public way to walk a functional graph, nor to number layers anew for one model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras


def nodes(model: keras.Model) -> list[Any]:
    """The nodes of a functional model, one for each call of an operation, in topological order."""
    own = {id(node) for nodes in model._nodes_by_depth.values() for node in nodes}
    return [node for operation in model.operations for node in operation._inbound_nodes if id(node) in own]


def producer(tensor: keras.KerasTensor) -> Any:
    """The operation whose output a tensor is."""
    return tensor._keras_history.operation


def consumers(operation: Any) -> list[Any]:
    """The operations that take an output of this one, in any model."""
    return [node.operation for node in operation._outbound_nodes]


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
