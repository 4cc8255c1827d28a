"""A study in MLflow: one parent run, one child a trial; written so that doing it again changes nothing.

The study in Optuna's storage is the truth. What a killed worker could not say any more, the next one adds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from frostline.phases import Row
from frostline.search import Study, Tried
from frostline.tracking import Tracker, reachable

STUDY, TRIAL, STATE, REASON, SAME_AS = (
    f"frostline.{name}" for name in ("study", "trial", "state", "reason", "same_as")
)

# MLflow's own words for how a run ended.
STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}


class StudyLog(Protocol):
    """Where a study's runs go."""

    def begin(self, number: int, name: str, settings: Mapping[str, Any], known: str | None) -> str | None:
        """The child run of a trial, made where there is none; its id. known: the id where the trial has it noted."""

    def rows(self, number: int, rows: list[Row]) -> None:
        """Record those epochs of a trial that are not recorded yet."""

    def end(self, trial: Tried) -> None:
        """Record how a trial ended, unless that is recorded."""

    def close(self, best: Tried | None, reports: Path, is_over: bool) -> None:
        """Record the best trial so far, and keep the folder of reports with the parent run."""


class NullStudyLog:
    """For those who switched tracking off."""

    def begin(self, number: int, name: str, settings: Mapping[str, Any], known: str | None) -> str | None:
        return None

    def rows(self, number: int, rows: list[Row]) -> None: ...
    def end(self, trial: Tried) -> None: ...
    def close(self, best: Tried | None, reports: Path, is_over: bool) -> None: ...


class MlflowStudyLog:
    """A study's runs in one experiment. parent: the parent run's id."""

    def __init__(self, experiment: str, study: Study, settings: Mapping[str, Any]) -> None:
        """settings: of the study as a whole, under dotted names."""
        from mlflow.tracking import MlflowClient

        self.client, self.experiment, self.study = MlflowClient(), experiment, study.identity
        self._children: dict[int, str] = {}
        self._known: dict[int, set[int]] = {}
        with study.alone():  # workers that start together make one parent
            self.parent = self._run("none", study.name, {}, settings)
        self.client.update_run(self.parent, status="RUNNING")

    def begin(self, number: int, name: str, settings: Mapping[str, Any], known: str | None) -> str | None:
        self._known.pop(number, None)  # another worker may have gone on with it
        tags = {"mlflow.parentRunId": self.parent}
        self._children[number] = known or self._run(str(number), name, tags, settings)
        return self._children[number]

    def rows(self, number: int, rows: list[Row]) -> None:
        from mlflow.entities import Metric

        run = self._children[number]
        if number not in self._known:
            self._known[number] = {metric.step for metric in self.client.get_metric_history(run, "val_loss")}
        now = int(time.time() * 1000)
        new = [row for row in rows if row["step"] not in self._known[number]]
        metrics = [
            Metric(key, value, now, row["step"])
            for row in new
            for key, value in row.items()
            if key not in {"step", "phase"}
        ]
        for start in range(0, len(metrics), 1000):  # MLflow takes no more at once
            self.client.log_batch(run, metrics[start : start + 1000])
        self._known[number] |= {row["step"] for row in new}

    def end(self, trial: Tried) -> None:
        run = self._children[trial.number]
        if self.client.get_run(run).info.status in STATUS.values():
            return
        if trial.value is not None:
            self.client.log_metric(run, "value", trial.value)
        notes = {STATE: trial.state, REASON: trial.reason, SAME_AS: trial.same_as}
        for key, value in notes.items():
            if value is not None:
                self.client.set_tag(run, key, value)
        self.client.set_terminated(run, STATUS[trial.state])

    def close(self, best: Tried | None, reports: Path, is_over: bool) -> None:
        if best is not None and best.value is not None:
            self.client.log_metric(self.parent, "best_value", best.value)
            self.client.set_tag(self.parent, "frostline.best_trial", best.number)
        if reports.is_dir():
            self.client.log_artifacts(self.parent, str(reports), "sweep")
        if is_over:
            self.client.set_terminated(self.parent, "FINISHED")

    def _run(self, trial: str, name: str, tags: Mapping[str, str], settings: Mapping[str, Any]) -> str:
        """The run of a trial, or of the whole study (`none`), made where there is none; with all its settings."""
        from mlflow.entities import Param

        filter_string = f"tags.`{STUDY}` = '{self.study}' and tags.`{TRIAL}` = '{trial}'"
        found = self.client.search_runs([self.experiment], filter_string, max_results=1)
        if found:
            run, there = found[0].info.run_id, found[0].data.params
        else:
            own = {**tags, STUDY: self.study, TRIAL: trial}
            run, there = self.client.create_run(self.experiment, tags=own, run_name=name).info.run_id, {}
        params = [
            Param(key, "null" if value is None else str(value)) for key, value in settings.items() if key not in there
        ]
        for start in range(0, len(params), 100):  # MLflow takes no more at once
            self.client.log_batch(run, params=params[start : start + 100])
        return str(run)


@contextmanager
def study_log(tracker: Tracker, study: Study, settings: Mapping[str, Any]) -> Iterator[StudyLog]:
    """The log of a study. Raises StateError where tracking can't be reached."""
    if tracker.uri == "none":
        yield NullStudyLog()
        return
    experiment = tracker.connect()
    with reachable(tracker.uri):
        yield MlflowStudyLog(experiment, study, settings)
