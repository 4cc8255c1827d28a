"""A run is told by what git, DVC's experiment and dvc.lock say."""

from __future__ import annotations

import subprocess
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
    return lineage.tags(LOCK, INPUTS, OUTPUTS)


def test_a_clean_repository_is_told_by_its_commit(repository: Path) -> None:
    assert tags() == {
        "dvc.lock.data/prepared": "1234.dir",
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
    assert tags() == {}
    git("init", "-q")
    assert tags() == {}
