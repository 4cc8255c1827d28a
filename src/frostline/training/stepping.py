"""Compiled steps: several batches of training or evaluation in one call of Keras's engine.

What a batch costs on stored features of a frozen body is a millisecond, most of it the way from Python into the engine
and back. Here a *chunk* of batches goes in at once, and the loop over them is compiled: Keras's own `train_step` and
`test_step`, once for each batch, in the order of the batches, so the weights are those that `fit` would give.

The numbers of the rule by which a batch changes the weights go in beside it, so that what is compiled once serves any
learning rate, schedule, weight decay and momentum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import keras
import numpy as np
from numpy.typing import NDArray

from frostline.models import backend
from frostline.training.phases import StepNumber

# Inputs, targets and, where there are any, sample weights of some batches: each of shape (batches, batch size, ...).
# In training they come after the numbers of the step, float32 (batches, StepNumber).
Chunk = tuple[NDArray[Any], ...]


class Steps(Protocol):
    """The compiled steps of one compiled model; its weights, optimizer and seeds go on where they stand."""

    def train(self, chunks: Iterable[Chunk], go_on: bool = False) -> dict[str, float]:
        """A step of training for each batch; the metrics over all of them, and with `go_on` over those before too."""
        ...

    def test(self, chunks: Iterable[Chunk]) -> dict[str, float]:
        """Evaluate each batch; the metrics over all of them."""
        ...


def steps(model: keras.Model, has_many: bool) -> Steps:
    """The steps of a compiled model, for the backend that Keras runs on. has_many: chunks may hold several batches."""
    _build_metrics(model)
    return _JaxSteps(model, has_many) if keras.backend.backend() == "jax" else _TensorFlowSteps(model, has_many)


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

        def one(chunk: tuple[Any, ...], number: Any) -> None:
            # A lone batch is not cut out of its chunk but reshaped, which copies nothing.
            parts = [part[number] if has_many else tf.squeeze(part, 0) for part in chunk]
            for part, whole in zip(parts, chunk, strict=True):
                if whole.shape.rank > 1:
                    part.set_shape([None, *whole.shape[2:]])
            step(tuple(parts))

        def run(*chunk: Any) -> None:
            if has_many:
                batches = tf.shape(chunk[0])[0]

                def body(number: Any) -> tuple[Any]:
                    one(chunk, number)
                    return (number + 1,)

                tf.while_loop(lambda number: number < batches, body, [tf.constant(0)])
            else:
                one(chunk, 0)

        compiled = tf.function(run, jit_compile=bool(self.model.jit_compile), autograph=False)

        def call(*chunk: NDArray[Any]) -> None:
            # Sizes are left open, so that a shorter last batch is not compiled anew.
            dtypes = tuple(part.dtype for part in chunk)
            concrete = concretes.get(dtypes)
            if concrete is None:
                open_sizes = [
                    tf.TensorSpec([None] * min(part.ndim, 2) + [*part.shape[2:]], part.dtype) for part in chunk
                ]
                concrete = concretes[dtypes] = compiled.get_concrete_function(*open_sizes)
            concrete(*(tf.convert_to_tensor(part) for part in chunk))

        concretes: dict[tuple[np.dtype[Any], ...], Any] = {}
        return call


class _JaxSteps:
    def __init__(self, model: keras.Model, has_many: bool) -> None:
        import jax

        self.model = model
        rates = [at for at, variable in enumerate(model.optimizer.variables) if variable.name == "learning_rate"]

        def train_step(state: Any, parts: Any) -> Any:
            numbers, *batch = parts
            _set_rule(model.optimizer, numbers)
            trained, fixed, optimizer, metrics = state
            optimizer = [
                numbers[StepNumber.LEARNING_RATE] if at in rates else value for at, value in enumerate(optimizer)
            ]
            return model.train_step((trained, fixed, optimizer, metrics), tuple(batch))

        # On a CPU, XLA computes convolutions inside a loop many times slower than outside.
        can_scan = has_many and backend.has_gpu()

        def over_batches(step: Callable[..., Any]) -> Callable[..., Any]:
            def scan(state: Any, chunk: Any) -> Any:
                return jax.lax.scan(lambda carried, batch: (step(carried, batch)[1], None), state, chunk)[0]

            if can_scan:
                return jax.jit(scan, donate_argnums=0)
            one = jax.jit(lambda state, batch: step(state, batch)[1], donate_argnums=0)

            def each(state: Any, chunk: Any) -> Any:
                for batch in zip(*chunk, strict=True):
                    state = one(state, batch)
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
        import jax.numpy as jnp

        # Copies, because what goes into the first step is given up to it.
        state = tuple([jnp.copy(variable.value) for variable in group] for group in groups)
        for chunk in chunks:
            state = function(state, chunk)
        for group, values in zip(groups, state, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)
        return {name: float(value) for name, value in self.model.get_metrics_result().items()}


def _set_rule(optimizer: keras.optimizers.Optimizer, numbers: Any) -> None:
    """While a step is traced: let it take what of the rule is no variable from the numbers that come with the batch."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # in float16 one that scales the loss is around it
    if optimizer.weight_decay is not None:
        optimizer.weight_decay = numbers[StepNumber.WEIGHT_DECAY]
    if getattr(optimizer, "momentums", None):  # of SGD with momentum alone
        optimizer.momentum = numbers[StepNumber.MOMENTUM]
    if optimizer.use_ema:
        optimizer.ema_momentum = numbers[StepNumber.AVERAGE]
    if hasattr(optimizer, "layer_decay"):
        optimizer.layer_decay = numbers[StepNumber.LAYER_DECAY]
        if optimizer.block_weight_decay is not None:
            optimizer.block_weight_decay = numbers[StepNumber.WEIGHT_DECAY]


def _build_metrics(model: keras.Model) -> None:
    """Make the variables of loss and metrics, which Keras would make at the first step."""
    nothing = np.zeros((1, model.output.shape[-1]), np.float32)
    model.compute_loss(x=nothing, y=nothing, y_pred=keras.ops.convert_to_tensor(nothing))
    model.compute_metrics(nothing, nothing, keras.ops.convert_to_tensor(nothing))
    model.reset_metrics()
