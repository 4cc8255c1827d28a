"""Trials as they stand in a study: what was tried, how it did, and which settings mattered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from frostline.search.rungs import Standing
from frostline.search.sampling import CHEAP, LOSSES, Points, Settings, in_memory, quiet, standings
from frostline.search.space import Dimension, Value

# The notes that are written to a trial.
WORKER, REASON, SAME_AS = "worker", "reason", "same_as"
SECONDS, RUN = "seconds", "mlflow.run_id"

STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}
OPTUNA_STATES = {name: state for state, name in STATES.items()}


@dataclass(frozen=True)
class TrialRecord:
    """A trial as it stands.

    state: complete, pruned, failed, running, paused or waiting; value: of the metric at the end, or the last one that
    was reported; reported: the metric by images seen; notes: what workers wrote to the trial; ended: local time.
    """

    number: int
    state: str
    values: dict[str, Value]
    value: float | None
    reported: dict[int, float]
    notes: dict[str, Any]
    ended: datetime | None

    @classmethod
    def of(cls, trial: FrozenTrial) -> TrialRecord:
        """The record of one of Optuna's trials."""
        reported = dict(trial.intermediate_values)
        value = trial.values[0] if trial.values else (reported[max(reported)] if reported else None)
        state = STATES[trial.state]
        if state == "waiting" and reported:
            state = "paused"
        notes = dict(trial.user_attrs)
        return cls(trial.number, state, dict(trial.params), value, reported, notes, trial.datetime_complete)

    @property
    def images_seen(self) -> int:
        """How many images the trial had trained on at its last report."""
        return max(self.reported, default=0)

    @property
    def reason(self) -> str | None:
        """Why the trial failed."""
        return self.notes.get(REASON)

    @property
    def same_as(self) -> int | None:
        """The number of the trial that this one repeats."""
        return self.notes.get(SAME_AS)

    @property
    def is_cheap(self) -> bool:
        """Whether the trial was trained to its end at once."""
        return CHEAP in self.notes

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will happen to the trial."""
        return self.state in {"complete", "pruned", "failed"}


def scores(records: Sequence[TrialRecord], settings: Settings) -> dict[int, list[Standing]]:
    """The standing of each trial at the rungs that it has reached; failed and repeated trials have none."""
    competitors = [record for record in records if record.state != "failed" and record.same_as is None]
    return {record.number: standings(settings, record.reported, record.notes.get(LOSSES, {})) for record in competitors}


def best(records: Sequence[TrialRecord], maximize: bool) -> TrialRecord | None:
    """The complete trial with the best value, the first of equals; None if no trial is complete."""
    complete = [record for record in records if record.state == "complete" and record.value is not None]
    sign = -1.0 if maximize else 1.0
    return min(complete, key=lambda record: (sign * (record.value or 0.0), record.number), default=None)


def ahead(records: Sequence[TrialRecord], state: str, maximize: bool) -> list[TrialRecord]:
    """The trials in a state whose value is better than that of the best complete trial, the best of them first."""
    sign = 1.0 if maximize else -1.0
    top = best(records, maximize)
    limit = -math.inf if top is None or top.value is None else sign * top.value
    values = {record.number: sign * record.value for record in records if record.value is not None}
    better = [record for record in records if record.state == state and values.get(record.number, -math.inf) > limit]
    return sorted(better, key=lambda record: (-values[record.number], record.number))


def importances(records: Sequence[TrialRecord], space: Sequence[Dimension], maximize: bool) -> dict[str, float]:
    """The share of each key in how the metric varies, most important first (PED-ANOVA: Watanabe et al., IJCAI 2023).

    Trials are compared after the largest number of images that all of them saw. The result is empty if there are too
    few trials.
    """
    scored = [record for record in records if record.reported and record.state != "failed"]
    common = set.intersection(*(set(record.reported) for record in scored)) if scored else set()
    if len(scored) < 4 or not common or len(space) < 2:
        return {}
    copy, points = in_memory(maximize), Points(space)
    for record in scored:
        params, value = points.places(record.values), record.reported[max(common)]
        copy.add_trial(optuna.trial.create_trial(params=params, distributions=points.distributions, value=value))
    try:
        with quiet():
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
            return dict(optuna.importance.get_param_importances(copy, evaluator=evaluator))
    except (ValueError, RuntimeError, ZeroDivisionError):  # all trials have the same value
        return {}
