"""One training loop for every case: head or fine-tuning, cached or not, from the start or resumed.

The loop decides itself what Keras's `fit` leaves to chance: the order of the examples is drawn from (seed, phase,
epoch), epoch e sees variant e mod (copies + 1), and all state that the next epoch depends on fits into a `Snapshot`.
So a resumed training ends with the very weights of an uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from frostline import batching, engine, stepping
from frostline.batching import Batches, Examples
from frostline.errors import DivergedError

# One epoch's numbers: step (epochs over both phases, from 1), phase, epoch (within the phase, from 1), learning_rate,
# loss, accuracy, val_loss, val_accuracy.
Row = dict[str, Any]


@dataclass(frozen=True)
class Stopping:
    """Stop after `patience` epochs without a better `monitor` (val_loss or val_accuracy); keep the best weights."""

    monitor: str
    patience: int

    def better(self, value: float, best: float) -> bool:
        """Whether a value improves on the best so far; anything improves on what is not a number."""
        return math.isnan(best) or value < best if self.monitor == "val_loss" else value > best


@dataclass(frozen=True)
class Rule:
    """How a step changes the weights, as far as that is compiled: of decay and momentum only whether there is any."""

    optimizer: str
    has_weight_decay: bool
    has_momentum: bool
    has_average: bool


@dataclass(frozen=True)
class Phase:
    """How to train in one phase.

    learning_rate: the highest of the schedule; weight_decay (decoupled): of adamw and sgd; momentum: of sgd;
    ema_momentum: of the average over the weights of all steps, which is what is evaluated and kept (Polyak & Juditsky,
    "Acceleration of Stochastic Approximation by Averaging", 1992, with exponential weights), 0 for none.
    """

    name: str
    epochs: int
    batch_size: int
    optimizer: str
    learning_rate: float
    schedule: str
    weight_decay: float
    momentum: float
    label_smoothing: float
    ema_momentum: float
    stopping: Stopping | None
    seed: int

    @property
    def rule(self) -> Rule:
        """What of it is compiled."""
        is_sgd = self.optimizer == "sgd"
        decays = self.optimizer != "adam" and self.weight_decay > 0
        return Rule(self.optimizer, decays, is_sgd and self.momentum > 0, self.ema_momentum > 0)

    def numbers(self, epoch: int, steps_per_epoch: int) -> NDArray[np.float32]:
        """What goes into each step of an epoch and the first of the next, float32 (steps_per_epoch + 1, 4).

        The average begins short: after t steps its momentum is at most (1 + t) / (10 + t), as TensorFlow's
        `ExponentialMovingAverage` has it.
        """
        steps = np.arange(epoch * steps_per_epoch, (epoch + 1) * steps_per_epoch + 1)
        average = np.minimum(self.ema_momentum, (1 + steps) / (10 + steps))
        parts = (self.rates(steps, steps_per_epoch), self.weight_decay, self.momentum, average)
        return np.stack(np.broadcast_arrays(*parts), 1).astype(np.float32)

    def rates(self, steps: NDArray[np.int64], steps_per_epoch: int) -> NDArray[np.float32]:
        """The learning rate of each step, float32, steps counted from 0 over the phase.

        `cosine` falls from learning_rate to 0 over the phase (Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent
        with Warm Restarts", ICLR 2017, without restarts).
        """
        if self.schedule == "constant":
            return np.full(len(steps), self.learning_rate, np.float32)
        done = np.minimum(steps / max(1, steps_per_epoch * self.epochs), 1)
        return (self.learning_rate * (1 + np.cos(np.pi * done)) / 2).astype(np.float32)


@dataclass(frozen=True)
class Snapshot:
    """A phase after some epoch, or some batches into the next: all that the rest of it depends on.

    epoch: finished ones; batch: of the next epoch, with what its metrics are so far.
    """

    phase: str
    epoch: int
    batch: int
    stopped: bool
    waited: int
    best_value: float
    variables: list[NDArray[Any]]
    optimizer: list[NDArray[Any]]
    metrics: list[NDArray[Any]]
    best: list[NDArray[Any]]
    history: list[Row] = field(default_factory=list)


OnEpoch = Callable[[Row, Callable[[], Snapshot]], None]


def make_deterministic(seed: int) -> None:
    """Seed everything that Keras draws from; on a CPU make TensorFlow's own order of operations fixed too."""
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if not engine.has_gpu():  # on a GPU the deterministic kernels cost too much
            tf.config.experimental.enable_op_determinism()


def kept(history: list[Row], stopping: Stopping | None) -> Row:
    """The row of the weights that training ended with: the last one, or with early stopping the best."""
    if stopping is None:
        return history[-1]
    best = history[0]
    for row in history[1:]:
        if stopping.better(row[stopping.monitor], best[stopping.monitor]):
            best = row
    return best


def balanced(labels: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    """Class weights n / (classes * count), float32 (classes,), as scikit-learn's `balanced` has them."""
    return (len(labels) / (classes * np.bincount(labels, minlength=classes))).astype(np.float32)


class Learner:
    """A model compiled for training, which can be trained any number of times without being compiled again.

    What it depends on besides its variables, such as which layers are `trainable`, must be as it was when it was made.
    """

    def __init__(self, model: keras.Model, rule: Rule) -> None:
        """model: gives logits (n, units)."""
        self.model = model
        self.units = model.output.shape[-1]
        self.row_bytes = 4 * int(np.prod(model.input.shape[1:]))
        _compile(model, rule)
        self._fresh = values(model.optimizer.variables)
        self._steps: dict[bool, stepping.Steps] = {}

    def fit(
        self,
        phase: Phase,
        train: Examples,
        validation: Examples,
        history: list[Row],
        resume: Snapshot | None,
        on_epoch: OnEpoch,
        looks: Sequence[float] = (),
    ) -> list[Row]:
        """Train the model in place, from its variables as they are; the history with this phase's epochs added.

        resume: where to go on, or None; its history replaces the given one. on_epoch: called after every epoch with
        its row and with a function that takes a snapshot; what it raises ends the training. looks: places within the
        phase, in epochs, at which it is called too, with an unfinished epoch's row that the history does not keep.
        With early stopping the best weights are restored at the end; those from before the phase are a candidate too,
        so that a phase can't make the monitored value worse. Raises DivergedError where the loss is no longer finite.
        """
        model = self.model
        many = batching.test_batch(phase.batch_size, self.row_bytes)
        learned, checked = (
            Batches.of(examples, self.units, phase.label_smoothing, size, self.row_bytes)
            for examples, size in ((train, phase.batch_size), (validation, many))
        )
        steps = self._compiled(learned.per_chunk > 1)

        def check() -> dict[str, float]:
            return steps.test(batching.ahead(checked.chunks(0, np.arange(len(validation.labels)))))

        at = self._start(phase, history, check) if resume is None else self._go_on(resume)
        per_epoch = math.ceil(len(train.labels) / phase.batch_size)
        for epoch in range(at.epoch, phase.epochs):
            if at.stopped:
                break
            order = np.random.default_rng([phase.seed, epoch, *phase.name.encode()]).permutation(len(train.labels))
            numbers = phase.numbers(epoch, per_epoch)
            for first, last in _parts(at.batch, looks, epoch, per_epoch):
                chunks = learned.chunks(epoch % len(train.variants), order, numbers, first, last)
                trained = steps.train(batching.ahead(chunks), go_on=first > 0)
                metrics = values(model.metrics_variables)
                rate, step = float(numbers[last, 0]), len(at.history) + 1
                with self._averaged():
                    row = _row(phase, epoch + last / per_epoch, rate, trained, check(), step)
                    _require_finite(row, phase)
                    if last < per_epoch:
                        at.batch = last
                    else:
                        at.finish(row, phase.stopping, model)
                on_epoch(row, partial(self._snapshot, phase, at, metrics))
                if last < per_epoch:
                    assign(model.metrics_variables, metrics)
        if phase.stopping:
            assign(model.variables, at.best)
        else:
            self._take_average()
        return at.history

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Put the averaged weights, where there are any, into the places of those that are trained."""
        trained = values(self.model.trainable_variables)
        self._take_average()
        yield
        assign(self.model.trainable_variables, trained)

    def _take_average(self) -> None:
        self.model.optimizer.finalize_variable_values(self.model.trainable_variables)

    def _compiled(self, has_many: bool) -> stepping.Steps:
        if has_many not in self._steps:
            self._steps[has_many] = stepping.steps(self.model, has_many)
        return self._steps[has_many]

    def _start(self, phase: Phase, history: list[Row], check: Callable[[], dict[str, float]]) -> _Standing:
        assign(self.model.optimizer.variables, self._fresh)
        before = check()[phase.stopping.monitor[4:]] if phase.stopping else math.nan
        return _Standing(0, 0, False, 0, before, values(self.model.variables), list(history))

    def _go_on(self, resume: Snapshot) -> _Standing:
        assign(self.model.variables, resume.variables)
        assign(self.model.optimizer.variables, resume.optimizer)
        if resume.batch:
            assign(self.model.metrics_variables, resume.metrics)
        place = (resume.epoch, resume.batch, resume.stopped, resume.waited)
        return _Standing(*place, resume.best_value, resume.best, list(resume.history))

    def _snapshot(self, phase: Phase, at: _Standing, metrics: list[NDArray[Any]]) -> Snapshot:
        place = (phase.name, at.epoch, at.batch, at.stopped, at.waited, at.best_value)
        now, moments = values(self.model.variables), values(self.model.optimizer.variables)
        return Snapshot(*place, now, moments, metrics, at.best, list(at.history))


@dataclass
class _Standing:
    """How far a phase is; of a `Snapshot` what the loop itself keeps."""

    epoch: int
    batch: int
    stopped: bool
    waited: int
    best_value: float
    best: list[NDArray[Any]]
    history: list[Row]

    def finish(self, row: Row, stopping: Stopping | None, model: keras.Model) -> None:
        """Take in a finished epoch."""
        self.epoch, self.batch = row["epoch"], 0
        self.history.append(row)
        if stopping and stopping.better(row[stopping.monitor], self.best_value):
            self.best, self.best_value, self.waited = values(model.variables), row[stopping.monitor], 0
        elif stopping:
            self.waited += 1
            self.stopped = self.waited >= stopping.patience


def _parts(begin: int, looks: Sequence[float], epoch: int, per_epoch: int) -> list[tuple[int, int]]:
    """The batches of an epoch from `begin` on, as ranges between the looks."""
    ends = {round((look - epoch) * per_epoch) for look in looks}
    return list(pairwise([begin, *sorted(ends & set(range(begin + 1, per_epoch))), per_epoch]))


def _row(
    phase: Phase, epoch: float, rate: float, trained: dict[str, float], tested: dict[str, float], step: int
) -> Row:
    return {
        "step": step,
        "phase": phase.name,
        "epoch": int(epoch) if epoch == int(epoch) else epoch,
        "learning_rate": rate,
        "loss": trained["loss"],
        "accuracy": trained["accuracy"],
        "val_loss": tested["loss"],
        "val_accuracy": tested["accuracy"],
    }


def _require_finite(row: Row, phase: Phase) -> None:
    value = row["loss"] + row["val_loss"]
    if not math.isfinite(value):
        raise DivergedError(
            f"params.yaml: the loss became {value} in epoch {math.ceil(row['epoch'])} of phase {phase.name}; "
            f"lower finetune.{'head_' if phase.name == 'head' else ''}learning_rate ({phase.learning_rate:g})"
        )


class _Momentum(keras.optimizers.SGD):
    """Keras's SGD with momentum, which may be a tensor here: Keras's own asks it in Python whether it is 0."""

    def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
        dtype = variable.dtype
        velocity = self.momentums[self._get_variable_index(variable)]
        step = keras.ops.cast(gradient, dtype) * keras.ops.cast(learning_rate, dtype)
        self.assign(velocity, velocity * keras.ops.cast(self.momentum, dtype) - step)
        self.assign_add(variable, velocity)


class _BinaryAccuracy(keras.metrics.BinaryAccuracy):
    """Keras's, of smoothed targets too."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        super().update_state(keras.ops.cast(y_true > 0.5, "float32"), y_pred, sample_weight)


def _compile(model: keras.Model, rule: Rule) -> None:
    rate = 0.0  # as the decay and the momentum: every step is given its own
    decay = 0.0 if rule.has_weight_decay else None
    average = {"use_ema": rule.has_average, "ema_overwrite_frequency": None}
    optimizer: keras.optimizers.Optimizer
    if rule.optimizer != "sgd":
        optimizer = keras.optimizers.Adam(rate, weight_decay=decay, **average)  # with a decay it is AdamW
    elif rule.has_momentum:
        optimizer = _Momentum(rate, momentum=0.9, weight_decay=decay, **average)
    else:
        optimizer = keras.optimizers.SGD(rate, weight_decay=decay, **average)
    loss: keras.losses.Loss
    metric: keras.metrics.Metric
    if model.output.shape[-1] == 1:
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
        metric = _BinaryAccuracy("accuracy", threshold=0.0)
    else:
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        metric = keras.metrics.CategoricalAccuracy("accuracy")
    model.compile(optimizer, loss, metrics=[metric])
    model.optimizer.build(model.trainable_variables)


def values(variables: Sequence[keras.Variable]) -> list[NDArray[Any]]:
    """Copies of what variables hold."""
    return [np.array(variable) for variable in variables]


def assign(variables: Sequence[keras.Variable], given: Sequence[NDArray[Any]]) -> None:
    """Set variables to values of their shapes."""
    for variable, value in zip(variables, given, strict=True):
        variable.assign(value)
