"""A worker that leaves a study changes no run of a trial that another worker has."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from conftest import make_row

from frostline.search.soup import Soup
from frostline.search.study_log import TRIAL, MlflowStudyLog
from frostline.search.trial_records import TrialRecord
from frostline.tracking.tracker import Tracker

SETTINGS = {"data.source": "data/digits.yaml", "sweep.trials": 3, "sweep.metric": "val_loss"}


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
    first, second = (MlflowStudyLog(tracker, study, SETTINGS) for _ in range(2))
    for number in range(3):
        first.begin(number, f"trial {number}", {"head.dropout": 0.5}, None)
    trials = [record(number, state, 0.5) for number, state in enumerate(others)]
    for trial in trials:
        if trial.is_finished:
            second.begin(trial.number, f"trial {trial.number}", {"head.dropout": 0.5}, None)
            second.end(trial)
    first.close(trials, None, tmp_path / "no reports", None)
    runs = mlflow.search_runs(experiment_names=["tests"], output_format="list")
    assert {run.data.tags[TRIAL]: run.info.status for run in runs} == expected


def test_the_objective_of_a_trial_is_the_first_metric_of_its_run(tmp_path):
    import mlflow

    tracker = Tracker(f"sqlite:///{tmp_path}/mlflow.db", "tests", tmp_path / "artifacts", tmp_path / "state")
    log = MlflowStudyLog(tracker, SimpleNamespace(identity="study-1", name="study", alone=nullcontext), SETTINGS)
    run = log.begin(0, "trial 0", {"head.dropout": 0.5}, None)
    log.rows(0, [make_row(step=1, val_loss=2.0), make_row(step=2, val_loss=3.0)])
    assert mlflow.MlflowClient().get_run(run).data.metrics["objective"] == 3.0
    log.end(record(0, "complete", 0.5))
    soup = Soup(0.9, 0.4, [0, 3], True, 0.8, 0.5, [])
    log.close([record(0, "complete", 0.5)], record(0, "complete", 0.5), tmp_path / "no reports", soup)
    child, parent = (mlflow.MlflowClient().get_run(each).data for each in (run, log.parent.id))
    assert parent.tags["mlflow.runName"] == "digits study"
    assert list(child.metrics) == ["objective", "val_accuracy", "val_loss", "train_accuracy", "train_loss"]
    assert child.metrics["objective"] == parent.metrics["objective"] == 0.5
    assert parent.metrics["objective_of_soup"] == 0.4
    assert parent.tags["frostline.soup"] == "trials 0, 3 and the head alone"
    assert child.params == {"head.dropout": "0.5"}
    assert log.view == f"mlflow ui --backend-store-uri 'sqlite:///{tmp_path}/mlflow.db'"
