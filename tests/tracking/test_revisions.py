"""What a revision says of its evaluation is found in git and in DVC's cache, wherever the project lies."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from frostline import paths
from frostline.errors import StateError
from frostline.tracking import revisions

GIT = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]


def run(*command):
    subprocess.run(command, check=True, capture_output=True)


@pytest.mark.process
@pytest.mark.parametrize("place", [".", "teams/shop"])
def test_the_files_of_a_revision_are_found(tmp_path, monkeypatch, place):
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    run("git", "init", "-q", str(tmp_path))
    monkeypatch.chdir(tmp_path / place)
    dvc = [sys.executable, "-m", "dvc"]
    run(*dvc, "init", "-q", "--subdir") if place != "." else run(*dvc, "init", "-q")
    paths.REPORTS.mkdir()
    paths.METRICS.write_text("{}\n")
    paths.CONFUSION.write_text("actual,predicted\na,b\n")
    run(*dvc, "add", "-q", str(paths.CONFUSION))
    run("git", "add", "-A")
    run(*GIT, "commit", "-qm", "one")
    paths.METRICS.write_text("{1}\n")
    paths.CONFUSION.unlink()
    folder = tmp_path / "found"
    assert set(revisions.reports("HEAD", folder)) == {paths.METRICS, paths.CONFUSION}
    assert (folder / paths.METRICS).read_text() == "{}\n"
    assert (folder / paths.CONFUSION).read_text() == "actual,predicted\na,b\n"
    with pytest.raises(StateError, match="nowhere: git has no such commit; `git fetch`"):
        revisions.reports("nowhere", Path())
