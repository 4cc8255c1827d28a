"""Compiled steps: several batches of training or evaluation in one call of Keras's backend.

On stored features of a frozen backbone, a batch takes a millisecond, and most of it is the call from Python. Here a
*chunk* of batches goes in at once, and the loop over them is compiled: Keras's own `train_step` and `test_step`, once
for each batch, in the order of the batches, so the weights are the same as with `fit`.

The numbers of the rule go in with each batch, so one compiled step serves every learning rate, schedule, weight decay
and momentum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import keras
import numpy as np
from numpy.typing import NDArray

from frostline.models import backend
from frostline.models.devices import ONE, Devices
from frostline.training.phases import StepNumber

# Inputs, targets and perhaps sample weights of some batches, each of shape (batches, batch size, ...). In training,
# the numbers of the steps come first, float32 (batches, StepNumber).
Chunk = tuple[NDArray[Any], ...]


class Steps(Protocol):
    """The compiled steps of one compiled model. They start from the current weights, optimizer state and seeds."""

    def train(self, chunks: Iterable[Chunk], go_on: bool = False) -> dict[str, float]:
        """Train one step on each batch. Returns the metrics over these batches, with `go_on` also over those before."""
        ...

    def test(self, chunks: Iterable[Chunk]) -> dict[str, float]:
        """Evaluate each batch. Returns the metrics over all of them."""
        ...


def steps(model: keras.Model, has_many: bool, devices: Devices = ONE) -> Steps:
    """The steps of a compiled model, for the backend that Keras runs on. has_many: chunks may hold several batches;
    devices: they share each batch."""
    _build_metrics(model)
    if keras.backend.backend() == "jax":
        return _JaxSteps(model, has_many, devices)
    return _TensorFlowSteps(model, has_many)


class _TensorFlowSteps:
    def __init__(self, model: keras.Model, has_many: bool) -> None:
        self.model = model
        self._train = self._over_batches(self._step, has_many)
        self._test = self._over_batches(model.test_step, has_many)

    def train(self, chunks: Iterable[Chunk], go_on: bool = False) -> dict[str, float]:
        if not go_on:
            self.model.reset_metrics()
        return self._run(self._train, chunks)

    def test(self, chunks: Iterable[Chunk]) -> dict[str, float]:
        self.model.reset_metrics()
        return self._run(self._test, chunks)

    def _step(self, parts: tuple[Any, ...]) -> None:
        numbers, *batch = parts
        self.model.optimizer.learning_rate = numbers[StepNumber.LEARNING_RATE]
        _set_rule(self.model.optimizer, numbers)
        self.model.train_step(tuple(batch))

    def _run(self, function: Callable[..., Any], chunks: Iterable[Chunk]) -> dict[str, float]:
        for chunk in chunks:
            function(*chunk)
        return {name: float(value) for name, value in self.model.get_metrics_result().items()}

    def _over_batches(self, step: Callable[..., Any], has_many: bool) -> Callable[..., Any]:
        import tensorflow as tf

        def run_batch(chunk: tuple[Any, ...], number: Any) -> None:
            # A single batch is reshaped instead of sliced, which copies nothing.
            parts = [part[number] if has_many else tf.squeeze(part, 0) for part in chunk]
            for part, whole in zip(parts, chunk, strict=True):
                if whole.shape.rank > 1:
                    part.set_shape([None, *whole.shape[2:]])
            step(tuple(parts))

        def run(*chunk: Any) -> None:
            if has_many:
                batches = tf.shape(chunk[0])[0]

                def body(number: Any) -> tuple[Any]:
                    run_batch(chunk, number)
                    return (number + 1,)

                tf.while_loop(lambda number: number < batches, body, [tf.constant(0)])
            else:
                run_batch(chunk, 0)

        compiled = tf.function(run, jit_compile=bool(self.model.jit_compile), autograph=False)

        def call(*chunk: NDArray[Any]) -> None:
            # The sizes are unspecified, so that a shorter last batch is not compiled again.
            dtypes = tuple(part.dtype for part in chunk)
            concrete = concretes.get(dtypes)
            if concrete is None:
                signature = [
                    tf.TensorSpec([None] * min(part.ndim, 2) + [*part.shape[2:]], part.dtype) for part in chunk
                ]
                concrete = concretes[dtypes] = compiled.get_concrete_function(*signature)
            concrete(*(tf.convert_to_tensor(part) for part in chunk))

        concretes: dict[tuple[np.dtype[Any], ...], Any] = {}
        return call


class _JaxSteps:
    def __init__(self, model: keras.Model, has_many: bool, devices: Devices) -> None:
        import jax

        self.model, self.devices = model, devices
        rates = [at for at, variable in enumerate(model.optimizer.variables) if variable.name == "learning_rate"]

        def train_step(state: Any, parts: Any) -> Any:
            numbers, *batch = parts
            _set_rule(model.optimizer, numbers)
            trainable, non_trainable, optimizer, metrics = state
            optimizer = [
                numbers[StepNumber.LEARNING_RATE] if at in rates else value for at, value in enumerate(optimizer)
            ]
            return model.train_step((trainable, non_trainable, optimizer, metrics), tuple(batch))

        # On a CPU, XLA computes convolutions inside a loop many times slower than outside.
        can_scan = has_many and backend.has_gpu()

        def over_batches(step: Callable[..., Any]) -> Callable[..., Any]:
            def scan(state: Any, chunk: Any) -> Any:
                return jax.lax.scan(lambda state, batch: (step(state, batch)[1], None), state, chunk)[0]

            # Every device holds the new state, even where XLA would rather cut it.
            options = {"donate_argnums": 0, "out_shardings": devices.everywhere}
            if can_scan:
                compiled = jax.jit(scan, **options)
                return lambda state, chunk: compiled(state, devices.spread(chunk, axis=1))
            one = jax.jit(lambda state, batch: step(state, batch)[1], **options)

            def each(state: Any, chunk: Any) -> Any:
                for batch in zip(*chunk, strict=True):
                    state = one(state, devices.spread(batch))
                return state

            return each

        self._train, self._test = over_batches(train_step), over_batches(model.test_step)

    def train(self, chunks: Iterable[Chunk], go_on: bool = False) -> dict[str, float]:
        model = self.model
        if not go_on:
            model.reset_metrics()
        groups = [model.trainable_variables, model.non_trainable_variables, model.optimizer.variables]
        return self._run(self._train, [*groups, model.metrics_variables], chunks)

    def test(self, chunks: Iterable[Chunk]) -> dict[str, float]:
        model = self.model
        model.reset_metrics()
        groups = [model.trainable_variables, model.non_trainable_variables, model.metrics_variables]
        return self._run(self._test, groups, chunks)

    def _run(
        self, function: Callable[..., Any], groups: list[list[keras.Variable]], chunks: Iterable[Chunk]
    ) -> dict[str, float]:
        # Copies, because the first step reuses the memory of its inputs (donate_argnums).
        state = tuple(self.devices.copies(group) for group in groups)
        for chunk in chunks:
            state = function(state, chunk)
        for group, values in zip(groups, state, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(self.devices.first(value))
        return {name: float(value) for name, value in self.model.get_metrics_result().items()}


def _set_rule(optimizer: keras.optimizers.Optimizer, numbers: Any) -> None:
    """While a step is traced: set the settings of the rule that are not variables to the numbers of the batch."""
    # In float16, an optimizer that scales the loss wraps it.
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if optimizer.weight_decay is not None:
        optimizer.weight_decay = numbers[StepNumber.WEIGHT_DECAY]
    if getattr(optimizer, "momentums", None):  # only SGD with momentum has them
        optimizer.momentum = numbers[StepNumber.MOMENTUM]
    if optimizer.use_ema:
        optimizer.ema_momentum = numbers[StepNumber.AVERAGE]
    if hasattr(optimizer, "layer_decay"):
        optimizer.layer_decay = numbers[StepNumber.LAYER_DECAY]
        if optimizer.block_weight_decay is not None:
            optimizer.block_weight_decay = numbers[StepNumber.WEIGHT_DECAY]


def _build_metrics(model: keras.Model) -> None:
    """Create the variables of loss and metrics, which Keras would create at the first step."""
    zeros = np.zeros((1, model.output.shape[-1]), np.float32)
    model.compute_loss(x=zeros, y=zeros, y_pred=keras.ops.convert_to_tensor(zeros))
    model.compute_metrics(zeros, zeros, keras.ops.convert_to_tensor(zeros))
    model.reset_metrics()
