"""One training loop for every case: head or fine-tuning, cached or not, from the start or resumed.

The loop decides itself what Keras's `fit` leaves to chance: the order of the examples is drawn from (seed, phase,
epoch), epoch e sees variant e mod (copies + 1), and all state that the next epoch depends on fits into a `Snapshot`.
So a resumed training ends with the very weights of an uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from frostline import engine, features, stepping
from frostline.errors import UserError
from frostline.features import Rows

CHUNK_BYTES = 4 * 2**20  # of inputs that go into the engine in one call, where a batch is smaller

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
    row_bytes = 4 * int(np.prod(model.input.shape[1:]))
    learned = _Batches.of(train, units, phase.batch_size, row_bytes)
    checked = _Batches.of(validation, units, _test_batch(phase.batch_size, row_bytes), row_bytes)
    steps = stepping.steps(model, learned.per_chunk > 1)

    def check() -> dict[str, float]:
        return steps.test(_ahead(checked.chunks(0, np.arange(len(validation.labels)))))

    stopping = phase.stopping
    if resume is None:
        first, waited, stopped, history = 0, 0, False, list(history)
        best = _values(model.variables)
        best_value = check()[stopping.monitor[4:]] if stopping else math.nan
    else:
        first, waited, stopped, history = resume.epoch, resume.waited, resume.stopped, list(resume.history)
        best, best_value = resume.best, resume.best_value
        _assign(model.variables, resume.variables)
        _assign(model.optimizer.variables, resume.optimizer)
    for epoch in range(first, phase.epochs):
        if stopped:
            break
        order = np.random.default_rng([phase.seed, epoch, *phase.name.encode()]).permutation(len(train.labels))
        trained = steps.train(_ahead(learned.chunks(epoch % len(train.variants), order)))
        tested = check()
        row: Row = {
            "step": len(history) + 1,
            "phase": phase.name,
            "epoch": epoch + 1,
            "learning_rate": float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)),
            "loss": trained["loss"],
            "accuracy": trained["accuracy"],
            "val_loss": tested["loss"],
            "val_accuracy": tested["accuracy"],
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


def _test_batch(batch_size: int, row_bytes: int) -> int:
    """How many rows are evaluated at once: a training batch, or more of them where they are small."""
    return max(batch_size, min(1024, CHUNK_BYTES // row_bytes))


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


@dataclass(frozen=True)
class _Batches:
    """Cuts examples into chunks of batches, with one-hot targets (n, units) and sample weights."""

    examples: Examples
    units: int
    batch_size: int
    per_chunk: int

    @classmethod
    def of(cls, examples: Examples, units: int, batch_size: int, row_bytes: int) -> _Batches:
        return cls(examples, units, batch_size, max(1, CHUNK_BYTES // (batch_size * row_bytes)))

    def chunks(self, variant: int, order: NDArray[np.int64]) -> Iterator[stepping.Chunk]:
        """The rows of a variant in that order. A shorter last batch is a chunk of its own."""
        rows = self.examples.variants[variant]
        # Where a prefix is run on the fly, as many rows are asked for at once as one call of it takes.
        ahead = self.batch_size * max(self.per_chunk, features.batch_rows() // self.batch_size)
        for begin in range(0, len(order), ahead):
            taken = order[begin : begin + ahead]
            x = rows.take(taken)
            for start in range(0, len(taken), self.batch_size * self.per_chunk):
                yield from self._stacked(x, taken, start, min(start + self.batch_size * self.per_chunk, len(taken)))

    def _stacked(self, x: NDArray[Any], rows: NDArray[np.int64], start: int, end: int) -> Iterator[stepping.Chunk]:
        whole = start + (end - start) // self.batch_size * self.batch_size
        for first, last, size in ((start, whole, self.batch_size), (whole, end, end - whole)):
            if last > first:
                labels = self.examples.labels[rows[first:last]]
                is_one = labels[:, None] == (1 if self.units == 1 else np.arange(self.units))
                parts = [x[first:last], is_one.astype(np.float32)]
                if self.examples.class_weights is not None:
                    parts.append(self.examples.class_weights[labels])
                yield tuple(part.reshape(-1, size, *part.shape[1:]) for part in parts)


def _ahead(chunks: Iterator[stepping.Chunk]) -> Iterator[stepping.Chunk]:
    """The same chunks, the next one made in a thread while one is worked on."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, chunks, None)
        while (chunk := coming.result()) is not None:
            coming = pool.submit(next, chunks, None)
            yield chunk


def _values(variables: Sequence[keras.Variable]) -> list[NDArray[Any]]:
    return [np.array(variable) for variable in variables]


def _assign(variables: Sequence[keras.Variable], values: Sequence[NDArray[Any]]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
