import dataclasses
import json
import multiprocessing
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
import workspace
from conftest import make_params

from frostline.errors import StateError, UnreachableError
from frostline.tracking import checkup, compared, lineage, local_database, run_log
from frostline.tracking import tracker as tracking
from frostline.tracking.runs import NullRun
from frostline.training import job


@pytest.fixture(scope="module")
def tracker(tmp_path_factory):
    root = tmp_path_factory.mktemp("tracking")
    return tracking.Tracker(f"sqlite:///{root}/mlflow.db", "tests", root / "artifacts", root / "lock")


def runs(tracker):
    import mlflow

    mlflow.set_tracking_uri(tracker.uri)
    return mlflow.search_runs(experiment_names=[tracker.experiment], output_format="list", order_by=["start_time"])


def test_a_run_keeps_what_it_is_given(tracker, tmp_path):
    (tmp_path / "a.txt").write_text("a")
    with tracker.training("job-1", "name") as run:
        assert run.state.is_new
        run.params({"finetune.freeze": "all", "backbone.until": None})
        for step in (1, 2):
            run.metrics({"val_loss": 1 / step}, step)
        run.dataset("data/digits.yaml", "ab" * 32, "training", {"images": 100, "classes": 10})
        run.document("settings.json", {"rate": 1, "storage": "postgresql://me:secret@host/db"})
        run.document("settings.json", {"rate": 2, "storage": "postgresql://me:secret@host/db"})
        run.files([tmp_path / "a.txt"])
        run.tags({tracking.BUNDLE: "bundle-1"})
    (found,) = [r for r in runs(tracker) if r.data.tags[tracking.JOB] == "job-1"]
    assert found.info.status == "FINISHED"
    assert found.data.params == {"finetune.freeze": "all", "backbone.until": "null"}
    assert found.data.metrics == {"val_loss": 0.5}
    (dataset,) = found.inputs.dataset_inputs
    assert dataset.dataset.digest == "ab" * 16
    assert json.loads(dataset.dataset.profile) == {"images": 100, "classes": 10}
    import mlflow

    steps = mlflow.MlflowClient().get_metric_history(found.info.run_id, "val_loss")
    assert [metric.step for metric in steps] == [1, 2]
    client = mlflow.MlflowClient()
    assert [file.path for file in client.list_artifacts(found.info.run_id)] == ["a.txt", "settings.json"]
    path = client.download_artifacts(found.info.run_id, "settings.json", str(tmp_path))
    assert json.loads(Path(path).read_text()) == {"rate": 2, "storage": "postgresql://***@host/db"}


def test_the_evaluation_goes_to_the_run_that_made_the_bundle(tracker):
    before = len(runs(tracker))
    with tracker.result("bundle-1", "other name") as run:
        run.metrics({"test_accuracy": 0.9})
    assert len(runs(tracker)) == before
    (found,) = [r for r in runs(tracker) if r.data.tags.get(tracking.BUNDLE) == "bundle-1"]
    assert found.data.metrics["test_accuracy"] == 0.9
    assert found.info.run_name == "name"
    with tracker.result("unknown bundle", "from elsewhere"):
        pass
    assert len(runs(tracker)) == before + 1


@pytest.mark.process
def test_a_killed_training_goes_on_in_its_run_and_a_failed_one_does_not(tracker):
    code = (
        "import sys, json, os; from pathlib import Path; from frostline.tracking.tracker import Tracker\n"
        "uri, experiment, artifacts, lock = json.loads(sys.argv[1])\n"
        "with Tracker(uri, experiment, Path(artifacts), Path(lock)).training('killed', 'n') as run:\n"
        "    run.params({'seed': 7}); run.metrics({'loss': 1.0}, 1)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    place = json.dumps([tracker.uri, tracker.experiment, str(tracker.artifacts), str(tracker.state)])
    assert subprocess.run([sys.executable, "-c", code, place]).returncode == -9
    with tracker.training("killed", "n") as run:
        assert not run.state.is_new
        run.metrics({"loss": 0.5}, 2)
    (found,) = [r for r in runs(tracker) if r.data.tags.get(tracking.JOB) == "killed"]
    assert found.info.status == "FINISHED"
    with pytest.raises(ValueError, match="broken"), tracker.training("killed", "n"):
        raise ValueError("broken")
    statuses = sorted(r.info.status for r in runs(tracker) if r.data.tags.get(tracking.JOB) == "killed")
    assert statuses == ["FAILED", "FINISHED"]


def test_a_training_that_ended_is_not_gone_on_with_while_it_is_evaluated(tracker):
    with tracker.training("ended", "n") as run:
        run.tags({tracking.BUNDLE: "ended-bundle"})
    import mlflow

    (ended,) = [r for r in runs(tracker) if r.data.tags.get(tracking.JOB) == "ended"]
    mlflow.MlflowClient().update_run(ended.info.run_id, status="RUNNING")  # as while, or when killed in, evaluate
    with tracker.training("ended", "n") as run:
        assert run.state.is_new


def test_files_that_are_gone_do_not_stop_a_run(tracker, tmp_path):
    with tracker.training("gone", "n") as run:
        run.files([tmp_path / "no-such-file"])


def _begin(uri, root, number):
    with tracking.Tracker(uri, "crowd", Path(root), Path(root) / "lock").training(str(number), "n") as run:
        run.metrics({"loss": 1.0})


@pytest.mark.process
def test_processes_that_start_on_a_fresh_database_do_not_collide(tmp_path):
    uri = f"sqlite:///{tmp_path}/fresh.db"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_begin, args=(uri, str(tmp_path), i)) for i in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]


def test_tracking_that_cannot_be_reached_is_one_line(tmp_path):
    from mlflow.store.db import utils

    assert utils.MAX_RETRY_COUNT in {10, tracking.DATABASE_TRIES}  # the name that MLflow 3.17 has for it
    (tmp_path / "file").touch()
    for uri, message in {
        f"sqlite:///{tmp_path}/file/m.db": "can't be made",
        "postgresql://me:secret@127.0.0.1:1/m": r"//\*\*\*@127.0.0.1:1/m: tracking is not reachable .*_TRACKING_URI",
    }.items():
        broken = tracking.Tracker(uri, "e", tmp_path, tmp_path / "lock")
        with pytest.raises(StateError, match=message) as error, broken.training("job", "n"):
            pass
        assert "\n" not in str(error.value)
        assert "secret" not in str(error.value)


def test_tracking_switched_off_takes_everything(tmp_path):
    off = tracking.Tracker("none", "e", tmp_path, tmp_path / "lock")
    with off.training("job", "n") as run, off.result("bundle", "n") as result:
        run.params({"a": 1})
        result.metrics({"a": 1.0})
    assert list(tmp_path.iterdir()) == []


def test_the_environment_goes_before_params(monkeypatch, tmp_path):
    from conftest import make_params

    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking.tracker(make_params(tracking__uri="auto").tracking).uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert tracking.tracker(make_params(tracking__uri="http://127.0.0.1:1").tracking).uri == "http://127.0.0.1:1"
    relative = make_params(tracking__uri="sqlite:///runs/m.db").tracking
    assert tracking.tracker(relative).uri == f"sqlite:///{tmp_path}/runs/m.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:2")
    assert tracking.tracker(make_params(tracking__uri="auto").tracking).uri == "http://127.0.0.1:2"
    assert tracking.tracker(make_params(tracking__uri="none").tracking).uri == "none"


def test_a_training_that_is_interrupted_and_resumed_is_one_run(tracker):
    def statuses():
        return [r.info.status for r in runs(tracker) if r.data.tags.get(tracking.JOB) == "interrupted"]

    def interrupted_at(step):
        with tracker.training("interrupted", "n") as run:
            run.metrics({"loss": 0.5}, step)
            raise KeyboardInterrupt

    for step in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            interrupted_at(step)
        assert statuses() == ["KILLED"]
    with tracker.training("interrupted", "n") as run:
        assert statuses() == ["RUNNING"]
        run.tags({tracking.BUNDLE: "interrupted-bundle"})
    assert statuses() == ["FINISHED"]


def test_mlflows_variables_are_used_or_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "of the environment")
    monkeypatch.setenv("MLFLOW_RUN_ID", "a" * 32)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "7")
    tracking._warn_of_unused_variables.cache_clear()
    settings = make_params(tracking__uri="auto").tracking
    chosen = tracking.tracker(settings)
    tracking.tracker(settings)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" is set")[0] for line in lines] == ["warning: MLFLOW_RUN_ID", "warning: MLFLOW_EXPERIMENT_ID"]
    with chosen.training("job-env", "name") as run:
        assert run.id != "a" * 32
    (found,) = runs(chosen)
    assert (found.info.status, found.info.run_name) == ("FINISHED", "name")
    assert chosen.experiment == "of the environment"


def test_a_deleted_experiment_is_one_line_with_the_ways_out(tmp_path):
    import mlflow

    deleted = tracking.Tracker(f"sqlite:///{tmp_path}/mlflow.db", "gone", tmp_path / "artifacts", tmp_path / "state")
    mlflow.MlflowClient(deleted.uri).delete_experiment(deleted.connect())
    with pytest.raises(
        StateError, match=r"tracking.experiment: gone was deleted in MLflow; restore it .* another name"
    ):
        deleted.connect()


def test_an_evaluation_of_a_finished_run_does_not_move_its_end(tracker):
    with tracker.training("ended early", "n") as run:
        run.tags({tracking.BUNDLE: "ended-early"})
    (before,) = [r for r in runs(tracker) if r.data.tags.get(tracking.JOB) == "ended early"]
    with tracker.result("ended-early", "n") as run:
        run.metrics({"test_accuracy": 0.5})
        run.tags({"more": "later"})
    (after,) = [r for r in runs(tracker) if r.data.tags.get(tracking.JOB) == "ended early"]
    assert after.info.end_time == before.info.end_time


def test_lineage_says_commit_dirt_and_experiment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert lineage.tags(tmp_path / "dvc.lock", []) == {}
    for command in ("init -q", "add .", "-c user.name=n -c user.email=e commit -q -m m"):
        (tmp_path / "code.py").write_text("1")
        (tmp_path / "reports").mkdir(exist_ok=True)
        (tmp_path / "reports" / "r.json").write_text("1")
        subprocess.run(["git", *command.split()], check=True, env={**os.environ, "GIT_CONFIG_GLOBAL": os.devnull})
    reports = (tmp_path / "reports").relative_to(tmp_path)
    clean = lineage.tags(tmp_path / "dvc.lock", [reports])
    assert len(clean["frostline.git_commit"]) == 40
    (tmp_path / "reports" / "r.json").write_text("2")
    assert lineage.tags(tmp_path / "dvc.lock", [reports])["frostline.git_dirty"] == "false"
    (tmp_path / "code.py").write_text("2")
    monkeypatch.setenv("DVC_EXP_NAME", "thaw")
    tags = lineage.tags(tmp_path / "dvc.lock", [reports])
    assert tags["frostline.git_dirty"] == "true"
    assert tags["DVC_EXP_NAME"] == "thaw"


@pytest.mark.process
def test_telemetry_is_off(tracker):
    code = (
        "import sys, json; from pathlib import Path; from frostline.tracking.tracker import Tracker\n"
        "uri, experiment, artifacts, lock = json.loads(sys.argv[1])\n"
        "with Tracker(uri, experiment, Path(artifacts), Path(lock)).training('quiet', 'n'): pass\n"
        "from mlflow.telemetry.client import get_telemetry_client\n"
        "print(get_telemetry_client())\n"
    )
    place = json.dumps([tracker.uri, tracker.experiment, str(tracker.artifacts), str(tracker.state)])
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "CI", "PYTEST"))}
    done = subprocess.run([sys.executable, "-c", code, place], capture_output=True, text=True, env=environment)
    assert done.stdout.split() == ["None"], done.stderr


def test_a_run_is_named_by_its_data_its_settings_and_its_experiment(monkeypatch):
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    dense = make_params(finetune__freeze="block6_out", finetune__learning_rate=0.0003)
    assert run_log.name(dense) == "digits frostnet freeze=block6_out lr=0.0003"
    for source, data in {"data/clothing-small": "clothing-small", "photos.tar.gz": "photos", "a/b/": "b"}.items():
        knn = make_params(finetune__freeze="all", head__classifier="knn", data__source=source)
        made_from = workspace.made_from(head=knn.head.model_dump())
        assert run_log.name(knn) == run_log.name_of(made_from, source, None) == f"{data} frostnet knn"
    monkeypatch.setenv("DVC_EXP_NAME", "puffy-seal")
    assert run_log.name(dense).endswith(" lr=0.0003 puffy-seal")


def test_a_run_is_seen_on_its_page_or_by_a_command(monkeypatch, tmp_path):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    run = SimpleNamespace(id="r1", experiment="7")

    def view(uri, run=run):
        return tracking.Tracker(uri, "e", tmp_path, tmp_path).view(run)

    assert view("https://me:secret@host:5000/") == "https://host:5000/#/experiments/7/runs/r1"
    assert view("http://host", NullRun()) == "http://host"
    assert view(f"sqlite:///{tmp_path}/mlflow.db") == "mlflow ui --backend-store-uri sqlite:///mlflow.db"
    (tmp_path / "Makefile").touch()
    assert view(f"sqlite:///{tmp_path}/mlflow.db") == "make ui"
    assert view("sqlite:////data/m.db") == "mlflow ui --backend-store-uri 'sqlite:////data/m.db'"
    assert view("none") is None


def test_params_are_what_runs_are_compared_by_and_what_is_not_as_usual():
    def params(**changes):
        return compared.params(run_log.flat(job.settings(make_params(**changes))))

    usual = params()
    assert set(usual) == set(compared.COMPARED)  # those of params.yaml: no other value there is unusual
    assert 25 <= len(usual) <= 32
    for key, value in {"augment.rotation": 30, "backbone.until": "block4_out", "data.class_level": 2}.items():
        assert params(**{key.replace(".", "__"): value}) == {**usual, key: value}
    warm = params(finetune__schedule={"CosineDecay": {"warmup_epochs": 2}})
    assert warm["finetune.schedule.CosineDecay.warmup_epochs"] == 2


def test_what_is_wrong_with_the_databases_file_is_told_and_not_that_a_server_is_away(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 1000)
    broken = tracking.Tracker(f"sqlite:///{tmp_path}/mlflow.db", "tests", tmp_path / "artifacts", tmp_path / "lock")
    with pytest.raises(StateError, match=r"mlflow\.db: is not a database; move it away \(its runs are lost") as caught:
        broken.connect()
    assert not isinstance(caught.value, UnreachableError)


def test_a_setting_that_changed_meanwhile_is_told_and_kept_beside_the_first_value(tracker, capsys):
    with tracker.training("changed", "n") as run:
        run.params({"data.source": "a", "seed": 7})
    import mlflow

    mlflow.MlflowClient().set_terminated(run.id, "KILLED")
    with tracker.training("changed", "n") as run, tracker.training("changed", "n") as other:
        run.params({"data.source": "b", "seed": 7, "new": 1})
        other.params({"new": 2, "newer": 3})  # it was opened before the first one had a value of it
    (found,) = [r for r in runs(tracker) if r.data.tags.get(tracking.JOB) == "changed"]
    assert found.info.status == "FINISHED"
    assert found.data.params == {"data.source": "a", "seed": "7", "new": "1", "newer": "3"}
    changed = {key: value for key, value in found.data.tags.items() if key.startswith("frostline.changed.")}
    assert changed == {"frostline.changed.data.source": "b", "frostline.changed.new": "2"}
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "data.source = a (now b)" in lines[0]
    assert "new = 1 (now 2)" in lines[1]


@pytest.mark.parametrize(
    ("revision", "says"),
    [
        ("ffffffffffff", r"made by a newer MLflow than \S+, .*; `pip install --upgrade mlflow`"),
        (
            "older",
            r"made by an older MLflow than \S+, .*; keep a copy of it, then run `mlflow db upgrade 'sqlite:.*db'`",
        ),
    ],
)
def test_a_database_of_another_mlflow_is_one_line_with_the_fix(tmp_path, tracker, revision, says):
    from alembic.script import ScriptDirectory
    from mlflow.store.db import utils

    tracker.connect()
    if revision == "older":
        script = ScriptDirectory.from_config(utils._get_alembic_config(db_url=""))
        revision = script.get_revision(utils._get_latest_schema_revision()).down_revision
    shutil.copy(local_database.file_of(tracker.uri), tmp_path / "mlflow.db")
    other = dataclasses.replace(tracker, uri=f"sqlite:///{tmp_path}/mlflow.db")
    execute(tmp_path / "mlflow.db", f"UPDATE alembic_version SET version_num = '{revision}'")
    with pytest.raises(StateError, match=says) as caught:
        other.connect()
    assert not isinstance(caught.value, UnreachableError)
    execute(tmp_path / "mlflow.db", "DROP TABLE assessments")  # so that MLflow tries to bring it up to date itself
    if revision == "ffffffffffff":
        with pytest.raises(StateError, match=says):
            other.connect()


def execute(database, statement):
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(statement)


def test_a_folder_in_the_place_of_the_database_is_one_line(tmp_path):
    (tmp_path / "mlflow.db").mkdir()
    blocked = tracking.Tracker(f"sqlite:///{tmp_path}/mlflow.db", "e", tmp_path / "artifacts", tmp_path / "state")
    with pytest.raises(StateError, match=r"mlflow\.db: is a folder, where MLflow's database belongs; move it away"):
        blocked.connect()


ATTEMPT = """
import sys
from pathlib import Path
from conftest import make_params
from frostline.errors import StateError
from frostline.tracking import checkup, tracker
root, place, mode = Path.cwd(), sys.argv[1], int(sys.argv[2], 8)
settings = make_params(tracking__uri="auto").tracking
def train():
    with tracker.tracker(settings).training("job", "n"):
        pass
(root / place).chmod(mode)
for action in (lambda: checkup.line(settings), train):
    try:
        action()
        print("works")
    except StateError as error:
        print(str(error).removeprefix(f"{root}/"))
"""
# Root may read and write everything, unless its process has given that up.
AS_ANYBODY = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []
WRITTEN = "mlflow.db: can't be written; change its permissions, or set tracking.uri to another place"
OPENED = WRITTEN.replace("written; change its permissions", "opened; make its folder, and both readable and writable")
FILES = "mlartifacts: is not writable; fix its permissions, or choose another place"


@pytest.mark.process
@pytest.mark.skipif(bool(AS_ANYBODY) and shutil.which("setpriv") is None, reason="root without setpriv")
@pytest.mark.parametrize(
    ("place", "mode", "says"),
    [
        ("mlflow.db", "444", [WRITTEN, WRITTEN]),
        ("mlflow.db", "000", [WRITTEN, OPENED]),
        ("mlartifacts", "555", [FILES, FILES]),
        ("mlartifacts", "755", ["works", "works"]),
    ],
)
def test_what_may_not_be_read_or_written_is_named_before_a_training_starts(tmp_path, monkeypatch, place, mode, says):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracking.tracker(make_params(tracking__uri="auto").tracking).connect()
    (tmp_path / "mlartifacts").mkdir(exist_ok=True)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    command = [*AS_ANYBODY, sys.executable, "-c", ATTEMPT, place, mode]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    (tmp_path / place).chmod(0o755)
    assert done.stdout.splitlines()[-2:] == says, done.stderr
    assert "Traceback" not in done.stderr


def test_doctor_names_the_place_of_the_runs_and_what_is_wrong_with_it(monkeypatch, tmp_path, tracker):
    import mlflow

    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    settings = make_params(tracking__uri="auto").tracking
    assert checkup.line(make_params().tracking) == "tracking: off (tracking.uri is none)"
    assert checkup.line(settings) == f"tracking: the first run makes {tmp_path}/mlflow.db"
    assert not (tmp_path / "mlflow.db").exists()
    chosen = tracking.tracker(settings)
    chosen.connect()
    assert checkup.line(settings) == f"tracking: sqlite:///{tmp_path}/mlflow.db, experiment frostline"
    mlflow.MlflowClient(chosen.uri).delete_experiment(chosen.connect())
    with pytest.raises(StateError, match="frostline was deleted in MLflow"):
        checkup.line(settings)
    tracker.connect()
    (tmp_path / "second").mkdir()
    shutil.copy(local_database.file_of(tracker.uri), tmp_path / "second" / "mlflow.db")
    execute(tmp_path / "second" / "mlflow.db", "UPDATE alembic_version SET version_num = 'ffffffffffff'")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "second"))
    with pytest.raises(StateError, match="made by a newer MLflow"):
        checkup.line(settings)
