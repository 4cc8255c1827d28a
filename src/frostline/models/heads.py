"""The head: it turns a backbone's feature map into logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import keras
import numpy as np

from frostline.core import own_code
from frostline.errors import ParamsError
from frostline.models import keras_internals

# The layer that turns a feature map into a vector, by `head.pooling`.
MAP_POOLS: dict[str, type[keras.layers.Layer]] = {
    "avg": keras.layers.GlobalAveragePooling2D,
    "max": keras.layers.GlobalMaxPooling2D,
    "flatten": keras.layers.Flatten,
}
TOKEN_POOLS = ("cls", "avg", "cls_avg")

# A Dropout layer that is created with rate 0 has no generator of random numbers. This rate is replaced at once.
PLACEHOLDER = 0.5


@dataclass(frozen=True)
class Head:
    """A head.

    pool: feature map or tokens -> vector; top: vector -> logits (n, units), a Sequential if gradients train it; units:
    1 for a sigmoid, otherwise one per class.
    """

    pool: keras.layers.Layer
    top: keras.Model
    units: int

    @cached_property
    def rates(self) -> dict[str, keras.Variable]:
        """The rate of each Dropout layer, by its name: a variable, so that a new rate needs no compilation."""
        return {
            layer.name: keras.Variable(layer.rate, trainable=False, name=f"{layer.name}_rate")
            for layer in self.top.layers
            if isinstance(layer, keras.layers.Dropout)
        }

    def set_dropout(self, rates: float | Sequence[float]) -> None:
        """Set the share of activations, in [0, 1), that training drops: one rate, or one for each layer."""
        rate_list = np.broadcast_to(rates, len(self.rates)).tolist()
        for (name, variable), rate in zip(self.rates.items(), rate_list, strict=True):
            variable.assign(rate)
            self.top.get_layer(name).rate = rate


class _Dropout(keras.layers.Layer):
    """A Dropout layer of a head in training. Its rate is a variable of the head."""

    def __init__(self, layer: keras.layers.Dropout, rate: keras.Variable) -> None:
        super().__init__()
        self.seed_generator, self.rate = layer.seed_generator, rate
        self.built = True

    def compute_output_spec(self, x: keras.KerasTensor) -> keras.KerasTensor:
        return keras.KerasTensor(x.shape, x.dtype)

    def call(self, x: Any, training: bool | None = None) -> Any:
        if not training:
            return x
        # Keras's own function compares the rate with 0 in Python, which a variable does not allow.
        rate = keras.ops.cast(self.rate, x.dtype)
        noise = keras.random.uniform(keras.ops.shape(x), dtype=x.dtype, seed=self.seed_generator)
        return keras.ops.where(noise >= rate, x / (1 - rate), keras.ops.zeros_like(x))


def pool(shape: tuple[int, ...], pooling: str, leading: int = 0) -> keras.layers.Layer:
    """The layer `pool`: a feature map (height, width, channels), tokens (number, width), or a vector -> vector.

    pooling: a value of `head.pooling`; leading: tokens before those of patches, the class token first; they are no part
    of the average. Raises ParamsError for a pooling that a body of this kind does not have.
    """
    if len(shape) == 1:  # of a body that is pooled already
        return keras.layers.Flatten(name="pool")
    if len(shape) != 2:
        if pooling not in MAP_POOLS:
            raise ParamsError(
                f"params.yaml: head.pooling {pooling} needs a transformer, and the backbone gives a feature map; set "
                f"it to {' or '.join(MAP_POOLS)}"
            )
        return MAP_POOLS[pooling](name="pool")
    if pooling not in TOKEN_POOLS:
        raise ParamsError(
            f"params.yaml: head.pooling {pooling} needs a feature map, and the backbone gives tokens; set it to "
            f"{' or '.join(TOKEN_POOLS if leading else ('avg',))}"
        )
    if pooling != "avg" and not leading:
        raise ParamsError(
            f"params.yaml: head.pooling {pooling} needs a class token, the backbone has none; set it to avg"
        )
    tokens = keras.Input(shape, name="tokens")
    vectors = []
    if pooling != "avg":
        first = keras.layers.Cropping1D((0, shape[0] - 1), name="class_token")(tokens)
        vectors.append(keras.layers.Flatten(name="class_vector")(first))
    if pooling != "cls":
        patches = keras.layers.Cropping1D((leading, 0), name="patch_tokens")(tokens) if leading else tokens
        vectors.append(keras.layers.GlobalAveragePooling1D(name="patch_average")(patches))
    vector = vectors[0] if len(vectors) == 1 else keras.layers.Concatenate(name="both")(vectors)
    return keras.Model(tokens, vector, name="pool")


def build(
    shape: tuple[int, ...],
    classes: int,
    pooling: str,
    hidden: Sequence[int],
    activation: str,
    binary: bool,
    batch_norm: bool = False,
    l2: float = 0.0,
    layers: str | None = None,
    leading: int = 0,
) -> Head:
    """A head for feature maps of `shape` (height, width, channels), or tokens. Its dropout rates are 0.

    shape, pooling, leading: see `pool`.

    hidden: widths of Dense layers, each followed by BatchNorm (if `batch_norm`), `activation` and dropout; if there are
    none, dropout acts on the pooled features. layers: a function of one's own that makes the layers before the logits,
    instead of `hidden`. l2: is added to the loss for each squared kernel weight of a Dense layer.
    binary: one sigmoid unit, for two classes.
    """
    pool_layer = pool(shape, pooling, leading)
    units = 1 if binary else classes
    # Every layer has a name, because Keras's own names are in the bundle and depend on what the process built before.
    stack: list[keras.layers.Layer] = [keras.Input(pool_layer.compute_output_shape((None, *shape))[1:], name="pooled")]
    for number, width in enumerate(hidden, 1):
        if batch_norm:
            stack += [
                keras.layers.Dense(width, use_bias=False, kernel_regularizer=_l2(l2), name=f"hidden{number}"),
                keras.layers.BatchNormalization(name=f"norm{number}"),
                keras.layers.Activation(activation, name=f"activation{number}"),
            ]
        else:
            stack.append(
                keras.layers.Dense(width, activation=activation, kernel_regularizer=_l2(l2), name=f"hidden{number}")
            )
        stack.append(keras.layers.Dropout(PLACEHOLDER, name=f"dropout{number}"))
    if layers:
        stack += _own(layers)
    elif not hidden:
        stack.append(keras.layers.Dropout(PLACEHOLDER, name="dropout"))
    stack.append(keras.layers.Dense(units, kernel_regularizer=_l2(l2), name="logits"))
    head = Head(pool_layer, keras.Sequential(stack, name="head"), units)
    head.set_dropout(0.0)
    return head


class OwnHead(Protocol):
    """The inner layers of a head of one's own, `head.layers: package.module:function`."""

    def __call__(self) -> Sequence[keras.layers.Layer]:
        """New layers of Keras, applied one after the other to the pooled vector (n, width), before the logits.
        `head.dropout` sets the rates of those that are Dropout layers."""


def _own(reference: str) -> list[keras.layers.Layer]:
    function: OwnHead = own_code.function(reference, "head.layers")
    try:
        made = list(function())
    except Exception as error:  # a user's own code may raise anything
        raise own_code.failed(reference, "head.layers", error) from error
    for number, layer in enumerate(made, 1):
        if not keras_internals.is_plain(layer):
            kind = TypeError(f"{type(layer).__name__} is no layer of Keras, which a bundle must load without your code")
            raise own_code.failed(reference, "head.layers", kind)
        layer.name = f"own{number}"
    return made


def _l2(factor: float) -> keras.regularizers.Regularizer | None:
    return keras.regularizers.L2(factor) if factor else None


def trained_logits(head: Head, pooled: keras.KerasTensor) -> keras.KerasTensor:
    """The logits of the head for the pooled vector, in training."""
    if not isinstance(head.top, keras.Sequential):  # a classifier of scikit-learn, which is trained already
        return head.top(pooled)
    x = pooled
    for layer in head.top.layers:
        # Dropout layers have a generator, except those with rate 0 in a loaded bundle.
        x = _Dropout(layer, head.rates[layer.name])(x) if hasattr(layer, "seed_generator") else layer(x)
    return x
