"""The head: what turns a backbone's feature map into logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np

# What makes a vector of a feature map, by `head.pooling`.
POOLS: dict[str, type[keras.layers.Layer]] = {
    "avg": keras.layers.GlobalAveragePooling2D,
    "max": keras.layers.GlobalMaxPooling2D,
    "flatten": keras.layers.Flatten,
}

# A Dropout layer that is made with rate 0 has no generator of random numbers; this one is replaced at once.
PLACEHOLDER = 0.5


@dataclass(frozen=True)
class Head:
    """pool: feature map -> vector; top: vector -> logits (n, units), a Sequential where it is trained as a part of the
    network; units: 1 for a sigmoid, else one a class.

    rates: of the Dropout layers, variables, so that what is compiled for training serves any.
    """

    pool: keras.layers.Layer
    top: keras.Model
    units: int

    @cached_property
    def rates(self) -> dict[str, keras.Variable]:
        """The rate of each Dropout layer, by the layer's name."""
        return {
            layer.name: keras.Variable(layer.rate, trainable=False, name=f"{layer.name}_rate")
            for layer in self.top.layers
            if isinstance(layer, keras.layers.Dropout)
        }

    def set_dropout(self, rates: float | Sequence[float]) -> None:
        """Drop that share, in [0, 1), of the activations in training from here on: one rate, or one for each layer."""
        given = np.broadcast_to(rates, len(self.rates)).tolist()
        for (name, variable), rate in zip(self.rates.items(), given, strict=True):
            variable.assign(rate)
            self.top.get_layer(name).rate = rate


class _Dropout(keras.layers.Layer):
    """One of a head's Dropout layers in training, its rate being the head's variable."""

    def __init__(self, layer: keras.layers.Dropout, rate: keras.Variable) -> None:
        super().__init__()
        self.seed_generator, self.rate = layer.seed_generator, rate
        self.built = True

    def compute_output_spec(self, x: keras.KerasTensor) -> keras.KerasTensor:
        return keras.KerasTensor(x.shape, x.dtype)

    def call(self, x: Any, training: bool | None = None) -> Any:
        if not training:
            return x
        # Keras's own function asks the rate in Python whether it is 0.
        rate = keras.ops.cast(self.rate, x.dtype)
        drawn = keras.random.uniform(keras.ops.shape(x), dtype=x.dtype, seed=self.seed_generator)
        return keras.ops.where(drawn >= rate, x / (1 - rate), keras.ops.zeros_like(x))


def build(
    shape: tuple[int, ...],
    classes: int,
    pooling: str,
    hidden: Sequence[int],
    activation: str,
    binary: bool,
    batch_norm: bool = False,
    l2: float = 0.0,
) -> Head:
    """A head for feature maps of `shape` (height, width, channels), with nothing dropped as yet.

    hidden: widths of Dense layers, each followed by BatchNorm where that is asked for, `activation` and dropout; with
    none, dropout acts on the pooled features. l2: what is added to the loss for each squared kernel weight of a Dense
    layer. binary: one sigmoid unit, for two classes.
    """
    pool = POOLS[pooling](name="pool")
    units = 1 if binary else classes
    # Every name is given: Keras's own are numbered by what the process built before, and would end up in the bundle.
    stack: list[keras.layers.Layer] = [keras.Input(pool.compute_output_shape((None, *shape))[1:], name="pooled")]
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
    if not hidden:
        stack.append(keras.layers.Dropout(PLACEHOLDER, name="dropout"))
    stack.append(keras.layers.Dense(units, kernel_regularizer=_l2(l2), name="logits"))
    head = Head(pool, keras.Sequential(stack, name="head"), units)
    head.set_dropout(0.0)
    return head


def _l2(factor: float) -> keras.regularizers.Regularizer | None:
    return keras.regularizers.L2(factor) if factor else None


def trained_logits(head: Head, pooled: keras.KerasTensor) -> keras.KerasTensor:
    """What the head makes of the pooled vector in training."""
    if not isinstance(head.top, keras.Sequential):  # one of scikit-learn's classifiers, which is trained already
        return head.top(pooled)
    x = pooled
    for layer in head.top.layers:
        # Dropout layers have a generator, but for those of rate 0 in a bundle that was loaded.
        x = _Dropout(layer, head.rates[layer.name])(x) if hasattr(layer, "seed_generator") else layer(x)
    return x
