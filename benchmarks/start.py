"""How long a command takes to start: Keras imported as usual, as frostline imports it, and `frostline predict` of one
image. Each is a fresh process, and they alternate.

    python benchmarks/start.py BUNDLE IMAGE [--rounds 5]
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from table import show

QUICK = "from frostline.models import backend\nwith backend.quiet(): pass"


def cost(command: list[str]) -> tuple[float, float]:
    """Wall time and CPU time of a process, in seconds."""
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=environment)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    frostline = str(Path(sys.executable).with_name("frostline"))
    commands = {
        "`import keras`": [sys.executable, "-c", "import keras"],
        "the import of frostline": [sys.executable, "-c", QUICK],
        "`frostline predict` of one image": [
            frostline,
            "predict",
            str(arguments.image),
            "--model",
            str(arguments.bundle),
        ],
    }
    costs = {name: [] for name in commands}
    for _ in range(arguments.rounds):
        for name, command in commands.items():
            costs[name].append(cost(command))
    rows = []
    for name, values in costs.items():
        rows.append([name, *(f"{statistics.median(each):.2f} s" for each in zip(*values, strict=True))])
    show("start", f"Median of {arguments.rounds} fresh processes each.", ["", "wall time", "CPU time"], rows)


if __name__ == "__main__":
    main()
