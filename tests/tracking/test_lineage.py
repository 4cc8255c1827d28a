"""A run is told by what git, DVC's experiment and dvc.lock say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from frostline.tracking import lineage

LOCK = Path("dvc.lock")
INPUTS, OUTPUTS = [Path("data/prepared")], [Path("reports")]
RECORDED = """\
schema: '2.0'
stages:
  prepare:
    cmd: frostline prepare
    outs:
    - path: data/prepared
      hash: md5
      md5: 1234.dir
      size: 5
    - path: reports/data.json
      md5: '5678'
"""


def git(*arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clean repository with tracked code, a tracked report and dvc.lock; the working directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("DVC_EXP_NAME", "DVC_EXP_BASELINE_REV", "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "reports").mkdir()
    (tmp_path / "code.py").write_text("1\n")
    (tmp_path / "reports" / "metrics.json").write_text("1\n")
    LOCK.write_text(RECORDED)
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    return tmp_path


def tags() -> dict[str, str]:
    return lineage.tags(LOCK, OUTPUTS)


def test_a_clean_repository_is_told_by_its_commit(repository: Path) -> None:
    assert lineage.inputs(LOCK, [*INPUTS, Path("not/there")]) == {"data/prepared": "1234.dir"}
    assert tags() == {
        "frostline.git_commit": git("rev-parse", "HEAD"),
        "frostline.git_dirty": "false",
    }


def test_changed_code_is_dirty_but_what_the_pipeline_writes_is_not(repository: Path) -> None:
    (repository / "reports" / "metrics.json").write_text("2\n")
    (repository / "untracked.txt").touch()
    LOCK.write_text(RECORDED.replace("5678", "9999"))
    assert tags()["frostline.git_dirty"] == "false"
    (repository / "code.py").write_text("2\n")
    assert tags()["frostline.git_dirty"] == "true"


def test_dvcs_experiment_is_told(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "puffy-seal")
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "abc")
    assert tags() | {"DVC_EXP_NAME": "puffy-seal", "DVC_EXP_BASELINE_REV": "abc"} == tags()


def test_without_git_commits_or_dvc_lock_there_is_nothing_to_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    monkeypatch.delenv("DVC_EXP_BASELINE_REV", raising=False)
    assert tags() == lineage.inputs(LOCK, INPUTS) == {}
    git("init", "-q")
    assert tags() == {}


def state(trained_in: str | None = None) -> dict[str, str]:
    return lineage.with_experiment(lineage.state_tags(Path(), LOCK), LOCK, trained_in)


@pytest.mark.process
def test_a_state_that_dvc_exp_apply_brought_back_is_told_by_its_experiment(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"GIT_CONFIG_GLOBAL": os.devnull, "DVC_NO_ANALYTICS": "1"}.items():
        monkeypatch.setenv(name, value)

    def dvc(*arguments: str) -> None:
        subprocess.run([sys.executable, "-m", "dvc", *arguments], check=True, capture_output=True)

    LOCK.unlink()
    for key in ("name", "email"):
        git("config", f"user.{key}", "t@example.com")
    dvc("init", "-q")
    (repository / "params.yaml").write_text("rate: 1\n")
    stage = "stages: {train: {cmd: cp params.yaml model.txt, params: [rate], outs: [model.txt]}}\n"
    (repository / "dvc.yaml").write_text(stage)
    dvc("repro", "-q")
    git("add", ".")
    git("commit", "-qm", "second")
    baseline = git("rev-parse", "HEAD")
    for number, name in enumerate(("one", "two"), 2):
        dvc("exp", "run", "-q", "-n", name, "-S", f"rate={number}")
        assert state()[lineage.EXPERIMENT] == name
    dvc("exp", "apply", "one")
    found = state("two")  # it was trained in another one, which does not hold it
    assert (found[lineage.EXPERIMENT], found[lineage.DIRTY]) == ("one", "false")
    assert git("rev-parse", f"{found[lineage.COMMIT]}^") == baseline
    dvc("exp", "save", "-n", "one-again")
    assert state("one")[lineage.EXPERIMENT] == "one"
    assert state()[lineage.EXPERIMENT] == "one-again"
    git("commit", "-qam", "third")
    found = state("one")
    assert (found[lineage.EXPERIMENT], found[lineage.COMMIT]) == ("one", git("rev-parse", "HEAD"))
    (repository / "params.yaml").write_text("rate: 4\n")
    dvc("repro", "-q")
    found = state()
    assert found[lineage.DIRTY] == "true"
    assert lineage.EXPERIMENT not in found


def test_the_way_back_brings_an_experiment_along() -> None:
    def commands(*facts: object) -> list[str]:
        return [line.partition("  #")[0] for line in lineage.way_back("abc", *facts)]  # type: ignore[arg-type]

    assert commands(None, True) == commands("one", False) == ["git checkout abc", "dvc checkout", "dvc repro"]
    assert commands("one", True)[1] == "dvc exp apply one"
    assert "dvc exp pull origin one" in lineage.way_back("abc", "one", False)[0]
