"""One training loop for every case: head or fine-tuning, with stored features or not, from the start or resumed.

The loop determines what is random in Keras's `fit`: the order of the examples depends on (seed, phase, epoch), epoch e
sees variant e mod (copies + 1), and a `Snapshot` holds all state that the next epoch depends on. So a resumed training
ends with the same weights as an uninterrupted one.
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
from frostline.models.devices import ONE, Devices
from frostline.models.made_from import LoadedWeights
from frostline.training import batching, mixing, optimizing, stepping
from frostline.training.batching import Batches, Examples
from frostline.training.phases import Phase, StepNumber, StepRule, Stopping


@dataclass(frozen=True)
class Position:
    """How far a phase is.

    epoch: the number of finished epochs; batch: the number of finished batches of the next epoch; stopped: whether
    early stopping ended it; waited: epochs without a better value; best_value, best: the best monitored value so far,
    and the variables that it was measured with.
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
    """A phase at a position, with all state that its remaining epochs depend on: the variables of the model, of the
    optimizer and, in the middle of an epoch, of the metrics."""

    phase: str
    position: Position
    variables: Sequence[NDArray[Any]] = ()
    optimizer: Sequence[NDArray[Any]] = ()
    metrics: Sequence[NDArray[Any]] = ()


def ignore(*values: Any) -> None:
    """Do nothing: the default of a watch's functions."""


@dataclass(frozen=True)
class Watch:
    """Functions that are called during a training. An exception in one of them ends the training.

    on_epoch: called after every epoch, with its row and a function that takes a snapshot. looks: positions in
    fine-tuning, in epochs, at which on_epoch is called too, with the row of an unfinished epoch, which is not added to
    the history. on_weights: called with the weights that a file gave the backbone. on_plan: called with a line that
    says where frozen features come from.
    """

    on_epoch: Callable[[HistoryRow, Callable[[], Snapshot]], None] = ignore
    looks: Sequence[float] = ()
    on_weights: Callable[[LoadedWeights], None] = ignore
    on_plan: Callable[[str], None] = ignore


# The order of the examples depends on seed, epoch and these numbers. They must not change, even if a phase is renamed:
# other numbers give other weights.
STREAMS = {"head": tuple(b"head"), "finetune": tuple(b"finetune")}


NOBODY = Watch()


class Learner:
    """A model compiled for training, which can be trained any number of times without being compiled again.

    Except its variables, everything that it depends on must be as it was when the learner was created; for example,
    the same layers must be `trainable`.
    """

    def __init__(
        self, model: keras.Model, rule: StepRule, blocks: Mapping[str, int] | None = None, devices: Devices = ONE
    ) -> None:
        """model: gives logits (n, units); blocks: the depth of each variable in blocks, by its path, 0 if it is not
        there (see `thawing.from_top`); devices: they share each batch."""
        self.model, self.devices = model, devices
        self.units = model.output.shape[-1]
        self.row_bytes = 4 * int(np.prod(model.input.shape[1:]))
        optimizing.compile_for(model, rule, blocks or {})
        self._has_average = rule.has_average
        self._initial = backend.values(model.optimizer.variables)
        self._start_scores: dict[Hashable, dict[str, float]] = {}
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
        """Train the model in place, from its current variables. Returns the history with the epochs of this phase.

        resume: the snapshot to resume from, or None; its history replaces the given one. start: a key for the current
        variables and the validation data, under which their score is remembered. With early stopping the best weights
        are restored at the end; those from before the phase are candidates too, so a phase cannot make the monitored
        value worse. Raises DivergedError if the loss is not finite.
        """
        train_batches = Batches.of(train, self.units, phase.label_smoothing, phase.batch_size, self.row_bytes)
        steps = self._steps_for(train_batches.per_chunk > 1)
        check = partial(self.score, phase, validation)
        position = self._start(phase, history, check, start) if resume is None else self._resume(resume)
        for epoch in range(position.epoch, phase.stage.stop):
            if position.stopped:
                break
            numbers = phase.numbers(epoch, train_batches.count, position.history)
            for first, last in _parts(position.batch, watch.looks, epoch, train_batches.count):
                train_scores = self._train_part(phase, steps, train_batches, numbers, epoch, first, last)
                metrics = backend.values(self.model.metrics_variables)
                rate = float(numbers[last, StepNumber.LEARNING_RATE])
                with self._average_in_place():
                    at, step = epoch + last / train_batches.count, len(position.history) + 1
                    row = _row(phase, at, rate, train_scores, check(), step)
                    _require_finite(row, phase)
                    is_whole = last == train_batches.count
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
        batches: Batches,
        numbers: NDArray[np.float32],
        epoch: int,
        first: int,
        last: int,
    ) -> dict[str, float]:
        """Train on the batches of an epoch from `first` to before `last`. Returns the metrics of the epoch so far."""
        stream = [phase.seed, epoch, *STREAMS[phase.name]]
        order = np.random.default_rng(stream).permutation(len(batches.examples.labels))
        chunks = batches.chunks(epoch % len(batches.examples.variants), order, numbers, first, last)
        mixture = mixing.Mixture(phase.mixup, phase.cutmix)
        if mixture.is_any:
            chunks = mixture.mix(chunks, [*stream, 1], first)
        return steps.train(batching.ahead(chunks), go_on=first > 0)

    def score(self, phase: Phase, examples: Examples) -> dict[str, float]:
        """Loss and accuracy of the present weights on all examples, as they are measured after an epoch of a phase."""
        settings = (self.units, phase.label_smoothing)
        size = batching.test_batch(phase.batch_size, self.row_bytes, self.devices.number)
        batches = Batches.of(examples, *settings, size, self.row_bytes)
        has_many = Batches.of(examples, *settings, phase.batch_size, self.row_bytes).per_chunk > 1  # as in training
        chunks = batches.chunks(0, np.arange(len(examples.labels)))
        return self._steps_for(has_many).test(batching.ahead(chunks))

    def range_test(
        self, phase: Phase, train: Examples, rates: NDArray[np.float64], is_over: Callable[[list[float]], bool]
    ) -> list[float]:
        """Train a step at each learning rate, until `is_over` of the losses so far. Returns the losses before each.

        The model is trained in place, from its current variables, by the rule of the phase.
        """
        backend.assign(self.model.optimizer.variables, self._initial)
        batches = Batches(train, self.units, phase.label_smoothing, phase.batch_size, per_chunk=1)
        numbers = phase.numbers(phase.stage.start, len(rates), [])[:-1]
        numbers[:, StepNumber.LEARNING_RATE] = rates
        steps, losses = self._steps_for(False), list[float]()
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
    def _average_in_place(self) -> Iterator[None]:
        """Replace the trained weights by the averaged ones, if there are any, until the end of the block."""
        if not self._has_average:
            yield
            return
        values = backend.tensors(self.model.trainable_variables)
        self._take_average()
        yield
        backend.assign(self.model.trainable_variables, values)

    def _take_average(self) -> None:
        self.model.optimizer.finalize_variable_values(self.model.trainable_variables)

    def _steps_for(self, has_many: bool) -> stepping.Steps:
        if has_many not in self._steps:
            self._steps[has_many] = stepping.steps(self.model, has_many, self.devices)
        return self._steps[has_many]

    def _start(
        self, phase: Phase, history: Sequence[HistoryRow], check: Callable[[], dict[str, float]], start: Hashable
    ) -> Position:
        backend.assign(self.model.optimizer.variables, self._initial)
        best_value = math.nan
        if phase.stopping:
            key = (start, phase.batch_size, phase.label_smoothing)
            score = self._start_scores.get(key) or check()
            if start is not None:
                self._start_scores[key] = score
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
    """The batches of an epoch from `begin` on, as (first, last) between the looks."""
    ends = {round((look - epoch) * per_epoch) for look in looks}
    return list(pairwise([begin, *sorted(ends & set(range(begin + 1, per_epoch))), per_epoch]))


def _row(
    phase: Phase, epoch: float, rate: float, train_scores: dict[str, float], val_scores: dict[str, float], step: int
) -> HistoryRow:
    return HistoryRow(
        step=step,
        phase=phase.name,
        epoch=int(epoch) if epoch == int(epoch) else epoch,
        learning_rate=rate,
        loss=train_scores["loss"],
        accuracy=train_scores["accuracy"],
        val_loss=val_scores["loss"],
        val_accuracy=val_scores["accuracy"],
        frozen_layers=phase.band.frozen,
    )


def _require_finite(row: HistoryRow, phase: Phase) -> None:
    value = row.loss + row.val_loss
    if not math.isfinite(value):
        raise DivergedError(
            f"params.yaml: the loss became {value} in epoch {math.ceil(row.epoch)} of phase {phase.name}; "
            f"lower finetune.{'head_' if phase.name == 'head' else ''}learning_rate ({phase.learning_rate:g})"
        )
