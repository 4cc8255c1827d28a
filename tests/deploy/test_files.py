"""The files of deploy/ agree with each other, and with the versions that are tested."""

import re

import pytest
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
        assert not set(re.findall(r"(?:@|//)([\w-]+):\d", str(service))) - {*services, "127"}, name
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


def test_ray_accepts_the_cluster_and_its_machines_share_the_project():
    util = pytest.importorskip("ray.autoscaler._private.util", reason="ray is not installed: pip install -e .[ray]")
    cluster = YAML(typ="safe").load((DEPLOY / "ray.yaml").read_text())
    prepared = util.prepare_config(cluster)
    util.validate_config(prepared)
    assert prepared["max_workers"] == len(cluster["provider"]["worker_ips"])
    commands = [*cluster["head_start_ray_commands"], *cluster["worker_start_ray_commands"]]
    assert all(command.startswith("/srv/project/.venv/bin/ray ") for command in commands)


def test_the_job_runs_a_sweep_in_the_image_that_it_names():
    job = YAML(typ="safe").load((DEPLOY / "rayjob.yaml").read_text())
    spec = job["spec"]
    cluster = spec["rayClusterSpec"]
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert spec["entrypoint"] == 'bash -c "cd /project && frostline sweep --ray auto"'
    pods = [each["template"]["spec"] for each in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    containers = [container for pod in pods for container in pod["containers"]]
    assert (
        len(
            {
                str({**container, "name": "", "volumes": pod["volumes"]})
                for pod, container in zip(pods, containers, strict=True)
            }
        )
        == 1
    )
    version = re.search(r"^ray==(\S+)", (ROOT / "requirements.lock").read_text(), re.M)[1]
    image = re.search(r"^FROM rayproject/ray:([\d.]+)-py", (DEPLOY / "Dockerfile.ray").read_text(), re.M)[1]
    assert version == image == cluster["rayVersion"]
