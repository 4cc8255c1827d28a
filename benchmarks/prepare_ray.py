"""Stage `prepare` by two processes of this machine, and by a Ray cluster of two nodes with one core each.

    FROSTLINE_TEST_ASSETS=.../assets python benchmarks/prepare_ray.py [--rounds 5]

Photos of clothing-small at 160 px, taking turns, imports and the start of the cluster aside, files in the page cache.
Both must write the same bytes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

import prepare as photos
import table
from workspace import ROOT, params, workspace

from frostline import paths
from frostline.core import digest, ray_cluster
from frostline.core.executors import Executor
from frostline.stages import prepare

sys.path.append(str(ROOT / "tests"))

SOURCE = Path(os.environ.get("FROSTLINE_TEST_ASSETS", "assets")).resolve() / "clothing-small"


def seconds(executor: Executor | None) -> tuple[float, str]:
    """How long `prepare` takes, and the digest of what it has written."""
    began = time.monotonic()
    prepare.run(params(photos.settings(SOURCE)), executor)
    return time.monotonic() - began, digest.of_folder(paths.PREPARED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    import ray_nodes

    times: dict[str, list[float]] = {"processes": [], "Ray": []}
    written = set()
    with ray_nodes.running() as nodes, workspace(), ray_cluster.connected(nodes.address) as cluster:
        for number in range(rounds + 1):
            for name, executor in {"processes": None, "Ray": cluster}.items():
                took, content = seconds(executor)
                written.add(content)
                if number:  # the first round starts Ray's processes
                    times[name].append(took)
    if len(written) != 1:
        sys.exit("both did not write the same")
    medians = {name: statistics.median(each) for name, each in times.items()}
    table.show(
        "prepare_ray",
        f"`prepare` of 3,409 photos at 160 px, medians of {rounds} rounds after one that is not counted. Ray's two "
        "nodes have one core each, and lie on the same machine as the process that writes the shards. Both wrote the "
        "same bytes.",
        ["by", "time", "speed"],
        [[name, f"{median:.2f} s", f"{medians['processes'] / median:.2f}x"] for name, median in medians.items()],
    )


if __name__ == "__main__":
    main()
