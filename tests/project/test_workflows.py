"""The CI of a project: its steps run here as a runner would run them, on a branch that changed a value."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from ruamel.yaml import YAML

from frostline.commands import init
from frostline.params import edit
from frostline.project import template

ELSEWHERE = {"Install", "Comment"}  # steps that need a package index or the forge itself


@pytest.mark.parametrize("folder", [".", "teams/shop"])
def test_the_workflows_are_yaml_that_works_in_the_projects_folder(folder):
    texts = template.files(template.ProjectFacts("shop", folder, "3.12", "frostline==1"))
    github = YAML(typ="safe").load(texts[Path(".github/workflows/frostline.yaml")])
    gitlab = YAML(typ="safe").load(texts[Path(".gitlab-ci.yml")])
    assert {job["defaults"]["run"]["working-directory"] for job in github["jobs"].values()} == {folder}
    assert gitlab["default"]["before_script"][0] == f'cd "$CI_PROJECT_DIR/{folder}"'
    runs = [step["run"] for step in github["jobs"]["train"]["steps"] if "run" in step]
    for command in ("python -m pytest", "frostline doctor", "dvc repro"):
        assert command in runs
        assert command in gitlab["train"]["script"]
    assert not [run for run in runs if "${{" in run]  # what a stranger's branch is called must not be run


@pytest.mark.process
def test_the_steps_of_a_pull_request_end_in_a_report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_"))}
    env = inherited | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        "AGAINST": "main",
    }

    def shell(command):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command], cwd="shop", env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout + done.stderr

    init.run(Path("shop"), None, None, None)
    quick = {"augment.copies": 1, "finetune.head_epochs": 2, "finetune.epochs": 0, "evaluate.bootstrap": 100}
    edit.change(Path("shop/params.yaml"), quick)
    shell("git config user.name test; git config user.email test@example.org")
    shell("dvc repro && git add -A && git commit -qm main")
    assert "Data and pipelines are up to date" in shell("dvc status")
    shell("git switch -qc other")
    edit.change(Path("shop/params.yaml"), {"finetune.head_epochs": 4})
    job = YAML(typ="safe").load(Path("shop/.github/workflows/frostline.yaml"))["jobs"]["train"]
    steps = [step for step in job["steps"] if "run" in step and step["name"] not in ELSEWHERE]
    assert len(steps) == 5
    said = [shell(step["run"]) for step in steps]
    assert "No remote provided" in said[1]
    assert "Running stage 'prepare'" not in said[3]
    report = Path("shop/report.md").read_text()
    assert Path("summary.md").read_text() == report
    assert "| `finetune.head_epochs` | `4` | `2` |" in report
    assert "On the same images the gain is" in report
    assert "## Test accuracy" in report


@pytest.mark.process
def test_an_upgrade_trains_again_and_the_edit_of_a_plot_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    init.run(Path("shop"), None, None, None)
    monkeypatch.chdir(tmp_path / "shop")
    dvc = [sys.executable, "-m", "dvc"]
    env = {key: value for key, value in os.environ.items() if not key.startswith("DVC_")}
    for stage in (
        "data/prepared/train",
        "data/prepared/val",
        "data/prepared/calibration",
        "data/prepared/test",
        "data/augmented",
        "models/classifier",
    ):
        Path(stage).mkdir(parents=True)
        (Path(stage) / "file").touch()
    outs = ["data.json", "augment.png", "history.csv", "predictions.parquet", "per_class.csv", "model_card.md"]
    for name in [*outs, "problems.parquet", "near_copies.parquet", "confusion.csv", "metrics.json"]:
        Path("reports", name).touch()
    Path("reports/plots").mkdir()
    subprocess.run([*dvc, "commit", "--force", "--quiet"], env=env, check=True)

    def status():
        return subprocess.run([*dvc, "status"], env=env, check=True, capture_output=True, text=True).stdout

    assert "up to date" in status()
    text = Path("dvc.yaml").read_text()
    Path("dvc.yaml").write_text(text.replace("y_label: loss", "y_label: the loss"))
    assert "up to date" in status()
    with Path("requirements.lock").open("a") as file:
        file.write("another==1\n")
    assert all(f"{stage}:" in status() for stage in ("prepare", "augment", "finetune", "evaluate"))
