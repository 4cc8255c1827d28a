"""Open the composite layers of KerasHub, so that its backbones are graphs of plain Keras layers.

Many of its blocks, and whole encoders, are single layers that call other layers. A graph of them has few cut points,
its inner BatchNorm layers can't be frozen one by one, and some of these layers can't be saved. Here a block's own
`call` is run with the tensors of the graph, so that the graph has the inner layers, which are the same objects, and the
operations between them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import keras
import numpy as np

from frostline.models import keras_internals


def opened(body: Any, size: int, name: str) -> keras.Model:
    """A body of plain Keras layers that computes what a backbone of KerasHub does, and shares its weights.

    body: made for images of `size` pixels a side, or of any size. Raises ValueError if a layer has weights of its own
    and no function in OPENERS, or if Keras can't run it on the graph's tensors.
    """
    _give_paths_as_names(body.layers)
    images = keras.Input((size, size, 3), name="input")
    with keras_internals.names_from_one(), _opening(body):
        output = keras_internals.replay(body, images)
    return keras.Model(images, output, name=name)


def _give_paths_as_names(layers: Iterable[Any], outer: str = "") -> None:
    """Name each layer after the one that it is inside of, since the names inside of two blocks are the same."""
    for layer in layers:
        if not layer.name.startswith(outer):
            layer.name = f"{outer}_{layer.name}"
        _give_paths_as_names(keras_internals.sublayers(layer), layer.name)


@contextmanager
def _opening(body: Any) -> Iterator[None]:
    """Inside this block, calling a composite layer of the body calls the layers in it."""
    composite = {type(layer) for layer in keras_internals.all_layers(body.layers) if _is_composite(layer)}
    with ExitStack() as replacements:
        for kind in composite:
            replacements.enter_context(_replaced(kind, "__call__", OPENERS.get(kind.__name__, _call)))
        replacements.enter_context(_replaced(keras.layers.Identity, "__call__", _same))
        replacements.enter_context(_replaced(keras.ops, "shape", _shape(keras.ops.shape)))
        replacements.enter_context(_replaced(keras.ops, "reshape", _reshape(keras.ops.reshape)))
        yield


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Inside this block, an attribute of a class or a module has another value."""
    is_own, before = name in vars(owner), getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if is_own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)


def _is_composite(layer: Any) -> bool:
    if keras_internals.is_plain(layer) or isinstance(layer, keras.Model):
        return False
    if keras_internals.own_weights(layer) and type(layer).__name__ not in OPENERS:
        raise ValueError(f"its layer {layer.name}, a {type(layer).__name__}, can't be opened")
    return True


def _call(layer: Any, *args: Any, **kwargs: Any) -> Any:
    return layer.call(*args, **kwargs)


def _same(layer: Any, x: Any, **kwargs: Any) -> Any:
    return x


def _shape(shape: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Keras's `shape`, with -1 instead of None for the number of images, which blocks give to `reshape`."""

    def function(x: Any) -> Any:
        return tuple(-1 if side is None else side for side in x.shape) if keras.backend.is_keras_tensor(x) else shape(x)

    return function


def _reshape(reshape: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Keras's `reshape`, which may get -1 for the number of images and for one other side."""

    def function(x: Any, newshape: Any) -> Any:
        sides = list(newshape)
        if sides.count(-1) > 1 and sides[0] == -1 and keras.backend.is_keras_tensor(x):
            known = math.prod(side for side in sides if side != -1)
            sides[sides.index(-1, 1)] = math.prod(x.shape[1:]) // known
        return reshape(x, tuple(sides))

    return function


def _window_attention(layer: Any, x: Any, mask: Any = None) -> Any:
    """Swin's attention inside windows (Liu et al., ICCV 2021), x: (windows, tokens, width).

    A product for each head and a bias, as one layer, scale the logits and add the relative positions; the bias has a
    number for each pair of tokens here, and is trained like that.
    """
    layers, ops = keras.layers, keras.ops
    tokens, width = x.shape[1:]
    heads = layer.num_heads
    parts = layers.Reshape((tokens, 3, heads, width // heads))(layer.qkv(x))
    query, key, value = (ops.transpose(parts[:, :, part], (0, 2, 1, 3)) for part in range(3))
    positions = layers.EinsumDense("nhqk,h->nhqk", (heads, tokens, tokens), bias_axes="hqk", name=f"{layer.name}_bias")
    logits = positions(ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))))
    table, numbers = np.asarray(layer.relative_position_bias_table), np.asarray(layer.relative_position_index)
    positions.set_weights([np.full(heads, layer.scale, np.float32), np.transpose(table[numbers], (2, 0, 1))])
    if mask is not None:
        mask = np.asarray(mask)
        logits = ops.reshape(logits, (-1, len(mask), heads, tokens, tokens)) + mask[None, :, None]
        logits = ops.reshape(logits, (-1, heads, tokens, tokens))
    shares = layer.attention_dropout_layer(ops.softmax(logits, axis=-1))
    out = layers.Reshape((tokens, width))(ops.transpose(ops.matmul(shares, value), (0, 2, 1, 3)))
    return layer.proj_drop(layer.proj(out))


def _drop_path(layer: Any, x: Any, **kwargs: Any) -> Any:
    """Stochastic depth (Huang et al., ECCV 2016), whose own layer does nothing while a graph is made."""
    rate = getattr(layer, "rate", None) or getattr(layer, "drop_prob", 0.0)
    return keras.layers.Dropout(rate, noise_shape=(None, *(1 for _ in x.shape[1:])))(x) if rate else x


# The layers whose own `call` would not do, by class.
OPENERS: dict[str, Callable[..., Any]] = {"WindowAttention": _window_attention, "DropPath": _drop_path}
