"""`frostline sweep` for real: on images that a network learns in a few epochs, in Optuna's storages and in MLflow."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import optuna
import pandas as pd
import pytest
from conftest import ROOT, make_params, make_shards
from ruamel.yaml import YAML

from frostline import paths
from frostline.commands import sweep
from frostline.core import digest
from frostline.errors import ParamsError, UserError
from frostline.params.schema import Params, load
from frostline.search import study
from frostline.search.trial_records import TrialRecord
from frostline.search.worker import Worker
from frostline.stages import finetune
from frostline.tracking import tracker as tracking

pytestmark = pytest.mark.process

SPACE = {
    "finetune.freeze": ["block4_out", "block6_out", "block7_out"],
    "finetune.learning_rate": {"low": 1e-4, "high": 3e-2, "log": True},
}
QUICK = {
    "data__image_size": 32,
    "data__resize": "stretch",
    "augment__copies": 0,
    "finetune__head_epochs": 2,
    "finetune__epochs": 3,
    "finetune__batch_size": 2,
    "finetune__learning_rate": 1e-3,
    "sweep__trials": 5,
    "sweep__metric": "val_loss",
    "sweep__space": SPACE,
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with prepared images and no test split, which is the project root."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    make_shards(tmp_path / "data" / "prepared" / "train", 42)
    make_shards(tmp_path / "data" / "prepared" / "val", 18, seed=99)
    (tmp_path / "data" / "augmented").mkdir()
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # MLflow itself sets it, and it would point to another test's database
    yield tmp_path
    os.environ.pop("MLFLOW_TRACKING_URI", None)


def params(**changes):
    """params.yaml of the project, in whose file it is written too."""
    made = make_params(**{**QUICK, **changes})
    shutil.copy(ROOT / "params.yaml", "params.yaml")
    with open("params.yaml", "w") as file:
        YAML(typ="safe").dump(made.model_dump(mode="json"), file)
    return made


def trials(state=".frostline/optuna.db"):
    (summary,) = optuna.get_all_study_summaries(f"sqlite:///{state}")
    return optuna.load_study(study_name=summary.study_name, storage=f"sqlite:///{state}").get_trials()


def runs(given: Params):
    from mlflow.tracking import MlflowClient

    tracker = tracking.tracker(given.tracking)
    experiment = tracker.connect()
    return list(MlflowClient().search_runs([experiment], max_results=1000))


def test_a_sweep_from_its_first_trial_to_the_training_that_repeats_the_best(project, capsys):
    """The test split is not there at all: nothing can have looked at it."""
    given = params(tracking__uri="auto")
    text = sweep.run(given)
    assert text.startswith("sweep: 5 of 5 trials (")
    known = trials()
    assert [trial.number for trial in known] == [0, 1, 2, 3, 4]
    assert {trial.state.name for trial in known} == {"COMPLETE", "PRUNED"}

    reports = project / "reports" / "sweep"
    assert {path.name for path in reports.iterdir()} >= {
        "trials.csv",
        "best_params.yaml",
        "history.png",
        "slices.png",
        "frost_line.png",
        "importance.png",
    }
    table = pd.read_csv(reports / "trials.csv")
    best = table[table["state"] == "complete"].sort_values(["value", "number"]).iloc[0]
    values = YAML(typ="safe").load(reports / "best_params.yaml")
    assert values == {key: best[key] for key in SPACE}  # to the last digit
    assert (table["epochs"] <= 3).all()
    assert (table["epochs"] < 3).any()  # something was pruned within the phase

    children = {run.data.tags["frostline.trial"]: run for run in runs(given)}
    parent = children.pop("none")
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["objective"] == pytest.approx(best["value"], abs=1e-6)
    assert set(children) == {str(number) for number in range(5)}
    for trial in known:
        run = children[str(trial.number)]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.info.status == {"COMPLETE": "FINISHED", "PRUNED": "KILLED"}[trial.state.name]
        assert run.data.tags["frostline.state"] == trial.state.name.lower()
        assert run.data.params["finetune.freeze"] == str(trial.params["finetune.freeze"])
        assert trial.user_attrs["mlflow.run_id"] == run.info.run_id
        assert run.data.metrics["objective"] == pytest.approx(table["value"][trial.number], abs=1e-6)

    capsys.readouterr()
    again = sweep.run(given, apply=True)  # nothing is left to do but to apply
    assert again.startswith(text.splitlines()[0])
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert len(runs(given)) == 6
    applied = load(Path("params.yaml"))
    assert applied.finetune.freeze == best["finetune.freeze"]
    assert applied.finetune.learning_rate == pytest.approx(best["finetune.learning_rate"], rel=1e-8)

    finetune.run(applied)
    history = pd.read_csv(paths.HISTORY)
    assert history["val_loss"].iloc[-1] == pytest.approx(best["value"], abs=1e-6)
    (run,) = [run for run in runs(given) if "frostline.job" in run.data.tags]
    assert run.data.tags["frostline.trial"] == str(int(best["number"]))
    assert run.data.tags["frostline.study"] == parent.data.tags["frostline.study"]

    longer = params(tracking__uri="auto", sweep__trials=7)
    capsys.readouterr()
    outcome = json.loads(sweep.run(longer, as_json=True))
    assert capsys.readouterr().out == ""
    assert sum(outcome["trials"].values()) == 7
    assert outcome["best"]["value"] == min(trial.value for trial in trials() if trial.state.name == "COMPLETE")
    assert [trial.params for trial in trials()[:5]] == [trial.params for trial in known]


def test_a_paused_trial_that_is_ahead_of_the_best_is_not_given_up():
    def record(number, state, value):
        return TrialRecord(number, state, {}, value, {50: value} if value else {}, {}, None)

    trials = [
        record(0, "complete", 0.9216),
        record(1, "paused", 0.9346),
        record(2, "paused", 0.93),
        record(3, "paused", 0.9216),
        record(4, "pruned", 0.99),
        record(5, "waiting", None),
    ]
    for maximize, expected in ((True, [1, 2]), (False, [])):
        settings = SimpleNamespace(maximize=maximize)
        worker = Worker(None, None, None, SimpleNamespace(settings=settings), None, None, None)
        assert worker._ahead_of_the_best(trials) == expected


def test_a_trial_that_diverges_is_recorded_and_the_search_goes_on(project):
    given = params(
        tracking__uri="auto",
        sweep__space={"finetune.learning_rate": [1e-3, 1e30]},
        sweep__sampler="grid",
        sweep__trials=2,
        finetune__optimizer="sgd",
        finetune__freeze="block6_out",
    )
    text = sweep.run(given)
    assert "1 complete, 1 failed" in text
    (failed,) = [trial for trial in trials() if trial.state.name == "FAIL"]
    assert "the loss became" in failed.user_attrs["reason"]
    (run,) = [run for run in runs(given) if run.data.tags.get("frostline.state") == "failed"]
    assert run.info.status == "FAILED"
    assert run.data.tags["frostline.reason"] == failed.user_attrs["reason"]


def test_where_every_trial_fails_the_search_ends_with_the_reason(project):
    ruin = {"finetune.learning_rate": {"low": 1e30, "high": 1e32, "log": True}}
    with pytest.raises(UserError, match=r"the first 3 trials failed, the last one because .*loss became"):
        sweep.run(params(sweep__space=ruin, finetune__optimizer="sgd", finetune__freeze="block6_out"))


@pytest.mark.parametrize(
    "changes",
    [
        {
            "sweep__pruner": "median",
            "sweep__sampler": "random",
            "sweep__metric": "val_loss",
        },
        pytest.param({"sweep__pruner": "hyperband"}, marks=pytest.mark.slow),
        {
            "sweep__pruner": "none",
            "sweep__sampler": "grid",
            "sweep__trials": 6,
            "augment__copies": 1,
            "sweep__space": {"augment.rotation": [0, 20], "head.dropout": [0.0, 0.5]},
            "finetune__freeze": "all",
        },
        {
            "sweep__storage": "journal",
            "finetune__epochs": 0,
            "sweep__space": {"finetune.head_learning_rate": [1e-3, 1e-2]},
        },
    ],
    ids=lambda changes: str(changes.get("sweep__pruner", "halving")),
)
def test_other_samplers_pruners_and_spaces(project, changes):
    given = params(**changes)
    if given.augment.copies:
        from frostline.stages import augment

        augment.run(given)
    text = sweep.run(given)
    assert f"{given.sweep.trials} of {given.sweep.trials} trials" in text
    table = pd.read_csv(project / "reports" / "sweep" / "trials.csv")
    assert set(table["state"]) <= {"complete", "pruned"}
    complete = table[table["state"] == "complete"]
    best = complete["value"].max() if given.sweep.metric == "val_accuracy" else complete["value"].min()
    assert f"{given.sweep.metric} {best:.4f}" in text
    repeats = table[table["same_as"].notna()]
    for _, row in repeats.iterrows():  # answered from memory, with the value that was found
        first = table[table["number"] == row["same_as"]].iloc[0]
        assert [first[key] for key in given.sweep.space] == [row[key] for key in given.sweep.space]
        assert first["value"] == row["value"]
    if given.sweep.sampler == "grid":
        assert len(repeats) == 2


def test_with_a_prior_the_first_trial_is_the_one_that_is_believed_in(project, capsys):
    given = params(sweep__prior="choose", sweep__trials=2, finetune__epochs=1)
    sweep.run(given)
    line = capsys.readouterr().out.splitlines()[0]
    assert re.fullmatch(
        r"prior: few, (un)?like: \d+% of the compute frozen, learning rate about 3e-04 \(60 images probed\)", line
    )
    first = trials()[0].params
    assert first["finetune.freeze"] in SPACE["finetune.freeze"]
    assert 1.5e-4 < first["finetune.learning_rate"] < 6e-4


@pytest.mark.parametrize("prior", ["none", pytest.param("choose", marks=pytest.mark.slow)])
def test_several_backbones_are_searched_with_their_own_weights(project, capsys, prior):
    lines = ["all"] if prior == "none" else {"auto": 3}
    space = {"backbone.name": ["frostnet", "EfficientNetLite0"], "finetune.freeze": lines}
    given = params(sweep__prior=prior, sweep__trials=2, finetune__epochs=1, sweep__space=space)
    text = sweep.run(given, apply=True)
    if prior == "choose":
        assert re.match(r"prior: few, (un)?like: (frostnet|EfficientNetLite0), \d+% of", capsys.readouterr().out)
    found = trials()
    assert {trial.params["finetune.freeze"] for trial in found} <= {"none", "50%", "all"}
    assert len({tuple(trial.params.values()) for trial in found}) == 2, "no point twice while others are untried"
    applied = load(Path("params.yaml"))
    best = min((trial for trial in found if trial.state.name == "COMPLETE"), key=lambda trial: trial.value)
    assert applied.backbone.name == best.params["backbone.name"]
    assert applied.backbone.weights == {"frostnet": "builtin", "EfficientNetLite0": "imagenet"}[applied.backbone.name]
    again = sweep.run(applied)
    assert again.splitlines()[0] == text.splitlines()[0], "the study of these backbones, whichever was applied"
    assert len(trials()) == 2


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"backbone.name": ["frostnet", "MobileNetV2"]}, "MobileNetV2.*weights"),
        ({"backbone.name": ["frostnet", "frostnett"]}, "'frostnett' is not known; did you mean frostnet"),
        ({"backbone.name": {"low": 1, "high": 2}}, "sweep.space.backbone.name needs a list of names"),
        (
            {"backbone.name": ["frostnet", "EfficientNetLite0"], "finetune.freeze": ["block4_out"]},
            "'block4_out' is not",
        ),
    ],
)
def test_backbones_that_cannot_be_searched_are_refused(project, space, message):
    with pytest.raises(UserError, match=message):
        sweep.run(params(sweep__space=space))
    assert not Path(".frostline/optuna.db").exists()


def test_interrupted_between_training_and_telling_nothing_is_lost_or_doubled(project, monkeypatch):
    """The moment after a trial's last report: it must not be taken for one that has lost."""
    given = params(tracking__uri="auto")
    sweep.run(given)
    before = {run.info.run_id for run in runs(given)}
    straight = [(trial.state, trial.params, trial.value, trial.intermediate_values) for trial in trials()]
    shutil.rmtree(project / ".frostline")

    tell, told = study.Study.finish, []

    def interrupted(self, trial, state, value=None):
        told.append(state)
        if len(told) in {1, 3}:
            raise KeyboardInterrupt
        tell(self, trial, state, value)

    monkeypatch.setattr(study.Study, "finish", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            sweep.run(given)
        assert "RUNNING" not in {run.info.status for run in runs(given)}
    sweep.run(given)
    assert [(trial.state, trial.params, trial.value, trial.intermediate_values) for trial in trials()] == straight
    found = [run for run in runs(given) if run.info.run_id not in before]
    assert sorted(run.data.tags["frostline.trial"] for run in found) == ["0", "1", "2", "3", "4", "none"]
    children = [run for run in found if run.data.tags["frostline.trial"] != "none"]
    assert all(run.data.params and run.info.status in {"FINISHED", "KILLED"} for run in children)
    assert [run.info.status for run in found if run.data.tags["frostline.trial"] == "none"] == ["FINISHED"]
    for run in children:
        assert (run.info.status == "FINISHED") == (run.data.tags["frostline.state"] == "complete")


@pytest.mark.slow
def test_a_study_that_is_begun_anew_takes_nothing_from_the_one_before(project):
    given = params(tracking__uri="auto", sweep__timeout=4.0)
    sweep.run(given)
    Path(".frostline/optuna.db").unlink()  # snapshots and runs of the first one are still there
    again = params(tracking__uri="auto")
    sweep.run(again)
    values = [trial.value for trial in trials()]
    shutil.rmtree(project / ".frostline")
    sweep.run(params())
    assert [trial.value for trial in trials()] == values
    parents = [run for run in runs(again) if run.data.tags["frostline.trial"] == "none"]
    assert len(parents) == 2


def test_a_wrong_space_is_refused_before_anything_is_made(project):
    with pytest.raises(ParamsError, match=r"finetune.freeze 'block9' is not a layer"):
        sweep.run(params(sweep__space={"finetune.freeze": ["block9", "all"]}))
    assert not (project / ".frostline" / "optuna.db").exists()
    assert not (project / "reports").exists()


@pytest.mark.slow
def test_the_time_limit_ends_a_search_that_can_be_gone_on_with(project):
    text = sweep.run(params(sweep__timeout=1e-3))
    assert text.startswith("sweep: 0 of 5 trials")
    assert "run `frostline sweep` again to resume" in text
    assert sweep.run(params()).startswith("sweep: 5 of 5")


@pytest.mark.slow
def test_killed_ten_times_a_sweep_ends_as_if_it_had_not_been(project):
    given = params(tracking__uri="auto", sweep__trials=20, data__source="data/prepared")
    rng = random.Random(3)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    for _ in range(10):
        process = subprocess.Popen(
            [sys.executable, "-m", "frostline", "sweep"], env=environment, stdout=subprocess.PIPE, text=True
        )
        for line in process.stdout:
            if line.startswith("sweep: study"):
                break
        time.sleep(rng.uniform(0.0, 4.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    text = sweep.run(given)
    assert text.startswith("sweep: 20 of 20")
    killed = trials()
    assert [trial.number for trial in killed] == list(range(20))
    assert {trial.state.name for trial in killed} == {"COMPLETE", "PRUNED"}
    points = [tuple(trial.params.values()) for trial in killed if "same_as" not in trial.user_attrs]
    assert len(set(points)) == len(points)
    children = [run for run in runs(given) if run.data.tags["frostline.trial"] != "none"]
    assert sorted(int(run.data.tags["frostline.trial"]) for run in children) == list(range(20))
    assert {run.info.status for run in children} <= {"FINISHED", "KILLED"}
    for run in children:
        trial = killed[int(run.data.tags["frostline.trial"])]
        assert run.data.tags["frostline.state"] == trial.state.name.lower()

    shutil.rmtree(project / ".frostline")
    sweep.run(params(sweep__trials=20))  # once more, in one go
    straight = trials()
    assert [trial.params for trial in straight] == [trial.params for trial in killed]
    assert [trial.intermediate_values for trial in straight] == [trial.intermediate_values for trial in killed]
    assert [trial.value for trial in straight] == [trial.value for trial in killed]


@pytest.mark.slow
def test_memory_stays_flat_over_two_hundred_trials(project):
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    numbers = {
        "head.dropout": {"low": 0.0, "high": 0.6},
        "finetune.weight_decay": {"low": 1e-6, "high": 1e-1, "log": True},
        "finetune.momentum": {"low": 0.1, "high": 0.95},
        "finetune.label_smoothing": {"low": 0.0, "high": 0.2},
    }
    one = {
        "sweep__space": {**SPACE, **numbers},
        "sweep__pruner": "none",
        "sweep__metric": "val_accuracy",
        "finetune__optimizer": "sgd",
        "finetune__epochs": 1,
        "finetune__batch_size": 16,
    }
    sweep.run(params(sweep__trials=60, **one))
    before = resident()
    sweep.run(params(sweep__trials=200, **one))
    assert len(trials()) == 200
    assert resident() - before < 150


def test_the_data_of_a_sweep_are_what_dvc_would_train_on(project, monkeypatch):
    """In a project with a dvc.yaml the stages before are brought up to date first; a failure there is one line."""
    (project / "dvc.yaml").write_text("stages: {augment: {cmd: 'false'}}\n")
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], check=True)
    with pytest.raises(UserError, match="`dvc repro augment` failed"):
        sweep.run(params())
    assert digest.of_folder(project / "data" / "prepared" / "train")
