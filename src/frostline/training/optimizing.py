"""Compile a model with loss, metric and optimizer by a rule; the rule's numbers come with each batch (`stepping`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import keras

from frostline.core import own_code
from frostline.training.phases import StepRule


class _Momentum(keras.optimizers.SGD):
    """Keras's SGD with a momentum that may be a tensor; Keras's own class compares it with 0 in Python."""

    def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
        dtype = variable.dtype
        velocity = self.momentums[self._get_variable_index(variable)]
        step = keras.ops.cast(gradient, dtype) * keras.ops.cast(learning_rate, dtype)
        self.assign(velocity, velocity * keras.ops.cast(self.momentum, dtype) - step)
        self.assign_add(variable, velocity)


class _ByBlock(keras.optimizers.Optimizer):
    """A mixin for optimizers: a variable n blocks below the top is trained at `layer_decay ** n` of the rate.

    blocks: n for each variable, in the model's order; layer_decay, block_weight_decay: set for each batch. Weight decay
    is done here because Keras does it with one rate for all variables.
    """

    layer_decay: Any = 1.0
    block_weight_decay: Any = None
    blocks: Sequence[int] = ()

    def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
        depth = self.blocks[self._get_variable_index(variable)]
        rate = keras.ops.cast(learning_rate, variable.dtype) * keras.ops.cast(self.layer_decay, variable.dtype) ** depth
        if self.block_weight_decay is not None:
            self.assign_sub(variable, variable * (rate * keras.ops.cast(self.block_weight_decay, variable.dtype)))
        super().update_step(gradient, variable, rate)


class _AdamByBlock(_ByBlock, keras.optimizers.Adam):
    pass


class _SgdByBlock(_ByBlock, keras.optimizers.SGD):
    pass


class _MomentumByBlock(_ByBlock, _Momentum):
    pass


class _BinaryAccuracy(keras.metrics.BinaryAccuracy):
    """Keras's metric, which also takes smoothed targets."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        super().update_state(keras.ops.cast(y_true > 0.5, "float32"), y_pred, sample_weight)


def compile_for(model: keras.Model, rule: StepRule, blocks: Mapping[str, int]) -> None:
    """Compile a model that gives logits (n, units). blocks: see `loop.Learner`."""
    is_binary = model.output.shape[-1] == 1
    kind = keras.metrics.CategoricalAccuracy
    accuracy = _BinaryAccuracy("accuracy", threshold=0.0) if is_binary else kind("accuracy")
    depths = [blocks.get(variable.path, 0) for variable in model.trainable_variables]
    model.compile(_optimizer(rule, depths), _loss(rule, is_binary), metrics=[accuracy])
    model.optimizer.build(model.trainable_variables)


def _optimizer(rule: StepRule, blocks: Sequence[int]) -> keras.optimizers.Optimizer:
    rate = 0.0  # a placeholder, like the decay and the momentum: each step sets its own
    decay = 0.0 if rule.has_weight_decay and not rule.has_layer_decay else None
    average = {"use_ema": rule.has_average, "ema_overwrite_frequency": None}
    by_block = rule.has_layer_decay
    optimizer: keras.optimizers.Optimizer
    if rule.optimizer != "sgd":  # Adam with a decay is AdamW
        optimizer = (_AdamByBlock if by_block else keras.optimizers.Adam)(rate, weight_decay=decay, **average)
    elif rule.has_momentum:
        optimizer = (_MomentumByBlock if by_block else _Momentum)(rate, momentum=0.9, weight_decay=decay, **average)
    else:
        optimizer = (_SgdByBlock if by_block else keras.optimizers.SGD)(rate, weight_decay=decay, **average)
    if isinstance(optimizer, _ByBlock):
        optimizer.blocks = blocks
        optimizer.block_weight_decay = 0.0 if rule.has_weight_decay else None
    return optimizer


class OwnLoss(Protocol):
    """A loss of one's own, `finetune.loss: package.module:function`, in Keras's operations."""

    def __call__(self, targets: Any, logits: Any) -> Any:
        """The loss of each image, (n,). targets: shares of the classes, float32 (n, classes), or (n, 1) for a sigmoid;
        logits: of the same shape, before softmax or sigmoid."""


class _Own(keras.losses.Loss):
    """A loss of one's own as Keras's."""

    def __init__(self, reference: str) -> None:
        super().__init__(name="own")
        self.reference = reference
        self.function: OwnLoss = own_code.function(reference, "finetune.loss")

    def call(self, y_true: Any, y_pred: Any) -> Any:
        try:
            values = self.function(y_true, y_pred)
        except Exception as error:  # a user's own code may raise anything
            raise own_code.failed(self.reference, "finetune.loss", error) from error
        if len(values.shape) != 1:
            shape = ValueError(f"it gave shape {tuple(values.shape)}, not (n,)")
            raise own_code.failed(self.reference, "finetune.loss", shape)
        return values


def _loss(rule: StepRule, is_binary: bool) -> keras.losses.Loss:
    """Cross-entropy, or the focal loss (Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017), which equals
    the cross-entropy for gamma 0, or one's own."""
    if rule.own_loss:
        return _Own(rule.own_loss)
    gamma = rule.focal_gamma
    if gamma is None:
        kind = keras.losses.BinaryCrossentropy if is_binary else keras.losses.CategoricalCrossentropy
        return kind(from_logits=True)
    if is_binary:
        return keras.losses.BinaryFocalCrossentropy(gamma=gamma, from_logits=True)
    return keras.losses.CategoricalFocalCrossentropy(alpha=1.0, gamma=gamma, from_logits=True)
