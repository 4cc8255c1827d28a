"""A worker that leaves a study changes no run of a trial that another worker has."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from frostline.search.study_log import TRIAL, MlflowStudyLog
from frostline.search.trial_records import TrialRecord
from frostline.tracking.tracker import Tracker


def record(number, state, value=None):
    return TrialRecord(number, state, {}, value, {}, {}, None)


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        (["complete", "running", "paused"], {"none": "RUNNING", "0": "FINISHED", "1": "RUNNING", "2": "RUNNING"}),
        (["complete", "paused", "paused"], {"none": "KILLED", "0": "FINISHED", "1": "KILLED", "2": "KILLED"}),
        (["complete", "complete", "pruned"], {"none": "FINISHED", "0": "FINISHED", "1": "FINISHED", "2": "KILLED"}),
    ],
    ids=["others go on", "interrupted", "over"],
)
def test_only_trials_that_nobody_trains_are_killed(tmp_path, others, expected):
    import mlflow

    tracker = Tracker(f"sqlite:///{tmp_path}/mlflow.db", "tests", tmp_path / "artifacts", tmp_path / "state")
    study = SimpleNamespace(identity="study-1", name="study", alone=nullcontext)
    first, second = (MlflowStudyLog(tracker, study, {"sweep.trials": 3}) for _ in range(2))
    for number in range(3):
        first.begin(number, f"trial {number}", {"head.dropout": 0.5}, None)
    trials = [record(number, state, 0.5) for number, state in enumerate(others)]
    for trial in trials:
        if trial.is_finished:
            second.begin(trial.number, f"trial {trial.number}", {"head.dropout": 0.5}, None)
            second.end(trial)
    first.close(trials, None, tmp_path / "no reports")
    runs = mlflow.search_runs(experiment_names=["tests"], output_format="list")
    assert {run.data.tags[TRIAL]: run.info.status for run in runs} == expected
