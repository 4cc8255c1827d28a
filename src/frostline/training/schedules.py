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
    """The learning rate at each step, float64. steps: counted from 0 at the start of the phase.

    per_epoch: steps per epoch; epochs: of the phase; top: the learning rate of the phase, at which a warm-up ends and
    all other schedules begin.
    """
    lengths = {}
    for name in type(schedule).model_fields:
        length, _, unit = name.rpartition("_")
        if unit in {"steps", "epochs"} and (value := getattr(schedule, name)) is not None:
            lengths[length] = np.multiply(value, per_epoch if unit == "epochs" else 1)
    whole = max(1, per_epoch * epochs)
    return FORMULAS[type(schedule)](schedule, np.asarray(steps, np.float64), whole, top, **lengths)


def table(rates: Mapping[int, float], top: float) -> Piecewise:
    """The schedule of `LearningRateScheduler` with a table: each rate holds from its epoch on (the first is 0), and
    `top` before the first one."""
    epochs = sorted(rates.keys() - {0})
    # In Keras, a boundary belongs to the interval before it.
    ends = tuple(epoch - 1e-9 for epoch in epochs)
    return Piecewise(boundary_epochs=ends, values=(rates.get(0, top), *(rates[epoch] for epoch in epochs)))


def _constant(schedule: Flat, steps: Values, whole: int, top: float) -> Values:
    return np.full(len(steps), top)


def _cosine(
    schedule: Cosine, steps: Values, whole: int, top: float, decay: float | None = None, warmup: float = 0.0
) -> Values:
    """Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017, without restarts."""
    length = max(1.0, whole - warmup if decay is None else decay)
    progress = np.clip((steps - warmup) / length, 0, 1)
    decreasing = top * ((1 - schedule.alpha) * (1 + np.cos(np.pi * progress)) / 2 + schedule.alpha)
    initial = schedule.initial_learning_rate
    increasing = initial + (top - initial) * steps / max(1.0, warmup)
    return np.where(steps < warmup, increasing, decreasing)


def _restarts(schedule: CosineRestarts, steps: Values, whole: int, top: float, first_decay: float) -> Values:
    alpha, t_mul = schedule.alpha, schedule.t_mul
    progress = steps / first_decay
    if t_mul == 1:
        restart = np.floor(progress)
        progress = progress - restart
    else:
        restart = np.floor(np.log(1 - progress * (1 - t_mul)) / np.log(t_mul))
        progress = (progress - (1 - t_mul**restart) / (1 - t_mul)) / t_mul**restart
    return top * ((1 - alpha) * schedule.m_mul**restart * (1 + np.cos(np.pi * progress)) / 2 + alpha)


def _exponential(schedule: Exponential, steps: Values, whole: int, top: float, decay: float | None = None) -> Values:
    progress = steps / (whole if decay is None else decay)
    return top * schedule.decay_rate ** (np.floor(progress) if schedule.staircase else progress)


def _inverse(schedule: InverseTime, steps: Values, whole: int, top: float, decay: float | None = None) -> Values:
    progress = steps / (whole if decay is None else decay)
    return top / (1 + schedule.decay_rate * (np.floor(progress) if schedule.staircase else progress))


def _polynomial(schedule: Polynomial, steps: Values, whole: int, top: float, decay: float | None = None) -> Values:
    length = np.asarray(whole if decay is None else decay, float)
    if schedule.cycle:
        length = length * np.maximum(1, np.ceil(steps / length))
    remaining = 1 - np.minimum(steps, length) / length
    return (top - schedule.end_learning_rate) * remaining**schedule.power + schedule.end_learning_rate


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
