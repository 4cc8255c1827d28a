"""How many trials an hour one worker, two processes and two workers on Ray train on one machine.

    FROSTLINE_TEST_ASSETS=.../assets python benchmarks/workers.py [--rounds 1]

A sweep of clothing-small at 128 px, whose trials all go to their end at points that depend on their number alone. The
time counts from the start of the first trial to the end of the last one, so that imports do not count. Each sweep is a
process of its own in a folder of its own, with an empty store. They take turns.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import table
from ruamel.yaml import YAML
from workspace import ROOT, params, workspace

sys.path.append(str(ROOT / "tests"))

TRIALS = 8
ASSETS = Path(os.environ.get("FROSTLINE_TEST_ASSETS", "assets")).resolve()
SETTINGS = {
    "data.source": str(ASSETS / "clothing-small"),
    "data.image_size": 128,
    "data.train_per_class": 50,
    "augment.copies": 0,
    "backbone.name": "MobileNetV2",
    "backbone.weights": str(ASSETS / "weights/mobilenet_v2_1.0_224_no_top.h5"),
    "backbone.alpha": 1.0,
    "finetune.head_epochs": 2,
    "finetune.epochs": 3,
    "sweep.trials": TRIALS,
    "sweep.sampler": "random",
    "sweep.pruner": "none",
    "sweep.space": {
        "finetune.freeze": ["block_3_project_BN", "block_6_project_BN", "block_10_project_BN", "block_13_project_BN"],
        "finetune.learning_rate": {"low": 1e-5, "high": 1e-2, "log": True},
    },
}


def sweep(options: Sequence[str]) -> float:
    """Seconds from the start of the first trial to the end of the last one."""
    with workspace() as folder:
        with (folder / "params.yaml").open("w") as file:
            YAML(typ="safe").dump(params(SETTINGS).model_dump(mode="json"), file)
        for stage in (["prepare"], ["augment"], ["sweep", *options]):
            command = [sys.executable, "-m", "frostline", *stage]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{' '.join(stage)}: {done.stderr[-3000:]}")
        return _seconds(folder)


def _seconds(folder: Path) -> float:
    import optuna

    storage = f"sqlite:///{folder}/.frostline/optuna.db"
    (summary,) = optuna.get_all_study_summaries(storage)
    trials = optuna.load_study(study_name=summary.study_name, storage=storage).get_trials()
    ends = [trial.datetime_complete for trial in trials if trial.datetime_complete]
    starts = [trial.datetime_start for trial in trials if trial.datetime_start]
    if len(ends) != TRIALS:
        sys.exit(f"{len(ends)} of {TRIALS} trials ended")
    return (max(ends) - min(starts)).total_seconds()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1)
    rounds = parser.parse_args().rounds
    import ray_nodes

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    times: dict[str, list[float]] = {"one worker": [], "two processes": [], "two workers on Ray": []}
    with ray_nodes.running() as cluster:
        options = {
            "one worker": [],
            "two processes": ["--workers", "2"],
            "two workers on Ray": ["--workers", "2", "--ray", cluster.address],
        }
        for _ in range(rounds):
            for name, each in options.items():
                began = time.monotonic()
                times[name].append(sweep(each))
                print(f"{name}: {times[name][-1]:.1f} s, {time.monotonic() - began:.0f} s in all", flush=True)
    one = statistics.median(times["one worker"])
    processes = statistics.median(times["two processes"])
    rows = []
    for name, seconds in times.items():
        median = statistics.median(seconds)
        rows.append([name, f"{median:.1f} s", f"{3600 * TRIALS / median:.0f}", f"{one / median:.2f}x"])
    overhead = (statistics.median(times["two workers on Ray"]) - processes) / TRIALS
    table.show(
        "workers",
        f"A sweep of {TRIALS} trials on clothing-small, 50 images a class at 128 px, MobileNetV2, a head of 2 epochs "
        f"and 3 epochs more; medians of {rounds} rounds, from the start of the first trial to the end of the "
        "last. Workers have one core each, the one worker has both. A worker on Ray takes "
        f"{overhead:+.2f} s a trial more than a process.",
        ["who searches", "time", "trials an hour", "speed"],
        rows,
    )


if __name__ == "__main__":
    main()
