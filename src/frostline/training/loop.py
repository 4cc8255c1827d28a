"""One training loop for every case: head or fine-tuning, cached or not, from the start or resumed.

The loop decides itself what Keras's `fit` leaves to chance: the order of the examples is drawn from (seed, phase,
epoch), epoch e sees variant e mod (copies + 1), and all state that the next epoch depends on fits into a `Snapshot`.
So a resumed training ends with the very weights of an uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from frostline.core.history import HistoryRow
from frostline.errors import DivergedError
from frostline.models import backend
from frostline.models.made_from import LoadedWeights
from frostline.training import batching, mixing, optimizing, stepping
from frostline.training.batching import Batches, Examples
from frostline.training.phases import Phase, StepNumber, StepRule, Stopping


@dataclass(frozen=True)
class Position:
    """How far a phase is.

    epoch: finished ones; batch: of the next epoch; stopped: whether early stopping ended it; waited: epochs without a
    better value; best_value, best: the monitored value so far, and the variables that it was measured with.
    """

    epoch: int
    history: Sequence[HistoryRow]
    batch: int = 0
    stopped: bool = False
    waited: int = 0
    best_value: float = math.nan
    best: Sequence[NDArray[Any]] = ()

    def after(self, row: HistoryRow, stopping: Stopping | None, model: keras.Model) -> Position:
        """The position after a finished epoch."""
        position = replace(self, epoch=int(row.epoch), batch=0, history=[*self.history, row])
        if stopping is None:
            return position
        value = row.value(stopping.monitor)
        if stopping.better(value, self.best_value):
            return replace(position, best=backend.values(model.variables), best_value=value, waited=0)
        if stopping.patience is None or position.epoch <= stopping.start_from_epoch:
            return position
        waited = self.waited + 1
        return replace(position, waited=waited, stopped=waited >= stopping.patience)


@dataclass(frozen=True)
class Snapshot:
    """A phase at a position, and all else that the rest of it depends on: the values of the model's variables, of the
    optimizer's, and, in the middle of an epoch, of its metrics."""

    phase: str
    position: Position
    variables: Sequence[NDArray[Any]] = ()
    optimizer: Sequence[NDArray[Any]] = ()
    metrics: Sequence[NDArray[Any]] = ()


def ignore(*values: Any) -> None:
    """What a watch does with what nobody asked for."""


@dataclass(frozen=True)
class Watch:
    """Who follows a training, and what is called when; what is raised there ends the training.

    on_epoch: after every epoch, with its row and a function that takes a snapshot. looks: places within fine-tuning, in
    epochs, at which it is called too, with the row of an unfinished epoch, which the history does not keep. on_weights:
    with what a file of weights gave the backbone. on_plan: with a line that says where frozen features come from.
    """

    on_epoch: Callable[[HistoryRow, Callable[[], Snapshot]], None] = ignore
    looks: Sequence[float] = ()
    on_weights: Callable[[LoadedWeights], None] = ignore
    on_plan: Callable[[str], None] = ignore


# What the order of the examples is drawn from beside seed and epoch: numbers that are a phase's own, whatever it is
# called. Other numbers give other weights.
STREAMS = {"head": tuple(b"head"), "finetune": tuple(b"finetune")}


def balanced(labels: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    """Class weights n / (classes * count), float32 (classes,), as scikit-learn's `balanced` has them."""
    return (len(labels) / (classes * np.bincount(labels, minlength=classes))).astype(np.float32)


NOBODY = Watch()


class Learner:
    """A model compiled for training, which can be trained any number of times without being compiled again.

    What it depends on besides its variables, such as which layers are `trainable`, must be as it was when it was made.
    """

    def __init__(self, model: keras.Model, rule: StepRule, blocks: Mapping[str, int] | None = None) -> None:
        """model: gives logits (n, units); blocks: how many blocks from the top each variable is, by its path, where
        that is not 0."""
        self.model = model
        self.units = model.output.shape[-1]
        self.row_bytes = 4 * int(np.prod(model.input.shape[1:]))
        optimizing.compile_for(model, rule, blocks or {})
        self._has_average = rule.has_average
        self._fresh = backend.values(model.optimizer.variables)
        self._begun: dict[Hashable, dict[str, float]] = {}
        self._steps: dict[bool, stepping.Steps] = {}

    def fit(
        self,
        phase: Phase,
        train: Examples,
        validation: Examples,
        history: Sequence[HistoryRow],
        resume: Snapshot | None = None,
        watch: Watch = NOBODY,
        start: Hashable = None,
    ) -> list[HistoryRow]:
        """Train the model in place, from its variables as they are; the history with this phase's epochs added.

        resume: where to go on, or None; its history replaces the given one. start: a name of the variables as they are
        and of the validation data, under which their score is remembered. With early stopping the best weights are
        restored at the end; those from before the phase are a candidate too, so that a phase can't make the monitored
        value worse. Raises DivergedError where the loss is no longer finite.
        """
        learned = Batches.of(train, self.units, phase.label_smoothing, phase.batch_size, self.row_bytes)
        many = batching.test_batch(phase.batch_size, self.row_bytes)
        checked = Batches.of(validation, self.units, phase.label_smoothing, many, self.row_bytes)
        steps = self._compiled(learned.per_chunk > 1)
        check = partial(self._score, steps, checked)
        position = self._start(phase, history, check, start) if resume is None else self._resume(resume)
        for epoch in range(position.epoch, phase.stage.stop):
            if position.stopped:
                break
            numbers = phase.numbers(epoch, learned.count, position.history)
            for first, last in _parts(position.batch, watch.looks, epoch, learned.count):
                trained = self._train_part(phase, steps, learned, numbers, epoch, first, last)
                metrics = backend.values(self.model.metrics_variables)
                rate = float(numbers[last, StepNumber.LEARNING_RATE])
                with self._averaged():
                    row = _row(phase, epoch + last / learned.count, rate, trained, check(), len(position.history) + 1)
                    _require_finite(row, phase)
                    is_whole = last == learned.count
                    position = (
                        position.after(row, phase.stopping, self.model) if is_whole else replace(position, batch=last)
                    )
                watch.on_epoch(row, partial(self._snapshot, phase, position, metrics))
                if not is_whole:
                    backend.assign(self.model.metrics_variables, metrics)
        if phase.stopping:
            backend.assign(self.model.variables, position.best)
        else:
            self._take_average()
        return list(position.history)

    def _train_part(
        self,
        phase: Phase,
        steps: stepping.Steps,
        learned: Batches,
        numbers: NDArray[np.float32],
        epoch: int,
        first: int,
        last: int,
    ) -> dict[str, float]:
        """Train on an epoch's batches from `first` to before `last`; the metrics of the epoch so far."""
        stream = [phase.seed, epoch, *STREAMS[phase.name]]
        order = np.random.default_rng(stream).permutation(len(learned.examples.labels))
        chunks = learned.chunks(epoch % len(learned.examples.variants), order, numbers, first, last)
        mixture = mixing.Mixture(phase.mixup, phase.cutmix)
        if mixture.is_any:
            chunks = mixture.mixed(chunks, [*stream, 1], first)
        return steps.train(batching.ahead(chunks), go_on=first > 0)

    @staticmethod
    def _score(steps: stepping.Steps, checked: Batches) -> dict[str, float]:
        """Loss and accuracy of all validation examples."""
        return steps.test(batching.ahead(checked.chunks(0, np.arange(len(checked.examples.labels)))))

    def range_test(
        self, phase: Phase, train: Examples, rates: NDArray[np.float64], is_over: Callable[[list[float]], bool]
    ) -> list[float]:
        """The loss of a batch before its step at each learning rate, until it is over by the losses so far.

        The model is trained in place, from its variables as they are, by the phase's rule.
        """
        backend.assign(self.model.optimizer.variables, self._fresh)
        batches = Batches(train, self.units, phase.label_smoothing, phase.batch_size, per_chunk=1)
        numbers = phase.numbers(phase.stage.start, len(rates), [])[:-1]
        numbers[:, StepNumber.LEARNING_RATE] = rates
        steps, losses = self._compiled(False), list[float]()
        while len(losses) < len(rates):
            order = np.random.default_rng([phase.seed, len(losses)]).permutation(len(train.labels))
            last = min(math.ceil(len(order) / phase.batch_size), len(rates) - len(losses))
            variant = len(losses) * phase.batch_size // len(order) % len(train.variants)
            for chunk in batches.chunks(variant, order, numbers[len(losses) :], 0, last):
                losses.append(steps.train([chunk])["loss"])
                if is_over(losses):
                    return losses
        return losses

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Put the averaged weights, where there are any, into the places of those that are trained."""
        if not self._has_average:
            yield
            return
        trained = backend.tensors(self.model.trainable_variables)
        self._take_average()
        yield
        backend.assign(self.model.trainable_variables, trained)

    def _take_average(self) -> None:
        self.model.optimizer.finalize_variable_values(self.model.trainable_variables)

    def _compiled(self, has_many: bool) -> stepping.Steps:
        if has_many not in self._steps:
            self._steps[has_many] = stepping.steps(self.model, has_many)
        return self._steps[has_many]

    def _start(
        self, phase: Phase, history: Sequence[HistoryRow], check: Callable[[], dict[str, float]], start: Hashable
    ) -> Position:
        backend.assign(self.model.optimizer.variables, self._fresh)
        best_value = math.nan
        if phase.stopping:
            key = (start, phase.batch_size, phase.label_smoothing)
            score = self._begun.get(key) or check()
            if start is not None:
                self._begun[key] = score
            best_value = score[phase.stopping.monitor.removeprefix("val_")]
        best = backend.values(self.model.variables)
        return Position(phase.stage.start, list(history), best_value=best_value, best=best)

    def _resume(self, snapshot: Snapshot) -> Position:
        backend.assign(self.model.variables, snapshot.variables)
        backend.assign(self.model.optimizer.variables, snapshot.optimizer)
        if snapshot.position.batch:
            backend.assign(self.model.metrics_variables, snapshot.metrics)
        return snapshot.position

    def _snapshot(self, phase: Phase, position: Position, metrics: Sequence[NDArray[Any]]) -> Snapshot:
        return Snapshot(
            phase=phase.name,
            position=position,
            variables=backend.values(self.model.variables),
            optimizer=backend.values(self.model.optimizer.variables),
            metrics=metrics,
        )


def _parts(begin: int, looks: Sequence[float], epoch: int, per_epoch: int) -> list[tuple[int, int]]:
    """The batches of an epoch from `begin` on, as ranges between the looks."""
    ends = {round((look - epoch) * per_epoch) for look in looks}
    return list(pairwise([begin, *sorted(ends & set(range(begin + 1, per_epoch))), per_epoch]))


def _row(
    phase: Phase, epoch: float, rate: float, trained: dict[str, float], tested: dict[str, float], step: int
) -> HistoryRow:
    return HistoryRow(
        step=step,
        phase=phase.name,
        epoch=int(epoch) if epoch == int(epoch) else epoch,
        learning_rate=rate,
        loss=trained["loss"],
        accuracy=trained["accuracy"],
        val_loss=tested["loss"],
        val_accuracy=tested["accuracy"],
        frozen_layers=phase.frozen_layers,
    )


def _require_finite(row: HistoryRow, phase: Phase) -> None:
    value = row.loss + row.val_loss
    if not math.isfinite(value):
        raise DivergedError(
            f"params.yaml: the loss became {value} in epoch {math.ceil(row.epoch)} of phase {phase.name}; "
            f"lower finetune.{'head_' if phase.name == 'head' else ''}learning_rate ({phase.learning_rate:g})"
        )
