"""The README's way to one's own folder on folders of photos: what accuracy it gives, and in how many seconds.

    FROSTLINE_TEST_ASSETS=.../assets python benchmarks/own_folder.py [FOLDER...]

Each folder gets a fresh clone, then `frostline recipe photos --apply --yes --image-size` and one `dvc exp run`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from table import show
from workspace import ROOT

RECIPE = ["frostline", "recipe", "photos", "--apply", "--yes", "--image-size"]


def measured(images: Path) -> list[str]:
    """A row of the table."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        env = {**inherited, "PATH": path, "PYTHONPATH": str(clone / "src")}
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        start = time.monotonic()
        for command in (RECIPE, ["dvc", "exp", "run", "-S", f"data.source={images}"]):
            subprocess.run(command, cwd=clone, env=env, check=True, capture_output=True, text=True)
        seconds = time.monotonic() - start
        scores = json.loads((clone / "reports/metrics.json").read_text())
        data = json.loads((clone / "reports/data.json").read_text())
    low, high = scores["accuracy_ci95"]
    return [
        images.name,
        f"{data['images']['train']:,}",
        str(len(data["classes"])),
        f"{scores['accuracy']:.4f} ({low:.4f} to {high:.4f})",
        f"{scores['commonest_class']:.4f}",
        f"{seconds:.0f} s",
    ]


def main(folders: list[str]) -> None:
    assets = Path(os.environ.get("FROSTLINE_TEST_ASSETS", "."))
    images = [Path(each) for each in folders] or [assets / "clothing-small", assets / "sign-digits"]
    head = ["folder", "training images", "classes", "test accuracy (95% interval)", "commonest class", "wall time"]
    show("own_folder", "The README's way to one's own folder, one seed.", head, [measured(each) for each in images])


if __name__ == "__main__":
    main(sys.argv[1:])
