"""The main job on a fresh clone: how long it takes, and whether it repeats itself exactly.

python benchmarks/main_job.py
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from table import show
from workspace import ROOT


def main() -> None:
    env = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_"))},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        env["PYTHONPATH"] = str(clone / "src")

        def timed(*command: str) -> tuple[float, str]:
            start = time.monotonic()
            done = subprocess.run(command, cwd=clone, env=env, check=True, capture_output=True, text=True)
            return time.monotonic() - start, done.stdout

        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        help_seconds = statistics.median(timed("frostline", "--help")[0] for _ in range(9))
        first, printed = timed("dvc", "repro")
        before = (clone / "dvc.lock").read_bytes()
        second, again = timed("dvc", "repro")
        forced, _ = timed("dvc", "repro", "--force")
        same = "unchanged" if (clone / "dvc.lock").read_bytes() == before else "CHANGED"
        accuracy = next(line for line in printed.splitlines() if line.startswith("test accuracy"))
    rows = [
        ["`frostline --help`, median of 9", f"{help_seconds:.2f} s", ""],
        ["`dvc repro` on a fresh clone", f"{first:.0f} s", accuracy],
        ["`dvc repro` again", f"{second:.1f} s", f"{again.count('Running stage')} stages run"],
        ["`dvc repro --force`", f"{forced:.0f} s", f"dvc.lock {same}"],
    ]
    show("main_job", "The main job on a fresh clone, installing aside.", ["command", "wall time", "result"], rows)


if __name__ == "__main__":
    main()
