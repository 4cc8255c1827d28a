"""A study in MLflow: one parent run, one child a trial; writing it again changes nothing.

The study in Optuna's storage is the truth. What a killed worker could not log, the next one adds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from frostline.core.history import HistoryRow
from frostline.search.soup import Soup
from frostline.search.study import Study
from frostline.search.trial_records import TrialRecord
from frostline.tracking import compared, run_log
from frostline.tracking.contact import Contact
from frostline.tracking.run_writer import RunSpec
from frostline.tracking.runs import TrackedRun
from frostline.tracking.tracker import Tracker

STUDY, TRIAL, STATE, REASON, SAME_AS = (
    f"frostline.{name}" for name in ("study", "trial", "state", "reason", "same_as")
)

# The metric that the study is about: of a trial, and of the whole study its best one. MLflow compares runs by the
# metric that was logged first, until one chooses another.
OBJECTIVE = "objective"
SOUP = "objective_of_soup"

# MLflow's own words for how a run ended.
STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}


class StudyLog(Protocol):
    """Where a study's runs go."""

    @property
    def view(self) -> str | None:
        """Where to look at the study: a page, or the command that opens MLflow's UI; None if tracking is off."""

    def begin(self, number: int, name: str, settings: Mapping[str, Any], run: str | None) -> str | None:
        """Open the child run of a trial, or create it; returns its id. run: the id that the trial has noted, if any."""

    def rows(self, number: int, rows: Sequence[HistoryRow]) -> None:
        """Record the epochs of a trial that are not recorded yet."""

    def end(self, trial: TrialRecord) -> None:
        """Record how a trial ended, unless it is recorded already."""

    def close(self, trials: Sequence[TrialRecord], best: TrialRecord | None, reports: Path, soup: Soup | None) -> None:
        """Record the best trial so far, its soup and how the study stands; keep the reports with the parent run."""


class NullStudyLog:
    """Records nothing: tracking is switched off."""

    view = None

    def begin(self, number: int, name: str, settings: Mapping[str, Any], run: str | None) -> str | None:
        return None

    def rows(self, number: int, rows: Sequence[HistoryRow]) -> None: ...
    def end(self, trial: TrialRecord) -> None: ...
    def close(
        self, trials: Sequence[TrialRecord], best: TrialRecord | None, reports: Path, soup: Soup | None
    ) -> None: ...


class MlflowStudyLog:
    """The runs of a study in one experiment. What the server does not accept waits in the outboxes of the runs."""

    def __init__(self, tracker: Tracker, study: Study, settings: Mapping[str, Any]) -> None:
        """settings: of the study as a whole, under dotted names. Raises StateError if tracking is not reachable."""
        self.tracker, self.study, self.metric = tracker, study.identity, settings["sweep.metric"]
        self.experiment, self.contact = tracker.connect(), Contact(tracker.uri)
        self._children: dict[int, TrackedRun] = {}
        with study.alone():  # workers that start together make one parent
            name = f"{run_log.data_name(settings['data.source'])} {study.name}"
            self.parent = tracker.run(self._spec("none", name, {}), self.contact)
        self.parent.params(compared.params(settings))
        self.parent.document(run_log.SETTINGS, {"settings": dict(settings)})
        self.parent.status("RUNNING")

    @property
    def view(self) -> str | None:
        return self.tracker.view(self.parent)

    def begin(self, number: int, name: str, settings: Mapping[str, Any], run: str | None) -> str | None:
        child = self._children.get(number)
        if child is None or child.outbox.is_empty:  # opened anew, because another worker may have worked on it
            spec = self._spec(str(number), name, {"mlflow.parentRunId": str(self.parent.id)}, run)
            child = self._children[number] = self.tracker.run(spec, self.contact, may_be_away=True)
            if child.state.has_ended and STATE not in child.state.tags:
                child.status("RUNNING")
        child.params(settings)
        return child.id

    def rows(self, number: int, rows: Sequence[HistoryRow]) -> None:
        if rows:
            self._children[number].metrics({OBJECTIVE: rows[-1].value(self.metric)})
        self._children[number].epochs(rows)

    def end(self, trial: TrialRecord) -> None:
        run = self._children[trial.number]
        if STATE in run.state.tags:
            return
        if trial.value is not None:
            run.metrics({OBJECTIVE: trial.value})
        notes = {STATE: trial.state, REASON: trial.reason, SAME_AS: trial.same_as}
        run.tags({key: str(value) for key, value in notes.items() if value is not None})
        run.status(STATUS[trial.state])

    def close(self, trials: Sequence[TrialRecord], best: TrialRecord | None, reports: Path, soup: Soup | None) -> None:
        if best is not None and best.value is not None:
            self.parent.metrics({OBJECTIVE: best.value})
            self.parent.tags({"frostline.best_trial": str(best.number)})
        if soup is not None:
            self.parent.metrics({SOUP: soup.value(self.metric)})
            self.parent.tags({"frostline.soup": soup.words})
        if reports.is_dir():
            self.parent.files(sorted(reports.iterdir()), "sweep")
        unfinished = [trial for trial in trials if not trial.is_finished]
        if not unfinished:
            self.parent.status("FINISHED")
        elif all(trial.state != "running" for trial in unfinished):  # no other worker goes on
            for run in (self._children[trial.number] for trial in unfinished if trial.number in self._children):
                run.status("KILLED")  # the worker that resumes the trial sets it to running again
            self.parent.status("KILLED")
        self.contact.retry()
        waiting = [run for run in (*self._children.values(), self.parent) if not run.close()]
        if waiting:
            self.tracker.warn_of_outbox()

    def _spec(self, trial: str, name: str, tags: Mapping[str, str], run: str | None = None) -> RunSpec:
        """The run of a trial, or of the whole study (`none`)."""
        find = f"tags.`{STUDY}` = '{self.study}' and tags.`{TRIAL}` = '{trial}'"
        return RunSpec(self.experiment, find, name, {**tags, STUDY: self.study, TRIAL: trial}, id=run)


def study_log(tracker: Tracker, study: Study, settings: Mapping[str, Any]) -> StudyLog:
    """The log of a study. Raises StateError if tracking is not reachable."""
    return NullStudyLog() if tracker.uri == "none" else MlflowStudyLog(tracker, study, settings)
