"""A study in MLflow: one parent run, one child a trial; written so that doing it again changes nothing.

The study in Optuna's storage is the truth. What a killed worker could not say any more, the next one adds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from frostline.core.history import HistoryRow
from frostline.search.study import Study, Tried
from frostline.tracking.contact import Contact
from frostline.tracking.runs import TrackedRun, Wanted
from frostline.tracking.tracker import Tracker

STUDY, TRIAL, STATE, REASON, SAME_AS = (
    f"frostline.{name}" for name in ("study", "trial", "state", "reason", "same_as")
)

# MLflow's own words for how a run ended.
STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}


class StudyLog(Protocol):
    """Where a study's runs go."""

    def begin(self, number: int, name: str, settings: Mapping[str, Any], known: str | None) -> str | None:
        """The child run of a trial, made where there is none; its id. known: the id where the trial has it noted."""

    def rows(self, number: int, rows: Sequence[HistoryRow]) -> None:
        """Record those epochs of a trial that are not recorded yet."""

    def end(self, trial: Tried) -> None:
        """Record how a trial ended, unless that is recorded."""

    def close(self, best: Tried | None, reports: Path, is_over: bool) -> None:
        """Record the best trial so far, and keep the folder of reports with the parent run."""


class NullStudyLog:
    """For those who switched tracking off."""

    def begin(self, number: int, name: str, settings: Mapping[str, Any], known: str | None) -> str | None:
        return None

    def rows(self, number: int, rows: Sequence[HistoryRow]) -> None: ...
    def end(self, trial: Tried) -> None: ...
    def close(self, best: Tried | None, reports: Path, is_over: bool) -> None: ...


class MlflowStudyLog:
    """A study's runs in one experiment; what the server does not answer waits in their outboxes."""

    def __init__(self, tracker: Tracker, study: Study, settings: Mapping[str, Any]) -> None:
        """settings: of the study as a whole, under dotted names. Raises StateError where tracking is not reachable."""
        self.tracker, self.study = tracker, study.identity
        self.experiment, self.contact = tracker.connect(), Contact(tracker.uri)
        self._children: dict[int, TrackedRun] = {}
        with study.alone():  # workers that start together make one parent
            self.parent = tracker.run(self._wanted("none", study.name, {}), self.contact)
        self.parent.params(settings)
        self.parent.status("RUNNING")

    def begin(self, number: int, name: str, settings: Mapping[str, Any], known: str | None) -> str | None:
        child = self._children.get(number)
        if child is None or child.outbox.is_empty:  # opened anew, because another worker may have worked on it
            wanted = self._wanted(str(number), name, {"mlflow.parentRunId": str(self.parent.id)}, known)
            child = self._children[number] = self.tracker.run(wanted, self.contact, may_be_away=True)
        child.params(settings)
        return child.id

    def rows(self, number: int, rows: Sequence[HistoryRow]) -> None:
        self._children[number].epochs(rows)

    def end(self, trial: Tried) -> None:
        run = self._children[trial.number]
        if run.state.has_ended:
            return
        if trial.value is not None:
            run.metrics({"value": trial.value})
        notes = {STATE: trial.state, REASON: trial.reason, SAME_AS: trial.same_as}
        run.tags({key: str(value) for key, value in notes.items() if value is not None})
        run.status(STATUS[trial.state])

    def close(self, best: Tried | None, reports: Path, is_over: bool) -> None:
        if best is not None and best.value is not None:
            self.parent.metrics({"best_value": best.value})
            self.parent.tags({"frostline.best_trial": str(best.number)})
        if reports.is_dir():
            self.parent.files(sorted(reports.iterdir()), "sweep")
        if is_over:
            self.parent.status("FINISHED")
        self.contact.retry()
        waiting = [run for run in (*self._children.values(), self.parent) if not run.close()]
        if waiting:
            self.tracker.warn_of_kept()

    def _wanted(self, trial: str, name: str, tags: Mapping[str, str], known: str | None = None) -> Wanted:
        """The run of a trial, or of the whole study (`none`)."""
        find = f"tags.`{STUDY}` = '{self.study}' and tags.`{TRIAL}` = '{trial}'"
        return Wanted(self.experiment, find, name, {**tags, STUDY: self.study, TRIAL: trial}, id=known)


def study_log(tracker: Tracker, study: Study, settings: Mapping[str, Any]) -> StudyLog:
    """The log of a study. Raises StateError where tracking is not reachable."""
    return NullStudyLog() if tracker.uri == "none" else MlflowStudyLog(tracker, study, settings)
