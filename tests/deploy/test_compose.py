"""The files of deploy/ agree with each other, and with the versions that are tested."""

import re

from conftest import ROOT
from ruamel.yaml import YAML

DEPLOY = ROOT / "deploy"


def compose():
    return YAML(typ="safe").load((DEPLOY / "compose.yaml").read_text())


def test_every_variable_is_in_the_example_and_has_no_value_there():
    used = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text()))
    given = dict(re.findall(r"^(\w+)=(.*)$", (DEPLOY / ".env.example").read_text(), re.M))
    assert used == given.keys()
    assert [name for name, value in given.items() if value] == ["MLFLOW_ALLOWED_HOSTS"]
    assert "/deploy/.env" in (ROOT / ".gitignore").read_text().splitlines()


def test_services_are_pinned_healthy_and_reach_each_other():
    services = compose()["services"]
    for name, service in services.items():
        image = service["image"]
        assert image == "frostline-team" or re.fullmatch(r"[\w/.-]+:\d+\.\d+", image), name
        for other, waits in service.get("depends_on", {}).items():
            ends = waits["condition"] == "service_completed_successfully"
            assert ends or "healthcheck" in services[other], f"{name} waits for {other}"
        assert not set(re.findall(r"(?:@|//)(\w+):\d", str(service))) - {*services, "127"}, name
    assert {part.split(":")[0] for name in ("postgres", "s3") for part in services[name]["volumes"]} == {
        *compose()["volumes"],
        "./studies.sql",
    }
    assert services["dashboard"]["ports"] == ["127.0.0.1:8080:8080"]


def test_the_image_has_the_versions_of_the_lock():
    pinned = re.findall(r"'([\w-]+)(?:\[\w+\])?==([\w.]+)'", (DEPLOY / "Dockerfile").read_text())
    lock = dict(re.findall(r"^([\w-]+)==([\w.]+)", (ROOT / "requirements.lock").read_text(), re.M))
    assert {name for name, _ in pinned} == {"boto3", "mlflow", "optuna", "optuna-dashboard", "psycopg"}
    assert [(name, version) for name, version in pinned if lock.get(name, version) != version] == []
