"""One commit against another: the pipeline and a sweep on the embedded digits, alternated in one run.

    python benchmarks/versions.py COMMIT [--now COMMIT] [--rounds 3] [--trials 10]

Each version runs in a clone of its own with the packages of this environment. Shown are median seconds of each command
with its imports, and whether the results are the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ruamel.yaml import YAML
from table import show
from workspace import ROOT

STAGES = ("prepare", "augment", "finetune", "evaluate")
RESULTS = (
    "data/prepared/train/images-00000.npy",
    "reports/history.csv",
    "reports/metrics.json",
    "reports/predictions.parquet",
)


def clone(folder: Path, revision: str, trials: int) -> Path:
    """A clone at a revision, with tracking off and a small sweep."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    subprocess.run(["git", "-C", str(folder), "checkout", "--quiet", revision], check=True)
    yaml = YAML()
    params = yaml.load(folder / "params.yaml")
    params["tracking"]["uri"] = "none"
    params["sweep"]["trials"] = trials
    yaml.dump(params, folder / "params.yaml")
    return folder


def seconds(folder: Path, command: str) -> float:
    """The time of a command in a clone, which starts without stored features or a study."""
    if command in {"finetune", "sweep"}:
        subprocess.run(["rm", "-rf", str(folder / ".frostline")], check=True)
    environment = {**os.environ, "PYTHONPATH": str(folder / "src")}
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "frostline", command], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL
    )
    return time.perf_counter() - start


def content(folder: Path) -> list[str]:
    """The digests of the results."""
    return [hashlib.sha256((folder / path).read_bytes()).hexdigest() for path in RESULTS]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("commit")
    parser.add_argument("--now", default="HEAD", help="the later commit")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--sweeps", type=int, default=1, help="sweeps in each round")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        versions = {
            name: clone(Path(scratch) / name, revision, chosen.trials)
            for name, revision in {"before": chosen.commit, "now": chosen.now}.items()
        }
        times: dict[tuple[str, str], list[float]] = {}
        for round_ in range(chosen.rounds):
            for command in (*STAGES, *["sweep"] * chosen.sweeps):
                for name in sorted(versions, reverse=bool(round_ % 2)):
                    times.setdefault((command, name), []).append(seconds(versions[name], command))
        is_same = content(versions["before"]) == content(versions["now"])
    rows = []
    for command in (*STAGES, "sweep"):
        before, now = (statistics.median(times[command, name]) for name in ("before", "now"))
        rows.append([f"`frostline {command}`", f"{before:.1f} s", f"{now:.1f} s", f"{now / before:.2f}"])
    show(
        "versions",
        f"Before: {chosen.commit}, now: {chosen.now}; medians of {chosen.rounds} rounds, alternated; a sweep of "
        f"{chosen.trials} trials. "
        f"The prepared images, history, metrics and predictions are {'' if is_same else 'NOT '}the same bytes.",
        ["command", "before", "now", "now / before"],
        rows,
    )


if __name__ == "__main__":
    main()
