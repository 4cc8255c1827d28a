"""One training loop for every case: head or fine-tuning, cached or not, from the start or resumed.

The loop decides itself what Keras's `fit` leaves to chance: the order of the examples is drawn from (seed, phase,
epoch), epoch e sees variant e mod (copies + 1), and all state that the next epoch depends on fits into a `Snapshot`.
So a resumed training ends with the very weights of an uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from frostline.core.history import HistoryRow
from frostline.errors import DivergedError
from frostline.models import backend
from frostline.training import batching, optimizing, stepping
from frostline.training.batching import Batches, Examples
from frostline.training.phases import Phase, Rule, Stopping


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
    history: list[HistoryRow] = field(default_factory=list)


OnEpoch = Callable[[HistoryRow, Callable[[], Snapshot]], None]


def balanced(labels: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    """Class weights n / (classes * count), float32 (classes,), as scikit-learn's `balanced` has them."""
    return (len(labels) / (classes * np.bincount(labels, minlength=classes))).astype(np.float32)


class Learner:
    """A model compiled for training, which can be trained any number of times without being compiled again.

    What it depends on besides its variables, such as which layers are `trainable`, must be as it was when it was made.
    """

    def __init__(self, model: keras.Model, rule: Rule, blocks: Mapping[str, int] | None = None) -> None:
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
        history: list[HistoryRow],
        resume: Snapshot | None,
        on_epoch: OnEpoch,
        looks: Sequence[float] = (),
        start: Hashable = None,
    ) -> list[HistoryRow]:
        """Train the model in place, from its variables as they are; the history with this phase's epochs added.

        resume: where to go on, or None; its history replaces the given one. on_epoch: called after every epoch with
        its row and with a function that takes a snapshot; what it raises ends the training. looks: places within the
        phase, in epochs, at which it is called too, with an unfinished epoch's row that the history does not keep.
        start: a name of the variables as they are and of the validation data, under which their score is remembered.
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

        at = self._start(phase, history, check, start) if resume is None else self._go_on(resume)
        per_epoch = math.ceil(len(train.labels) / phase.batch_size)
        mixture = batching.Mixture(phase.mixup, phase.cutmix)
        for epoch in range(at.epoch, phase.stage.stop):
            if at.stopped:
                break
            drawn = [phase.seed, epoch, *phase.name.encode()]
            order = np.random.default_rng(drawn).permutation(len(train.labels))
            numbers = phase.numbers(epoch, per_epoch, at.history)
            for first, last in _parts(at.batch, looks, epoch, per_epoch):
                chunks = learned.chunks(epoch % len(train.variants), order, numbers, first, last)
                if mixture.is_any:
                    chunks = mixture.mixed(chunks, [*drawn, 1], first)
                trained = steps.train(batching.ahead(chunks), go_on=first > 0)
                metrics = backend.values(model.metrics_variables)
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
                    backend.assign(model.metrics_variables, metrics)
        if phase.stopping:
            backend.assign(model.variables, at.best)
        else:
            self._take_average()
        return at.history

    def range_test(
        self, phase: Phase, train: Examples, rates: NDArray[np.float64], is_over: Callable[[list[float]], bool]
    ) -> list[float]:
        """The loss of a batch before its step at each learning rate, until it is over by the losses so far.

        The model is trained in place, from its variables as they are, by the phase's rule.
        """
        backend.assign(self.model.optimizer.variables, self._fresh)
        batches = Batches(train, self.units, phase.label_smoothing, phase.batch_size, per_chunk=1)
        numbers = phase.numbers(phase.stage.start, len(rates), [])[:-1]
        numbers[:, 0] = rates
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
        self, phase: Phase, history: list[HistoryRow], check: Callable[[], dict[str, float]], start: Hashable
    ) -> _Standing:
        backend.assign(self.model.optimizer.variables, self._fresh)
        before = math.nan
        if phase.stopping:
            known = (start, phase.batch_size, phase.label_smoothing)
            tested = self._begun.get(known) or check()
            if start is not None:
                self._begun[known] = tested
            before = tested[phase.stopping.monitor[4:]]
        return _Standing(phase.stage.start, 0, False, 0, before, backend.values(self.model.variables), list(history))

    def _go_on(self, resume: Snapshot) -> _Standing:
        backend.assign(self.model.variables, resume.variables)
        backend.assign(self.model.optimizer.variables, resume.optimizer)
        if resume.batch:
            backend.assign(self.model.metrics_variables, resume.metrics)
        place = (resume.epoch, resume.batch, resume.stopped, resume.waited)
        return _Standing(*place, resume.best_value, resume.best, list(resume.history))

    def _snapshot(self, phase: Phase, at: _Standing, metrics: list[NDArray[Any]]) -> Snapshot:
        place = (phase.name, at.epoch, at.batch, at.stopped, at.waited, at.best_value)
        now, moments = backend.values(self.model.variables), backend.values(self.model.optimizer.variables)
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
    history: list[HistoryRow]

    def finish(self, row: HistoryRow, stopping: Stopping | None, model: keras.Model) -> None:
        """Take in a finished epoch."""
        self.epoch, self.batch = int(row.epoch), 0
        self.history.append(row)
        if stopping and stopping.better(row.value(stopping.monitor), self.best_value):
            self.best, self.best_value, self.waited = backend.values(model.variables), row.value(stopping.monitor), 0
        elif stopping and stopping.patience is not None and self.epoch > stopping.start_from_epoch:
            self.waited += 1
            self.stopped = self.waited >= stopping.patience


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
