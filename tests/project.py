"""A clone of this repository in which tests work as a stranger would, by commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from conftest import ROOT
from ruamel.yaml import YAML


class Project:
    """A clone of the repository, run with the interpreter that runs the tests."""

    def __init__(self, folder: Path):
        self.folder = folder
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_", "FROSTLINE_CACHE"))}
        self.env = {
            **inherited,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(folder / "src"),
            "GIT_CONFIG_GLOBAL": os.devnull,
        }
        subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True, env=self.env)
        for key, value in {"user.name": "test", "user.email": "test@example.org"}.items():
            self("git", "config", key, value)

    def __call__(self, *command, ok=True):
        done = subprocess.run(command, cwd=self.folder, env=self.env, capture_output=True, text=True)
        assert not ok or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout + done.stderr

    def commit(self):
        self("git", "add", "-A")
        self("git", "commit", "-q", "--allow-empty", "-m", "state")  # dvc.lock may be as committed

    def change(self, changes, path="params.yaml"):
        yaml = YAML()
        values = yaml.load(self.folder / path)
        for section, keys in changes.items():
            values[section].update(keys)
        yaml.dump(values, self.folder / path)

    def json(self, path):
        return json.loads((self.folder / path).read_text())

    def runs(self):
        import mlflow

        mlflow.set_tracking_uri(f"sqlite:///{self.folder}/mlflow.db")
        return mlflow.search_runs(["1"], output_format="list", order_by=["start_time DESC"])
