"""The servers of a team, from the commands of deploy/compose.yaml, as plain processes: a project works with them.

The tests run real processes, so they are few and each checks much. All use one clone, in their order.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import boto3
import browser
import postgres
import pytest
import requests
import s3_server
from conftest import ROOT
from project import PETS, Project, draw_pets
from ruamel.yaml import YAML

pytestmark = pytest.mark.process

PASSWORDS = {"admin": "correct-horse-1", "ann": "battery-staple-2", "ben": "paper-clip-holder-3"}


class Team:
    """The services of deploy/compose.yaml, at addresses of this machine. mlflow: of the server, without a user."""

    def __init__(self, folder, database, s3):
        self.folder, self.s3, self.processes = folder / "deploy", s3, []
        shutil.copytree(ROOT / "deploy", self.folder)
        self.port, self.dashboard_port = browser.free_port(), browser.free_port()
        self.mlflow = f"http://127.0.0.1:{self.port}"
        self.places = {
            "frostline@postgres:5432": f"postgres@127.0.0.1:{database.port}",
            "http://s3:8333": s3,
            "--host=0.0.0.0": "--host=127.0.0.1",
            "--port=5000": f"--port={self.port}",
            "--port=8080": f"--port={self.dashboard_port}",
        }
        settings = self.folder / "basic_auth.ini"
        settings.write_text(self.placed(settings.read_text()))
        self.values = {
            "POSTGRES_PASSWORD": "unused",  # the server of the test trusts everybody
            "MLFLOW_ADMIN_PASSWORD": PASSWORDS["admin"],
            "MLFLOW_SECRET_KEY": "any",
            "MLFLOW_ALLOWED_HOSTS": "127.0.0.1:*",
            "S3_ACCESS_KEY": s3_server.KEYS["AWS_ACCESS_KEY_ID"],
            "S3_SECRET_KEY": s3_server.KEYS["AWS_SECRET_ACCESS_KEY"],
        }
        self.services = YAML(typ="safe").load((self.folder / "compose.yaml").read_text())["services"]

    def placed(self, text):
        for there, here in self.places.items():
            text = text.replace(there, here)
        return text

    def start(self, service):
        """The process of a service, as Docker would start it in its image."""
        program, *arguments = map(self.placed, self.services[service]["command"])
        programs = {"python": [sys.executable], "mlflow": [sys.executable, "-m", "mlflow"]}
        given = self.services[service]["environment"].items()
        filled = {key: re.sub(r"\$\{(\w+)[^}]*\}", lambda found: self.values[found[1]], value) for key, value in given}
        environment = {
            **os.environ,
            **{key: self.placed(value) for key, value in filled.items()},
            "MLFLOW_WORKERS": "1",
        }
        with (self.folder / f"{service}.log").open("w") as log:
            process = subprocess.Popen(
                [*programs.get(program, [program]), *arguments],
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def stop(self):
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def call(self, method, path, **values):
        """A call of MLflow's REST API, as its admin."""
        place = {"params": values} if method == "GET" else {"json": values}
        login = ("admin", PASSWORDS["admin"])
        answer = requests.request(method, f"{self.mlflow}/api/2.0/mlflow/{path}", auth=login, timeout=60, **place)
        answer.raise_for_status()
        return answer.json()


@pytest.fixture(scope="module")
def team(tmp_path_factory):
    pytest.importorskip("flask_wtf", reason="MLflow's users need Flask-WTF: pip install 'mlflow[auth]'")
    folder = tmp_path_factory.mktemp("team")
    with postgres.running(folder) as database, s3_server.running() as s3:
        servers = Team(folder, database, s3)
        for name in ("mlflow", "studies"):
            database.run("createdb", "-h", "127.0.0.1", "-p", str(database.port), "-U", "postgres", name)
        for _ in range(2):  # the second time, all is there already
            assert servers.start("first-start").wait(60) == 0
        try:
            s3_server.wait_for(f"{servers.mlflow}/health", servers.start("mlflow"))
            for name in ("ann", "ben"):
                servers.call("POST", "users/create", username=name, password=PASSWORDS[name])
            yield servers
        finally:
            servers.stop()


@pytest.fixture(scope="module")
def project(team, tmp_path_factory):
    clone = Project(tmp_path_factory.mktemp("project") / "clone")
    draw_pets(clone.folder / "data/pets")
    clone.change({**PETS, "tracking": {"uri": team.mlflow.replace("//", "//ann:${MLFLOW_PASSWORD}@")}})
    clone.env |= {"MLFLOW_PASSWORD": PASSWORDS["ann"], **s3_server.KEYS}
    clone("dvc", "remote", "add", "-q", "-d", "team", "s3://dvc/pets")
    clone("dvc", "remote", "modify", "-q", "team", "endpointurl", team.s3)
    clone.commit()
    return clone


def run(team, project):
    """The project's run, as the server's admin sees it."""
    experiment = team.call("GET", "experiments/get-by-name", experiment_name="frostline")["experiment"]["experiment_id"]
    (found,) = team.call("POST", "runs/search", experiment_ids=[experiment])["runs"]
    return found


def objects(team, bucket):
    store = boto3.client(
        "s3",
        endpoint_url=team.s3,
        region_name="us-east-1",
        **{key.lower(): value for key, value in s3_server.KEYS.items()},
    )
    return [each["Key"] for each in store.list_objects_v2(Bucket=bucket).get("Contents", [])]


def test_a_training_is_recorded_under_its_user_and_its_model_lies_in_s3(team, project):
    output = project("dvc", "repro")
    found = run(team, project)
    assert f"{team.mlflow}/#/experiments/" in output
    assert {"val_accuracy", "test_accuracy"} <= {each["key"] for each in found["data"]["metrics"]}
    assert any(key.endswith("/MLmodel") for key in objects(team, "mlflow"))
    kept = "".join(path.read_text() for path in project.folder.glob("reports/*.md")) + output + json.dumps(found)
    assert PASSWORDS["ann"] not in kept
    project.commit()


def test_the_registry_works_for_another_user_too(team, project):
    assert "models:/pets/1 is the challenger" in project("frostline", "register")
    project.change({"tracking": {"uri": team.mlflow}})
    project.env |= {"MLFLOW_TRACKING_USERNAME": "ben", "MLFLOW_TRACKING_PASSWORD": PASSWORDS["ben"]}
    assert "models:/pets/1 is the champion now" in project("frostline", "promote")
    assert json.loads(project("frostline", "lineage", "models:/pets@champion", "--json"))["test_digest"]
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        del project.env[name]
    project("git", "checkout", "-q", "params.yaml")


@pytest.mark.skipif(shutil.which("optuna-dashboard") is None, reason="it is not installed: pip install -e .[dev]")
def test_the_dashboard_shows_the_studies(team):
    address = f"http://127.0.0.1:{team.dashboard_port}/api/studies"
    s3_server.wait_for(address, team.start("dashboard"))
    assert requests.get(address, timeout=60).json() == {"study_summaries": []}


def test_pulling_brings_back_what_was_pushed(team, project):
    before = project.json("models/classifier/bundle.json")
    project("dvc", "push", "-q")
    assert any(key.startswith("pets/files/md5/") for key in objects(team, "dvc"))
    for place in ("models", "data/prepared", "data/augmented", ".dvc/cache"):
        shutil.rmtree(project.folder / place)
    project("dvc", "pull", "-q")
    assert project.json("models/classifier/bundle.json") == before
    assert "up to date" in project("dvc", "status")


def test_a_wrong_password_is_one_line(team, project):
    right, project.env["MLFLOW_PASSWORD"] = project.env["MLFLOW_PASSWORD"], "wrong"
    address = team.mlflow.replace("//", "//***@")
    for command in ("finetune", "register"):
        assert project("frostline", command, ok=False).splitlines()[-1] == (
            f"error: {address}: MLflow's server does not accept this user and password; fix those in tracking.uri, or "
            "in MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    project.env["MLFLOW_PASSWORD"] = right


def test_a_name_that_the_server_does_not_allow_is_one_line(team, project):
    project.change({"tracking": {"uri": f"http://ann:${{MLFLOW_PASSWORD}}@localhost:{team.port}"}})
    line = project("frostline", "register", ok=False).splitlines()[-1]
    assert line.startswith(f"error: http://***@localhost:{team.port}: MLflow refused a call (")
    assert line.endswith("start the server with this name among its --allowed-hosts, or use another of its names")
    project("git", "checkout", "-q", "params.yaml")
