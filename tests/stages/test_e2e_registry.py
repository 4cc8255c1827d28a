"""The registry from end to end: register, promote, predict, serve, and restore the state of a version.

The tests run real processes, so they are few and each checks much. All use one clone, in their order.
"""

import base64
import io
import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import browser
import numpy as np
import pandas as pd
import pytest
from project import PETS, Project, draw_pets

pytestmark = pytest.mark.process

# This closes MLflow's assistant, which takes a quarter of the window.
CLOSE = "document.querySelectorAll('button[aria-label=Close], button[aria-label=close]').forEach(each => each.click())"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("registry")
    clone = Project(folder / "clone")
    draw_pets(clone.folder / "data/pets")
    clone.change(PETS)
    clone("dvc", "remote", "add", "-q", "-d", "store", str(folder / "remote"))
    clone("dvc", "repro")
    clone.commit()
    return clone


def lineage(project, model):
    return json.loads(project("frostline", "lineage", model, "--json"))


def test_a_version_is_registered_promoted_and_rolled_back(project):
    assert "models:/pets/1 is the challenger" in project("frostline", "register")
    assert "models:/pets/1 is the champion now; the first champion" in project("frostline", "promote")
    project("dvc", "push", "-q")
    project.change({"finetune": {"learning_rate": 1e-5, "head_epochs": 1}})
    project("dvc", "repro")
    assert "this state is not committed" in project("frostline", "register")
    project.commit()
    output = project("frostline", "register")
    assert "models:/pets/2 is the challenger" in output
    assert "not committed" not in output
    assert "/2 is the champion now; version 2 against champion 1: accuracy" in project("frostline", "promote")
    project.change({"registry": {"gate": {"metric": "log_loss", "margin": 0.0, "confidence": 0.95}}})
    assert "/1 is the champion again" in project("frostline", "rollback", "-m", "worse after all")
    output = project("frostline", "promote", ok=False)
    assert "error: promote: refused, version 2 against champion 1: log_loss" in output
    project.change({"finetune": {"epochs": 2}})
    assert "differs from it; run `dvc repro` first" in project("frostline", "register", ok=False)
    project("git", "checkout", "-q", "params.yaml")


@pytest.mark.slow
def test_the_lineage_gives_the_same_metrics_in_a_clean_clone(project):
    facts = lineage(project, "models:/pets@champion")
    assert facts["git_dirty"] is False
    assert facts["stages"]["finetune"]["params"]["finetune"]["head_epochs"] == 6
    assert {"data/pets", "src/frostline/data"} <= facts["stages"]["prepare"]["deps"].keys()
    assert facts["stages"]["finetune"]["outs"]["models/classifier"].endswith(".dir")
    text = project("frostline", "lineage", "models:/pets/1")
    for part in (facts["git_commit"], "stage evaluate", "finetune.head_epochs = 6", "dvc repro"):
        assert part in text

    clone = project.folder.parent / "clean"
    subprocess.run(["git", "clone", "-q", str(project.folder), str(clone)], check=True)
    env = {**project.env, "PYTHONPATH": str(clone / "src")}
    commands = [command.split("#")[0].strip() for command in facts["commands"]]
    assert [command.split()[:2] for command in commands] == [["git", "checkout"], ["dvc", "checkout"], ["dvc", "repro"]]
    commands[1] = "dvc pull"  # a clone's cache is empty
    output = ""
    for command in commands:
        process = subprocess.run(command.split(), cwd=clone, env=env, capture_output=True, text=True)
        assert process.returncode == 0, process.stdout + process.stderr
        output = process.stdout
    assert "Running stage" not in output
    metrics = json.loads((clone / "reports/metrics.json").read_text())
    assert metrics["accuracy"] == pytest.approx(facts["metrics"]["test_accuracy"], abs=1e-5)
    assert metrics["test_digest"] == facts["test_digest"]
    for model, reason in (("pets", "write models:/NAME@ALIAS"), ("models:/pets/9", "take one of 1, 2")):
        assert reason in project("frostline", "lineage", model, ok=False)


@pytest.mark.slow
def test_a_training_can_start_from_a_registered_model(project):
    project.change({"backbone": {"weights": "models:/pets@champion"}, "finetune": {"head_epochs": 1, "epochs": 0}})
    output = project("dvc", "repro", "finetune")
    assert "weights: 40 of 40 layers loaded" in output
    backbone = project.json("models/classifier/bundle.json")["made_from"]["backbone"]
    assert backbone["weights"] == "models:/pets@champion"
    assert backbone["loaded"] == {"layers": 40, "of": 40, "missing": [], "mismatched": []}
    project("git", "checkout", "-q", ".")
    project("dvc", "checkout", "-q")


def start_server(project, *command):
    """Start a server, and wait until it answers. Its process and port."""
    port = browser.free_port()
    log = project.folder / "server.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, "--port", str(port)], cwd=project.folder, env=project.env, stdout=file, stderr=file
        )
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/{'health' if 'server' in command else 'ping'}", timeout=5)
            return process, port
        except OSError:
            time.sleep(0.3)
    process.kill()
    raise AssertionError(log.read_text()[-2000:])


@pytest.mark.slow
def test_evaluate_predict_and_both_servers_give_the_same_answers(project):
    predictions = pd.read_parquet(project.folder / "reports/predictions.parquet").sort_values("path")
    assert len(predictions) >= 8
    expected = np.stack(predictions["probabilities"].to_list())
    files = [f"data/pets/{path}" for path in predictions["path"]]
    project("git", "checkout", "-q", "params.yaml")

    rows = json.loads(project("frostline", "predict", "--json", *files))
    assert [row["path"] for row in rows] == files
    np.testing.assert_allclose([list(row["probabilities"].values()) for row in rows], expected, atol=1e-5)
    assert [row["label"] for row in rows] == predictions["predicted"].tolist()

    images = [[base64.b64encode((project.folder / file).read_bytes()).decode()] for file in files]
    body = json.dumps({"dataframe_split": {"columns": ["image"], "data": images}}).encode()
    mlflow_command = ["mlflow", "models", "serve", "-m", "models:/pets@challenger", "--env-manager", "local"]
    uri = {"MLFLOW_TRACKING_URI": f"sqlite:///{project.folder}/mlflow.db"}
    project.env |= uri
    for command in (["frostline", "serve", "models:/pets/2"], mlflow_command):
        process, port = start_server(project, *command)
        try:
            url = f"http://127.0.0.1:{port}/invocations"
            request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=60) as answer:
                answers = json.load(answer)["predictions"]
        finally:
            process.terminate()
            process.wait()
        np.testing.assert_allclose([list(row["probabilities"].values()) for row in answers], expected, atol=1e-5)
        assert [row["label"] for row in answers] == predictions["predicted"].tolist()
    for key in uri:
        del project.env[key]


@pytest.mark.slow
def test_predict_takes_folders_globs_and_standard_input_and_names_broken_files(project):
    (project.folder / "data/pets/cat/broken.jpg").write_bytes(b"no image")
    arguments = ["data/pets/cat", "data/pets/dog/*.png", "nowhere.png", "--csv", "--model", "models:/pets@challenger"]
    process = subprocess.run(
        ["frostline", "predict", *arguments], cwd=project.folder, env=project.env, capture_output=True, text=True
    )
    assert process.returncode == 2
    assert "data/pets/cat/broken.jpg: not an image" in process.stderr
    assert "nowhere.png: no such file" in process.stderr
    assert "error: 2 of 34 images could not be read" in process.stderr
    table = pd.read_csv(io.StringIO(process.stdout))
    assert list(table.columns) == ["path", "label", "probability", "error", "p(cat)", "p(dog)"]
    assert len(table) == 34
    assert table["error"].notna().sum() == 2
    (project.folder / "data/pets/cat/broken.jpg").unlink()
    image = (project.folder / "data/pets/dog/1.png").read_bytes()
    for text in (image, b"data/pets/dog/1.png\n"):
        process = subprocess.run(
            ["frostline", "predict", "-"], cwd=project.folder, env=project.env, input=text, capture_output=True
        )
        assert process.returncode == 0, process.stderr
        assert process.stdout.split()[0] in {b"cat", b"dog"}


@pytest.mark.slow
def test_sync_gives_a_run_to_a_state_that_dvc_restored(project):
    (project.folder / "mlflow.db").rename(project.folder / "mlflow.old")
    project("git", "checkout", "-q", "HEAD~1")
    output = project("dvc", "repro")
    assert "Running stage 'finetune'" not in output  # restored from DVC's run cache
    assert "its run was given its training, evaluation, lineage" in project("frostline", "sync")
    assert "its run has everything already" in project("frostline", "sync")
    (run,) = project.runs()
    metrics = project.json("reports/metrics.json")
    assert run.data.metrics["test_accuracy"] == pytest.approx(metrics["accuracy"])
    assert run.data.params["finetune.head_epochs"] == "6"
    assert run.data.tags["frostline.git_commit"] == project("git", "rev-parse", "HEAD").strip()
    project("git", "checkout", "-q", "-")
    project("dvc", "checkout", "-q")
    output = project("frostline", "sync", "HEAD", "HEAD~1")
    assert "HEAD: its run was given its training, evaluation, lineage" in output
    assert "HEAD~1: its run has everything already" in output
    assert len(project.runs()) == 2
    assert "its run has everything already" in project("frostline", "sync")
    assert "no-such-commit: its files are not available" in project("frostline", "sync", "no-such-commit", ok=False)


@pytest.mark.skipif(not browser.is_there(), reason=browser.MISSING)
@pytest.mark.slow
def test_two_runs_are_compared_in_mlflows_ui(project, tmp_path):
    runs = project.runs()
    uri = f"sqlite:///{project.folder}/mlflow.db"
    process, port = start_server(project, sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri)
    folder = Path(os.environ.get("FROSTLINE_TEST_SCREENSHOTS", tmp_path))
    try:
        with browser.Browser(tmp_path) as page:
            run_ids = json.dumps([run.info.run_id for run in runs])
            experiments = json.dumps([runs[0].info.experiment_id])
            page.open(f"http://127.0.0.1:{port}/#/compare-runs?runs={run_ids}&experiments={experiments}")
            page.wait("document.body.innerText.includes('finetune.head_epochs')", 60)
            text = page.text()
            page.script(CLOSE)
            for part in ("finetune.learning_rate", "test_accuracy", *(run.info.run_name for run in runs)):
                assert part in text
            page.screenshot(folder / "mlflow-compare.png")
            page.open(f"http://127.0.0.1:{port}/#/experiments/{runs[0].info.experiment_id}/runs/{runs[0].info.run_id}")
            page.wait("document.body.innerText.includes('layers frozen')", 60)  # the description
            page.screenshot(folder / "mlflow-run.png")
    finally:
        process.terminate()
        process.wait()
    assert (folder / "mlflow-compare.png").stat().st_size > 20_000


@pytest.mark.slow
def test_an_experiment_that_is_applied_is_registered_with_its_name(project):
    project("dvc", "exp", "run", "-q", "-n", "warm", "-S", "finetune.head_epochs=2")
    project("git", "checkout", "-q", ".")
    project("dvc", "exp", "apply", "warm")
    output = project("frostline", "register")
    assert "register: it belongs to DVC experiment warm" in output
    assert "not committed" not in output
    facts = lineage(project, "models:/pets@challenger")
    assert (facts["dvc_experiment"], facts["git_dirty"]) == ("warm", False)
    assert project("git", "show", f"{facts['git_commit']}:params.yaml").count("head_epochs: 2")
    project("git", "checkout", "-q", ".")
    project("dvc", "checkout", "-q")
