"""The settings of a phase of training: its length, its rule, its learning rates, and when it stops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from frostline.core.history import HistoryRow
from frostline.models.freeze_rules import Band
from frostline.params.schedules import Schedule
from frostline.training import schedules

NO_LAYERS = Band(0, 0, 0)


@dataclass(frozen=True)
class Stopping:
    """Stop after `patience` epochs without a better `monitor` (val_loss or val_accuracy), or never if it is None, and
    keep the best weights, like Keras's `EarlyStopping` with `restore_best_weights`.

    min_delta: a better value must be better by more than this; start_from_epoch: epochs before patience counts.
    """

    monitor: str
    patience: int | None
    min_delta: float = 0.0
    start_from_epoch: int = 0

    def better(self, value: float, best: float) -> bool:
        """Whether a value is better than the best so far; every value is better than NaN."""
        gain = best - value if self.monitor == "val_loss" else value - best
        return math.isnan(best) or gain > self.min_delta


@dataclass(frozen=True)
class Plateau:
    """The rule of Keras's `ReduceLROnPlateau`; see there for the arguments."""

    monitor: str
    factor: float
    patience: int
    min_delta: float
    cooldown: int
    min_lr: float

    def reductions(self, values: Sequence[float]) -> int:
        """The number of reductions of the learning rate after epochs with these values of `monitor`."""
        sign = -1 if self.monitor == "val_accuracy" else 1
        best, waiting, cooling, reductions = math.inf, 0, 0, 0
        for value in values:
            if cooling:
                cooling, waiting = cooling - 1, 0
            if sign * value < best - self.min_delta:
                best, waiting = sign * value, 0
            elif not cooling:
                waiting += 1
                if waiting >= self.patience:
                    reductions, cooling, waiting = reductions + 1, self.cooldown, 0
        return reductions

    def apply(self, rates: NDArray[np.float64], values: Sequence[float]) -> NDArray[np.float64]:
        """Reduce the rates of a schedule, after epochs with these values of `monitor`, at most to `min_lr`."""
        reduced_rates: NDArray[np.float64] = rates * self.factor ** self.reductions(values)
        return np.minimum(rates, np.maximum(reduced_rates, self.min_lr))


class StepNumber(IntEnum):
    """The columns of `Phase.numbers`."""

    LEARNING_RATE = 0
    WEIGHT_DECAY = 1
    MOMENTUM = 2
    AVERAGE = 3
    LAYER_DECAY = 4


@dataclass(frozen=True)
class StepRule:
    """The part of a step's settings that is compiled. The values of decay and momentum are not; see `StepNumber`.

    has_layer_decay: whether blocks have different learning rates. focal_gamma: of the focal loss; None for
    cross-entropy. own_loss: a function of one's own, instead of both.
    """

    optimizer: str
    has_weight_decay: bool
    has_momentum: bool
    has_average: bool
    has_layer_decay: bool
    focal_gamma: float | None
    own_loss: str | None = None


@dataclass(frozen=True)
class Phase:
    """How to train in one phase, or in a stage of it.

    epochs: the length of the whole phase and of its schedule; stage: the epochs of it that are trained here.
    learning_rate: of the schedule; weight_decay (decoupled): of adamw and sgd; momentum: of sgd; ema_momentum: of the
    average over the weights of all steps, which is evaluated and kept (Polyak & Juditsky, "Acceleration of Stochastic
    Approximation by Averaging", 1992, with exponential weights), 0 for none; layer_decay: a block's learning rate
    divided by that of the block above it (Howard & Ruder, "Universal Language Model Fine-tuning for Text
    Classification", ACL 2018, section 3.2), 1 for one rate; focal_gamma: None for cross-entropy; own_loss: see
    `StepRule`. mixup, cutmix: see `mixing.Mixture`. band: the layers of the backbone that are trained.
    """

    name: str
    epochs: int
    stage: range
    batch_size: int
    optimizer: str
    learning_rate: float
    schedule: Schedule
    seed: int
    plateau: Plateau | None = None
    weight_decay: float = 0.0
    momentum: float = 0.0
    label_smoothing: float = 0.0
    focal_gamma: float | None = None
    own_loss: str | None = None
    ema_momentum: float = 0.0
    layer_decay: float = 1.0
    mixup: float = 0.0
    cutmix: float = 0.0
    stopping: Stopping | None = None
    band: Band = NO_LAYERS

    @property
    def rule(self) -> StepRule:
        """The part of the settings that is compiled."""
        is_sgd = self.optimizer == "sgd"
        has_decay = self.optimizer != "adam" and self.weight_decay > 0
        has_momentum, has_average = is_sgd and self.momentum > 0, self.ema_momentum > 0
        has_layer_decay = self.layer_decay < 1
        loss = (self.focal_gamma, self.own_loss)
        return StepRule(self.optimizer, has_decay, has_momentum, has_average, has_layer_decay, *loss)

    def numbers(self, epoch: int, steps_per_epoch: int, history: Sequence[HistoryRow]) -> NDArray[np.float32]:
        """The numbers for each step of an epoch and for the first step of the next one, float32
        (steps_per_epoch + 1, StepNumber).

        history: the rows so far. After t steps of the stage, the momentum of the average is at most (1 + t) / (10 + t),
        as in TensorFlow's `ExponentialMovingAverage`.
        """
        steps = np.arange(epoch * steps_per_epoch, (epoch + 1) * steps_per_epoch + 1)
        stage_steps = steps - self.stage.start * steps_per_epoch
        average = np.minimum(self.ema_momentum, (1 + stage_steps) / (10 + stage_steps))
        rates = schedules.rates(self.schedule, steps, steps_per_epoch, self.epochs, self.learning_rate)
        if self.plateau:
            values = [row.value(self.plateau.monitor) for row in history if row.phase == self.name]
            rates = self.plateau.apply(rates, values)
        numbers = np.empty((len(steps), len(StepNumber)), np.float32)
        numbers[:, StepNumber.LEARNING_RATE] = rates
        numbers[:, StepNumber.WEIGHT_DECAY] = self.weight_decay
        numbers[:, StepNumber.MOMENTUM] = self.momentum
        numbers[:, StepNumber.AVERAGE] = average
        numbers[:, StepNumber.LAYER_DECAY] = self.layer_decay
        return numbers


def final_row(history: list[HistoryRow], stopping: Stopping | None) -> HistoryRow:
    """The row of the weights that training ended with: the last row, or the best one with early stopping."""
    if stopping is None:
        return history[-1]
    best = history[0]
    for row in history[1:]:
        if stopping.better(row.value(stopping.monitor), best.value(stopping.monitor)):
            best = row
    return best
