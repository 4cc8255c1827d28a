"""One training loop for every case: head or fine-tuning, cached or not, from the start or resumed.

The loop decides itself what Keras's `fit` leaves to chance: the order of the examples is drawn from (seed, phase,
epoch), epoch e sees variant e mod (copies + 1), and all state that the next epoch depends on fits into a `Snapshot`.
So a resumed training ends with the very weights of an uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from frostline.errors import UserError
from frostline.features import Rows

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
class Phase:
    """How to train in one phase.

    The batch is the unit of the cosine schedule, which ends at 0; weight_decay (decoupled) is of adamw and sgd,
    momentum of sgd.
    """

    name: str
    epochs: int
    batch_size: int
    optimizer: str
    learning_rate: float
    momentum: float
    weight_decay: float
    schedule: str
    stopping: Stopping | None
    label_smoothing: float
    seed: int


@dataclass(frozen=True)
class Examples:
    """What to learn from. variants: rows of the same pictures, the originals first; labels: int (n,);
    class_weights: float (classes,), or None where all count alike."""

    variants: Sequence[Rows]
    labels: NDArray[np.int64]
    class_weights: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Snapshot:
    """A phase after some epoch: all that the rest of it depends on."""

    phase: str
    epoch: int
    stopped: bool
    waited: int
    best_value: float
    variables: list[NDArray[Any]]
    optimizer: list[NDArray[Any]]
    best: list[NDArray[Any]]
    history: list[Row] = field(default_factory=list)


OnEpoch = Callable[[Row, Callable[[], Snapshot]], None]


def make_deterministic(seed: int) -> None:
    """Seed everything that Keras draws from; on a CPU make TensorFlow's own order of operations fixed too."""
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if not tf.config.list_physical_devices("GPU"):  # on a GPU the deterministic kernels cost too much
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


def fit(
    model: keras.Model,
    phase: Phase,
    train: Examples,
    validation: Examples,
    history: list[Row],
    resume: Snapshot | None,
    on_epoch: OnEpoch,
) -> list[Row]:
    """Train a model that gives logits (n, units), in place; the history with this phase's epochs added.

    resume: where to go on, or None; its history replaces the given one. on_epoch: called after every epoch with its
    row and with a function that takes a snapshot. With early stopping the best weights are restored at the end; those
    from before the phase are a candidate too, so that a phase can't make the monitored value worse.
    Raises UserError where the loss is no longer finite.
    """
    _compile(model, phase, math.ceil(len(train.labels) / phase.batch_size))
    units = model.output.shape[-1]
    check = _Batches(validation.variants[0], validation, np.arange(len(validation.labels)), phase.batch_size, units)
    stopping = phase.stopping
    if resume is None:
        first, waited, stopped, history = 0, 0, False, list(history)
        best = _values(model.variables)
        best_value = model.evaluate(check, return_dict=True, verbose=0)[stopping.monitor[4:]] if stopping else math.nan
    else:
        first, waited, stopped, history = resume.epoch, resume.waited, resume.stopped, list(resume.history)
        best, best_value = resume.best, resume.best_value
        _assign(model.variables, resume.variables)
        _assign(model.optimizer.variables, resume.optimizer)
    for epoch in range(first, phase.epochs):
        if stopped:
            break
        order = np.random.default_rng([phase.seed, epoch, *phase.name.encode()]).permutation(len(train.labels))
        rows = train.variants[epoch % len(train.variants)]
        logs = model.fit(_Batches(rows, train, order, phase.batch_size, units), epochs=1, shuffle=False, verbose=0)
        checked = model.evaluate(check, return_dict=True, verbose=0)
        row: Row = {
            "step": len(history) + 1,
            "phase": phase.name,
            "epoch": epoch + 1,
            "learning_rate": float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)),
            "loss": float(logs.history["loss"][0]),
            "accuracy": float(logs.history["accuracy"][0]),
            "val_loss": float(checked["loss"]),
            "val_accuracy": float(checked["accuracy"]),
        }
        if not math.isfinite(row["loss"] + row["val_loss"]):
            raise UserError(
                f"params.yaml: the loss became {row['loss'] + row['val_loss']} in epoch {epoch + 1} of phase "
                f"{phase.name}; "
                f"lower finetune.{'head_' if phase.name == 'head' else ''}learning_rate ({phase.learning_rate:g})"
            )
        history.append(row)
        if stopping:
            if stopping.better(row[stopping.monitor], best_value):
                best, best_value, waited = _values(model.variables), row[stopping.monitor], 0
            else:
                waited += 1
                stopped = waited >= stopping.patience

        def snapshot() -> Snapshot:
            now, moments = _values(model.variables), _values(model.optimizer.variables)
            return Snapshot(phase.name, epoch + 1, stopped, waited, best_value, now, moments, best, list(history))  # noqa: B023

        on_epoch(row, snapshot)
    if stopping:
        _assign(model.variables, best)
    return history


def _compile(model: keras.Model, phase: Phase, steps: int) -> None:
    rate: Any = phase.learning_rate
    if phase.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(phase.learning_rate, max(1, steps * phase.epochs))
    optimizer: keras.optimizers.Optimizer
    if phase.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(rate, momentum=phase.momentum, weight_decay=phase.weight_decay or None)
    elif phase.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(rate, weight_decay=phase.weight_decay)
    else:
        optimizer = keras.optimizers.Adam(rate)  # with a decay Keras's Adam is AdamW
    loss: keras.losses.Loss
    metric: keras.metrics.Metric
    if model.output.shape[-1] == 1:
        loss = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=phase.label_smoothing)
        metric = keras.metrics.BinaryAccuracy("accuracy", threshold=0.0)
    else:
        loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=phase.label_smoothing)
        metric = keras.metrics.CategoricalAccuracy("accuracy")
    model.compile(optimizer, loss, metrics=[metric])
    model.optimizer.build(model.trainable_variables)


class _Batches(keras.utils.PyDataset):
    """Batches of rows in a given order, with one-hot targets (n, units) and sample weights."""

    def __init__(self, rows: Rows, examples: Examples, order: NDArray[np.int64], batch_size: int, units: int) -> None:
        super().__init__()
        self.rows, self.order, self.batch_size = rows, order, batch_size
        labels, weights = examples.labels, examples.class_weights
        self.targets = labels[:, None].astype(np.float32) if units == 1 else np.eye(units, dtype=np.float32)[labels]
        self.weights = None if weights is None else weights[labels]

    def __len__(self) -> int:
        return math.ceil(len(self.order) / self.batch_size)

    def __getitem__(self, number: int) -> tuple[NDArray[Any], ...]:
        rows = self.order[number * self.batch_size : (number + 1) * self.batch_size]
        batch = self.rows.take(rows), self.targets[rows]
        return batch if self.weights is None else (*batch, self.weights[rows])


def _values(variables: Sequence[keras.Variable]) -> list[NDArray[Any]]:
    return [np.array(variable) for variable in variables]


def _assign(variables: Sequence[keras.Variable], values: Sequence[NDArray[Any]]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
