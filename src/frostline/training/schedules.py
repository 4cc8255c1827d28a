"""Learning rates over a phase, by the formulas of `keras.optimizers.schedules`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frostline.params.schedules import (
    Cosine,
    CosineRestarts,
    Exponential,
    Flat,
    InverseTime,
    Piecewise,
    Polynomial,
    Schedule,
)

Values = NDArray[np.float64]


def rates(schedule: Schedule, steps: NDArray[Any], per_epoch: int, epochs: int, top: float) -> Values:
    """The learning rate at each step, float64, steps counted from 0 over a phase of so many epochs.

    per_epoch: steps; top: the phase's learning rate: what a warm-up leads to, and what all others begin with.
    """
    lengths = {}
    for name in type(schedule).model_fields:
        length, _, unit = name.rpartition("_")
        if unit in {"steps", "epochs"} and (given := getattr(schedule, name)) is not None:
            lengths[length] = np.multiply(given, per_epoch if unit == "epochs" else 1)
    whole = max(1, per_epoch * epochs)
    return FORMULAS[type(schedule)](schedule, np.asarray(steps, np.float64), whole, top, **lengths)


def table(given: Mapping[int, float], top: float) -> Piecewise:
    """What `LearningRateScheduler` does with a table: from each epoch (from 0) on its rate, before the first `top`."""
    epochs = sorted(given.keys() - {0})
    # Keras's boundaries belong to what goes before them.
    ends = tuple(epoch - 1e-9 for epoch in epochs)
    return Piecewise(boundary_epochs=ends, values=(given.get(0, top), *(given[epoch] for epoch in epochs)))


def _constant(schedule: Flat, steps: Values, whole: int, top: float) -> Values:
    return np.full(len(steps), top)


def _cosine(
    schedule: Cosine, steps: Values, whole: int, top: float, decay: float | None = None, warmup: float = 0.0
) -> Values:
    """Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017, without restarts."""
    length = max(1.0, whole - warmup if decay is None else decay)
    done = np.clip((steps - warmup) / length, 0, 1)
    falling = top * ((1 - schedule.alpha) * (1 + np.cos(np.pi * done)) / 2 + schedule.alpha)
    initial = schedule.initial_learning_rate
    rising = initial + (top - initial) * steps / max(1.0, warmup)
    return np.where(steps < warmup, rising, falling)


def _restarts(schedule: CosineRestarts, steps: Values, whole: int, top: float, first_decay: float) -> Values:
    alpha, t_mul = schedule.alpha, schedule.t_mul
    done = steps / first_decay
    if t_mul == 1:
        restart = np.floor(done)
        done = done - restart
    else:
        restart = np.floor(np.log(1 - done * (1 - t_mul)) / np.log(t_mul))
        done = (done - (1 - t_mul**restart) / (1 - t_mul)) / t_mul**restart
    return top * ((1 - alpha) * schedule.m_mul**restart * (1 + np.cos(np.pi * done)) / 2 + alpha)


def _exponential(schedule: Exponential, steps: Values, whole: int, top: float, decay: float | None = None) -> Values:
    done = steps / (whole if decay is None else decay)
    return top * schedule.decay_rate ** (np.floor(done) if schedule.staircase else done)


def _inverse(schedule: InverseTime, steps: Values, whole: int, top: float, decay: float | None = None) -> Values:
    done = steps / (whole if decay is None else decay)
    return top / (1 + schedule.decay_rate * (np.floor(done) if schedule.staircase else done))


def _polynomial(schedule: Polynomial, steps: Values, whole: int, top: float, decay: float | None = None) -> Values:
    length = np.asarray(whole if decay is None else decay, float)
    if schedule.cycle:
        length = length * np.maximum(1, np.ceil(steps / length))
    left = 1 - np.minimum(steps, length) / length
    return (top - schedule.end_learning_rate) * left**schedule.power + schedule.end_learning_rate


def _piecewise(schedule: Piecewise, steps: Values, whole: int, top: float, boundary: Values) -> Values:
    return np.asarray(schedule.values, float)[np.searchsorted(boundary, steps, side="left")]


FORMULAS: dict[type[Schedule], Callable[..., Values]] = {
    Flat: _constant,
    Cosine: _cosine,
    CosineRestarts: _restarts,
    Exponential: _exponential,
    InverseTime: _inverse,
    Polynomial: _polynomial,
    Piecewise: _piecewise,
}
