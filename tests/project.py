"""A clone of this repository in which tests work as a stranger would, by commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from conftest import ROOT
from PIL import Image
from ruamel.yaml import YAML

# A classifier of a few seconds, on the images of `draw_pets`.
PETS = {
    "data": {"source": "data/pets", "train_per_class": None, "image_size": 32},
    "augment": {"copies": 0},
    "finetune": {"head_epochs": 6, "epochs": 1, "freeze": "block6_out"},
    "evaluate": {"top_k": 1, "bootstrap": 100},
    "registry": {"name": "pets", "gate": {"metric": "accuracy", "margin": 1.0, "confidence": 0.95}},
}


def draw_pets(folder: Path) -> None:
    """Images of several formats and sizes; the class is the side of a bright square."""
    rng = np.random.default_rng(0)
    for side, label in enumerate(("cat", "dog")):
        (folder / label).mkdir(parents=True)
        for number in range(24):
            height, width = rng.integers(40, 90, 2)
            image = rng.integers(0, 90, (height, width, 3), dtype=np.uint8)
            image[: height // 2, side * width // 2 : (side + 1) * width // 2] += 150
            Image.fromarray(image).save(folder / label / f"{number}.{('jpg', 'png', 'webp')[number % 3]}")


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
