"""Learning rates over a phase, by the names, arguments and formulas of `keras.optimizers.schedules`.

Where Keras counts steps one may write `decay_epochs` for `decay_steps`, `warmup_epochs`, `first_decay_epochs` and
`boundary_epochs`; the initial rate is the phase's learning rate, and a decay that is not given a length ends with the
phase.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from inspect import Parameter, signature
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frostline.errors import ParamsError

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Schedule:
    """One of Keras's schedules, with its arguments in the order of their names; lengths as they were written."""

    name: str
    arguments: tuple[tuple[str, Any], ...] = ()

    @property
    def is_absolute(self) -> bool:
        """Whether it names learning rates, instead of what becomes of the phase's own."""
        return self.name == "PiecewiseConstantDecay"

    def rates(self, steps: NDArray[Any], per_epoch: int, epochs: int, top: float) -> Values:
        """The learning rate at each step, float64, steps counted from 0 over a phase of so many epochs.

        top: the phase's learning rate; what a warm-up leads to, and what all others begin with.
        """
        lengths = {f"{length}_steps": 1 for length in LENGTHS} | {f"{length}_epochs": per_epoch for length in LENGTHS}
        given = {}
        for key, value in self.arguments:
            unit = lengths.get(key)
            known = key if unit is None else key.rpartition("_")[0]
            given[known] = value if unit is None else np.multiply(value, unit)
        return FORMULAS[self.name](np.asarray(steps, np.float64), max(1, per_epoch * epochs), top, **given)


def parse(written: str | Mapping[str, Mapping[str, Any]]) -> Schedule:
    """The schedule that params.yaml describes: `constant`, `cosine`, or one of Keras's names with its arguments.

    Raises ParamsError for an unknown name or argument, one that is missing, and a value of the wrong kind.
    """
    words = {"constant": "Constant", "cosine": "CosineDecay"}
    where = "params.yaml: finetune.schedule"
    if isinstance(written, str):
        if written not in (*words, *FORMULAS):
            near = get_close_matches(written, [*words, *FORMULAS], n=1, cutoff=0.0)
            raise ParamsError(f"{where} {written!r} is not known; did you mean {near[0]}?")
        name, arguments = words.get(written, written), dict[str, Any]()
    elif len(written) != 1:
        raise ParamsError(f"{where} names {len(written)} schedules; name one, as {{CosineDecay: {{warmup_epochs: 2}}}}")
    else:
        ((name, given),) = written.items()
        arguments = dict(given)
    if name not in FORMULAS:
        near = get_close_matches(name, FORMULAS, n=1, cutoff=0.0)
        raise ParamsError(f"{where}.{name} is not one of Keras's schedules; did you mean {near[0]}?")
    known = [each for each in signature(FORMULAS[name]).parameters.values() if each.kind is Parameter.KEYWORD_ONLY]
    spelt = {spelling: each for each in known for spelling in _spellings(each.name)}
    for key, value in arguments.items():
        if key not in spelt:
            near = get_close_matches(key, spelt, n=1, cutoff=0.0)
            mend = f"did you mean {near[0]}?" if near else "remove it"
            raise ParamsError(f"{where}.{name}.{key} is no argument of that schedule; {mend}")
        _require_kind(f"{where}.{name}.{key}", spelt[key], value)
    for each in known:
        if each.default is Parameter.empty and not any(spelling in arguments for spelling in _spellings(each.name)):
            raise ParamsError(f"{where}.{name}.{_spellings(each.name)[0]} is missing; add it")
    frozen = {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
    schedule = Schedule(name, tuple(sorted(frozen.items())))
    if name == "PiecewiseConstantDecay" and len(frozen["values"]) != len(_boundaries(frozen)) + 1:
        raise ParamsError(f"{where}.{name}.values must be one more than the boundaries, for before the first of them")
    return schedule


def table(rates: Mapping[int, float], top: float) -> Schedule:
    """What `LearningRateScheduler` does with a table: from each epoch (from 0) on its rate, before the first `top`."""
    epochs = sorted(rates)
    values = tuple(rates[epoch] for epoch in epochs)
    # Keras's boundaries belong to what goes before them.
    ends = tuple(epoch - 1e-9 for epoch in epochs)
    return Schedule("PiecewiseConstantDecay", (("boundary_epochs", ends), ("values", (top, *values))))


def _constant(steps: Values, whole: int, top: float) -> Values:
    return np.full(len(steps), top)


def _cosine(
    steps: Values,
    whole: int,
    top: float,
    *,
    decay: float | None = None,
    alpha: float = 0.0,
    warmup: float = 0.0,
    initial_learning_rate: float = 0.0,
) -> Values:
    """Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017, without restarts."""
    length = max(1.0, whole - warmup if decay is None else decay)
    done = np.clip((steps - warmup) / length, 0, 1)
    falling = top * ((1 - alpha) * (1 + np.cos(np.pi * done)) / 2 + alpha)
    rising = initial_learning_rate + (top - initial_learning_rate) * steps / max(1.0, warmup)
    return np.where(steps < warmup, rising, falling)


def _restarts(
    steps: Values, whole: int, top: float, *, first_decay: float, t_mul: float = 2.0, m_mul: float = 1.0,
    alpha: float = 0.0,
) -> Values:  # fmt: skip
    done = steps / first_decay
    if t_mul == 1:
        restart = np.floor(done)
        done = done - restart
    else:
        restart = np.floor(np.log(1 - done * (1 - t_mul)) / np.log(t_mul))
        done = (done - (1 - t_mul**restart) / (1 - t_mul)) / t_mul**restart
    return top * ((1 - alpha) * m_mul**restart * (1 + np.cos(np.pi * done)) / 2 + alpha)


def _exponential(
    steps: Values, whole: int, top: float, *, decay_rate: float, decay: float | None = None, staircase: bool = False
) -> Values:
    done = steps / (whole if decay is None else decay)
    return top * decay_rate ** (np.floor(done) if staircase else done)


def _inverse(
    steps: Values, whole: int, top: float, *, decay_rate: float, decay: float | None = None, staircase: bool = False
) -> Values:
    done = steps / (whole if decay is None else decay)
    return top / (1 + decay_rate * (np.floor(done) if staircase else done))


def _polynomial(
    steps: Values, whole: int, top: float, *, decay: float | None = None, end_learning_rate: float = 0.0001,
    power: float = 1.0, cycle: bool = False,
) -> Values:  # fmt: skip
    length = np.asarray(whole if decay is None else decay, float)
    if cycle:
        length = length * np.maximum(1, np.ceil(steps / length))
    left = 1 - np.minimum(steps, length) / length
    return (top - end_learning_rate) * left**power + end_learning_rate


def _piecewise(steps: Values, whole: int, top: float, *, boundary: list[float], values: list[float]) -> Values:
    return np.asarray(values, float)[np.searchsorted(boundary, steps, side="left")]


FORMULAS: dict[str, Callable[..., Values]] = {
    "Constant": _constant,
    "CosineDecay": _cosine,
    "CosineDecayRestarts": _restarts,
    "ExponentialDecay": _exponential,
    "InverseTimeDecay": _inverse,
    "PolynomialDecay": _polynomial,
    "PiecewiseConstantDecay": _piecewise,
}

# Arguments that are lengths, in steps or in epochs.
LENGTHS = ("decay", "warmup", "first_decay", "boundary")


def _spellings(name: str) -> list[str]:
    """How an argument may be written."""
    if name not in LENGTHS:
        return [name]
    return [f"{name}_epochs", f"{name}_steps"]


def _boundaries(arguments: Mapping[str, Any]) -> Any:
    return next(arguments[key] for key in _spellings("boundary") if key in arguments)


def _require_kind(where: str, parameter: Parameter, value: Any) -> None:
    def is_number(one: Any, least: float = 0.0) -> bool:
        return isinstance(one, int | float) and not isinstance(one, bool) and one >= least

    if parameter.annotation == "bool":
        fits, wanted = isinstance(value, bool), "true or false"
    elif parameter.annotation == "list[float]":
        fits, wanted = isinstance(value, list | tuple) and all(map(is_number, value)), "a list of numbers"
    elif parameter.name in LENGTHS and parameter.name != "warmup":
        fits, wanted = is_number(value, 1e-9), "more than 0"
    else:
        fits, wanted = is_number(value), "a number from 0 on"
    if not fits:
        raise ParamsError(f"{where} must be {wanted}, not {value!r}")
