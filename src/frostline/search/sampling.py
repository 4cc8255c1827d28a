"""Which point of the space to try next: Optuna's samplers, which also see paused trials and the order of values."""

from __future__ import annotations

import contextlib
import itertools
import math
import random
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from frostline.errors import ParamsError
from frostline.search.prior import CANDIDATES, PROPOSALS, STARTUP, Prior
from frostline.search.rungs import Standing
from frostline.search.space import Choice, Dimension, Value

# The notes of a trial: its validation losses by images seen; that it was trained to its end at once.
LOSSES, CHEAP = "val_losses", "cheap"

MOST_POINTS = 10_000  # of a space whose untried points are listed
ASKS = 8  # times that a sampler is asked for a point that was not tried yet


@dataclass(frozen=True)
class Settings:
    """How to search.

    trials: the budget; images: in the training split; epochs: of a whole trial; rungs: of `halving`, in images seen;
    by_loss: whether unfinished trials are compared by their validation loss, whatever the metric is. After few images
    a loss says more than an accuracy. prior: where the first points come from; None for the sampler alone.
    """

    trials: int
    sampler: str
    pruner: str
    maximize: bool
    seed: int
    images: int
    epochs: int
    rungs: tuple[int, ...]
    by_loss: bool
    prior: Prior | None = None


class Advisor(BaseSampler):
    """Asks Optuna's samplers, and shows them paused trials as trials with a value.

    The advice depends only on the seed, the trial's number and the study. So a sweep that was killed continues as if it
    had not been killed.
    """

    def __init__(self, settings: Settings, space: Sequence[Dimension]) -> None:
        self.settings, self.space = settings, space
        # The study, once it exists: what Optuna passes to a sampler may lack the trials of other brackets of Hyperband.
        self.study: optuna.Study | None = None

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {dimension.key: distribution(dimension) for dimension in self.space}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if self.settings.sampler == "grid":
            points_of_grid = grid(self.space)
            random.Random(self.settings.seed).shuffle(points_of_grid)
            return points_of_grid[trial.number % len(points_of_grid)]
        whole = self.study or study
        others = [other for other in whole.get_trials(deepcopy=False) if other.number != trial.number]
        tried = [other.params for other in others if other.params.keys() == search_space.keys()]
        untried = [point for point in finite_grid(self.space) if point not in tried] if tried else []
        for values in itertools.islice(self._points(trial.number, others, search_space.keys()), ASKS):
            if not untried or values not in tried:
                return values
        return random.Random(f"{self.settings.seed} {trial.number} untried").choice(untried)

    def _points(self, number: int, others: Sequence[FrozenTrial], keys: Collection[str]) -> Iterator[dict[str, Any]]:
        """Points for the trial with that number, each from other seeds; the first one that is new is taken."""
        settings, points = self.settings, Points(self.space)
        copy = in_memory(settings.maximize or bool(settings.rungs))
        for other in others:
            if other.distributions.keys() == keys and other.state != TrialState.FAIL:
                copy.add_trial(_at_rung(other, points, settings) if settings.rungs else _as_finished(other, points))
        prior = settings.prior
        if prior is None:
            yield from _asked(copy, points, settings, number)
            return
        is_even = number < STARTUP or settings.sampler == "random"
        proposed = _asked(copy, points, replace(settings, sampler="random") if is_even else settings, number)
        for ask in itertools.count():
            few = list(itertools.islice(proposed, CANDIDATES if is_even else PROPOSALS))
            yield prior.pick(few, number, random.Random(_seed(settings, number, ask)))

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        raise RuntimeError(f"{param_name} is not in the space")


def _asked(study: optuna.Study, points: Points, settings: Settings, number: int) -> Iterator[dict[str, Any]]:
    """What a sampler answers for the trial with that number, each time with another seed."""
    for ask in itertools.count():
        study.sampler = sampler(settings, number, ask)
        with quiet():
            yield points.values(study.ask(points.distributions).params)


def grid(space: Sequence[Dimension]) -> list[dict[str, Value]]:
    """All points. Raises ParamsError for a range without a step."""
    axes: list[list[Value]] = []
    for dimension in space:
        if isinstance(dimension, Choice):
            axes.append(list(dimension.values))
            continue
        step = dimension.step or (1 if dimension.is_whole and not dimension.log else None)
        if step is None:
            raise ParamsError(
                f"params.yaml: sweep.sampler grid needs values: give sweep.space.{dimension.key} a list or a step"
            )
        count = math.floor((dimension.high - dimension.low) / step + 1e-9) + 1
        ladder = [min(dimension.low + at * step, dimension.high) for at in range(count)]
        axes.append([int(value) if dimension.is_whole else value for value in ladder])
    keys = [dimension.key for dimension in space]
    return [dict(zip(keys, point, strict=True)) for point in itertools.product(*axes)]


def finite_grid(space: Sequence[Dimension]) -> list[dict[str, Value]]:
    """All points of a small space of lists and whole numbers; empty for any other space."""
    sizes = [
        len(dimension.values) if isinstance(dimension, Choice) else dimension.high - dimension.low + 1
        for dimension in space
    ]
    is_finite = all(isinstance(dimension, Choice) or dimension.is_whole or dimension.step for dimension in space)
    if not is_finite or math.prod(sizes) > MOST_POINTS:
        return []
    return grid([dimension if isinstance(dimension, Choice) else replace(dimension, log=False) for dimension in space])


def require_sampler(settings: Settings, space: Sequence[Dimension]) -> None:
    """Raises ParamsError if the sampler can't serve this space, or if its library is missing."""
    if settings.sampler == "grid":
        grid(space)
        if settings.prior:
            raise ParamsError(
                "params.yaml: sweep.prior choose has no use with sweep.sampler grid, which tries every point; set it "
                "to none"
            )
    if settings.sampler == "gp":
        try:
            import torch  # type: ignore[import-not-found,unused-ignore]  # noqa: F401
        except ImportError:
            raise ParamsError("params.yaml: sweep.sampler gp needs torch; install it, or set tpe") from None


class Points:
    """The space as samplers see it: they choose the position in an ordered list, and so know which values are near."""

    def __init__(self, space: Sequence[Dimension]) -> None:
        self.ordered = {
            dimension.key: dimension.values
            for dimension in space
            if isinstance(dimension, Choice) and dimension.is_ordered and len(dimension.values) > 1
        }
        self.distributions = {
            dimension.key: IntDistribution(0, len(self.ordered[dimension.key]) - 1)
            if dimension.key in self.ordered
            else distribution(dimension)
            for dimension in space
        }

    def places(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Turn values of params.yaml into positions."""
        return {k: self.ordered[k].index(value) if k in self.ordered else value for k, value in values.items()}

    def values(self, places: Mapping[str, Any]) -> dict[str, Any]:
        """The inverse of `places`."""
        return {k: self.ordered[k][place] if k in self.ordered else place for k, place in places.items()}


def _seed(settings: Settings, number: int, ask: int) -> int:
    return random.Random(f"{settings.seed} {number}" + f" {ask}" * bool(ask)).randrange(2**32)


def sampler(settings: Settings, number: int, ask: int) -> BaseSampler:
    """The sampler for the trial with that number; `ask` counts how often it was asked."""
    seed = _seed(settings, number, ask)
    if settings.sampler == "random":
        return optuna.samplers.RandomSampler(seed)
    if settings.sampler == "gp":
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=STARTUP)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP)


def distribution(dimension: Dimension) -> BaseDistribution:
    """The distribution of Optuna for a dimension."""
    if isinstance(dimension, Choice):
        return CategoricalDistribution(dimension.values)
    if dimension.is_whole:
        low, high = int(dimension.low), int(dimension.high)
        return IntDistribution(low, high, log=dimension.log, step=int(dimension.step or 1))
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log, step=dimension.step)


def in_memory(maximize: bool, sampler: BaseSampler | None = None) -> optuna.Study:
    """An empty study that is not stored."""
    return optuna.create_study(sampler=sampler, direction="maximize" if maximize else "minimize")


def standings(settings: Settings, reported: Mapping[int, float], losses: Mapping[str, float]) -> list[Standing]:
    """The scores of a trial at each rung up to its last report; more is better.

    If nothing was reported at a rung itself, the next report counts: batches of another size, or rungs from before a
    setting was changed, don't quite meet.
    """
    scores: list[Standing] = []
    for rung in settings.rungs:
        after = [place for place in reported if place >= rung]
        if not after:
            break
        place = min(after)
        metric = reported[place] if settings.maximize else -reported[place]
        loss = losses[str(place)]
        scores.append((-loss, metric) if settings.by_loss else (metric, -loss))
    return scores


def _at_rung(trial: FrozenTrial, points: Points, settings: Settings) -> FrozenTrial:
    """A trial with its score at the highest rung that it has reached, as if it had been pruned there.

    TPE takes a trial that came further for a better one, and compares those at one rung. A trial that went to its end
    because that was cheap has proved nothing by it, so it is shown at its first rung. `gp` knows no rungs, so every
    trial is shown to it in that way.
    """
    is_gp = settings.sampler == "gp"
    reached = standings(settings, trial.intermediate_values, trial.user_attrs.get(LOSSES, {}))
    scores = reached[:1] if is_gp or CHEAP in trial.user_attrs else reached
    values = {len(scores) - 1: scores[-1][0]} if scores else {}
    return optuna.trial.create_trial(
        state=(TrialState.COMPLETE if is_gp else TrialState.PRUNED) if values else TrialState.RUNNING,
        value=next(iter(values.values()), None),
        params=points.places(trial.params),
        distributions=points.distributions,
        intermediate_values=values,
    )


def _as_finished(trial: FrozenTrial, points: Points) -> FrozenTrial:
    """A trial as samplers understand it: a paused one counts as pruned."""
    is_paused = trial.state == TrialState.WAITING and trial.intermediate_values
    state = TrialState.PRUNED if is_paused else trial.state
    value = trial.values[0] if trial.values else None
    if state == TrialState.PRUNED and value is None and trial.intermediate_values:
        value = trial.intermediate_values[max(trial.intermediate_values)]
    return optuna.trial.create_trial(
        state=state,
        value=value,
        params=points.places(trial.params),
        distributions=points.distributions,
        intermediate_values=trial.intermediate_values,
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna's warnings about experimental arguments from the terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
