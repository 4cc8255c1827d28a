"""What a run records arrives once, whether its server was there all the time, away for a while, or until later."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import workspace
from conftest import make_bundle, make_row
from mlflow_server import Server

from frostline.core.history import HistoryRow
from frostline.errors import StateError, UnreachableError
from frostline.params.schema import load
from frostline.serving import packaging
from frostline.stages import evaluate
from frostline.tracking import contact, outbox
from frostline.tracking.tracker import BUNDLE, JOB, Tracker

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server, and calls to it that are not repeated: that is MLflow's own, and costs seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        patch.setattr(contact, "PAUSE", 0.0)
        made = Server(tmp_path_factory.mktemp("server"))
        made.start()
        yield made
        made.kill()


@pytest.fixture
def tracker(server: Server, tmp_path: Path) -> Tracker:
    return Tracker(server.uri, "tests", tmp_path / "artifacts", tmp_path / "state")


def rows(*steps: int) -> list[HistoryRow]:
    return [make_row(step=step, epoch=step, loss=1 / step) for step in steps]


def client() -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient()


def found(job: str) -> Any:
    """The one run of a job."""
    (experiment,) = [known for known in client().search_experiments() if known.name == "tests"]
    (run,) = client().search_runs([experiment.experiment_id], f"tags.`{JOB}` = '{job}'")
    return run


def steps(run: Any, key: str) -> list[int]:
    return [metric.step for metric in client().get_metric_history(run.info.run_id, key)]


def test_a_server_that_is_away_for_a_while_loses_nothing_and_doubles_nothing(
    server: Server, tracker: Tracker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "history.csv").write_text("first")
    bundle = make_bundle(tmp_path / "bundle", ("cat", "dog"))
    with tracker.training("restarted", "n") as run:
        run.params({"seed": 7, "backbone.until": None})
        run.epochs(rows(1))
        server.kill()
        run.epochs(rows(2))
        run.tags({"plan": "p"})
        run.dataset("data/digits.yaml", "ab" * 32, "training", {"images": 100, "classes": 10})
        run.document("settings.json", {"seed": 7})
        run.files([tmp_path / "history.csv", tmp_path / "gone"], "reports")
        (tmp_path / "history.csv").unlink()  # what waits is what it was, also where a stage has written it anew
        (tmp_path / "history.csv").write_text("second")
        run.model(bundle)
        server.start()
        run.epochs(rows(2, 3))
        run.metrics({"test_accuracy": 0.5})
    printed, said = capsys.readouterr()
    assert "View run" not in printed  # by MLflow: frostline names a run's page itself
    assert said.count("tracking is not reachable") == 1
    assert "the work continues" in said
    run = found("restarted")
    assert run.info.status == "FINISHED"
    assert run.data.params == {"seed": "7", "backbone.until": "null"}
    assert steps(run, "train_loss") == steps(run, "val_accuracy") == [1, 2, 3]
    assert set(run.data.metrics) == {"train_loss", "train_accuracy", "val_loss", "val_accuracy", "test_accuracy"}
    assert run.data.metrics["test_accuracy"] == 0.5
    assert run.data.tags["plan"] == "p"
    assert len(run.inputs.dataset_inputs) == 1
    assert packaging.logged(client(), run) is not None
    assert len(run.outputs.model_outputs) == 1
    path = client().download_artifacts(run.info.run_id, "reports/history.csv", str(tmp_path))
    assert Path(path).read_text() == "first"
    assert list((tmp_path / "state" / "outbox").glob("*")) == []


def test_a_server_that_stays_away_gets_everything_from_the_next_command(
    server: Server, tracker: Tracker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tracker.training("kept", "n") as run:
        run.epochs(rows(1))
        server.kill()
        run.epochs(rows(2))
        run.tags({BUNDLE: "b"})
    assert "the records are kept in" in capsys.readouterr().err
    assert len(list((tmp_path / "state" / "outbox").glob("*"))) == 1
    with pytest.raises(UnreachableError, match="tracking is not reachable"), tracker.result("b", "n"):
        pass
    server.start()
    with tracker.result("b", "other") as run:
        run.metrics({"test_accuracy": 0.25})
    run = found("kept")
    assert (run.info.run_name, run.info.status) == ("n", "FINISHED")
    assert steps(run, "train_loss") == [1, 2]
    assert run.data.metrics["test_accuracy"] == 0.25
    assert list((tmp_path / "state" / "outbox").glob("*")) == []


def test_what_a_killed_process_could_not_send_is_sent_once(server: Server, tracker: Tracker, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from frostline.tracking.tracker import Tracker\n"
        "from frostline.core.history import HistoryRow\n"
        "rows = [HistoryRow(step, 'head', step, 1e-3, 1 / step, 0.5, 2 / step, 0.5, 66) for step in (1, 2)]\n"
        "with Tracker(sys.argv[1], 'tests', Path(), Path(sys.argv[2])).training('killed', 'n') as run:\n"
        "    run.epochs(rows[:1])\n"
        "    print('ready', flush=True); input()\n"
        "    run.epochs(rows[1:])\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, server.uri, str(tmp_path / "state")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"ready\n"
    server.kill()
    process.stdin.write(b"\n")
    process.stdin.flush()
    assert process.wait() == -9
    server.start()
    with tracker.training("killed", "n") as run:  # continues in the same run
        run.epochs(rows(2, 3))
    assert steps(found("killed"), "train_loss") == [1, 2, 3]


def test_a_run_that_was_deleted_meanwhile_is_one_line(tracker: Tracker) -> None:
    with tracker.training("deleted", "n") as run:
        known = found("deleted").info.run_id
        client().delete_run(known)
        with pytest.raises(StateError, match="MLflow refused a call") as caught:
            run.tags({"a": "b"})
        client().restore_run(known)
    assert "\n" not in str(caught.value)


def test_passwords_and_the_home_directory_stay_here(tracker: Tracker) -> None:
    with tracker.training("masked", "n") as run:
        run.params({"sweep.storage": "postgresql://me:secret@host/db", "data.source": str(Path.home() / "photos")})
        run.tags({"plan": "from s3://key:secret@bucket/x"})
    run = found("masked")
    assert run.data.params == {"sweep.storage": "postgresql://***@host/db", "data.source": "~/photos"}
    assert run.data.tags["plan"] == "from s3://***@bucket/x"
    assert not {"mlflow.user", "mlflow.source.name"} & run.data.tags.keys()


def test_an_outbox_in_use_is_left_alone(tmp_path: Path) -> None:
    box = outbox.Outbox(tmp_path / "box", {"uri": "u"})
    with box.alone() as mine, outbox.Outbox(tmp_path / "box", {}).alone() as other:
        assert (mine, other) == (True, False)
    box.put(outbox.Call("tags", {"values": {"a": "ä"}}))
    with (tmp_path / "box" / outbox.CALLS).open("a") as calls:
        calls.write('{"method": "ta')  # a power cut
    (found,) = outbox.boxes(tmp_path)
    assert [(call.method, call.arguments) for call in found.calls()] == [("tags", {"values": {"a": "ä"}})]
    found.clear()
    assert outbox.boxes(tmp_path) == []


def test_an_evaluation_is_not_lost_where_the_server_is_away(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    params = load(Path(__file__).parents[2] / "params.yaml")
    monkeypatch.chdir(tmp_path)
    evaluate.record(params, workspace.made_from(), 10, "0" * 64, {"accuracy": 1.0, "test_digest": "1" * 64})
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: http://127.0.0.1:1: tracking is not reachable")
    assert line.endswith("the evaluation is in reports, and `frostline sync` records it when the server is back")
