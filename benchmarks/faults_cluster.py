"""A sweep on a Ray cluster while its workers, a node, the database and the tracking server are killed.

    python benchmarks/faults_cluster.py

Everything is a real process on this machine: a Ray cluster of two nodes, PostgreSQL with the study, an MLflow server
with users. The same sweep runs twice, first with nobody to disturb it. The second time a worker that has a trial is
killed every few seconds, a node is removed, and PostgreSQL and MLflow are each killed and started again. The sampler is
`random`, so both sweeps try the same points, and each trial must reach the same value.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import table
from ruamel.yaml import YAML
from workspace import ROOT, params

sys.path.append(str(ROOT / "tests"))

import mlflow_server
import postgres

TRIALS, WORKERS = 16, 4
BETWEEN = 5.0  # seconds between two faults
KILLS = 8  # of workers
AWAY = 4.0  # seconds that a server is away
PASSWORD = "correct-horse-battery"  # of a server that lives as long as this script
SETTINGS: Mapping[str, Any] = {
    "data.source": str(ROOT / "data/digits.yaml"),
    "data.train_per_class": 10,
    "finetune.head_epochs": 2,
    "finetune.epochs": 4,
    "sweep.trials": TRIALS,
    "sweep.sampler": "random",
    "sweep.pruner": "none",
    "sweep.metric": "val_loss",
    "sweep.patience": 120,
}


@dataclass(frozen=True)
class Trial:
    """A trial in the database, and what MLflow says of it."""

    state: str
    value: float
    runs: list[str]


@dataclass
class Faults:
    """What was done to a sweep. workers: killed ones; others: what else, in its order."""

    workers: int = 0
    others: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Outcome:
    """What came of a sweep. seconds: from its start to its end, imports too; trials: by number."""

    seconds: float
    trials: Mapping[int, Trial]
    faults: Faults

    @property
    def best(self) -> tuple[int, float]:
        """The number and value of the best trial."""
        return min(((number, trial.value) for number, trial in self.trials.items()), key=lambda each: each[::-1])


def sweep(folder: Path, is_harmed: bool) -> Outcome:
    """A sweep in a new folder, with servers of its own."""
    from ray.cluster_utils import Cluster

    folder.mkdir()
    server = mlflow_server.Server(folder, PASSWORD)
    with postgres.running(folder) as database:
        project = folder / "project"
        project.mkdir()
        changes = {**SETTINGS, "tracking.uri": server.uri, "sweep.storage": database.url}
        with (project / "params.yaml").open("w") as file:
            YAML(typ="safe").dump(params(changes).model_dump(mode="json"), file)
        for stage in ("prepare", "augment"):
            subprocess.run([sys.executable, "-m", "frostline", stage], cwd=project, check=True, capture_output=True)
        server.start()
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        cluster.add_node(num_cpus=2)
        try:
            return _measured(project, cluster, database, server, is_harmed)
        finally:
            cluster.shutdown()
            server.kill()


def _measured(
    project: Path, cluster: Any, database: postgres.Server, server: mlflow_server.Server, is_harmed: bool
) -> Outcome:
    command = [sys.executable, "-m", "frostline", "sweep", "--workers", str(WORKERS), "--ray", cluster.address]
    faults, is_over = Faults(), threading.Event()
    harming = threading.Thread(target=harm, args=(faults, is_over, cluster, database, server))
    began = time.monotonic()
    with (project / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=project, stdout=log, stderr=log)
        if is_harmed:
            harming.start()
        status = process.wait()
    seconds = time.monotonic() - began
    is_over.set()
    if is_harmed:
        harming.join()
    if status:
        sys.exit(f"exit status {status}\n{(project / 'log').read_text()[-5000:]}")
    if is_harmed:  # the next command that reaches the server sends what waits
        subprocess.run([sys.executable, "-m", "frostline", "sweep"], cwd=project, check=True, capture_output=True)
    return Outcome(seconds, found(database, server), faults)


def harm(
    faults: Faults, is_over: threading.Event, cluster: Any, database: postgres.Server, server: mlflow_server.Server
) -> None:
    """Disturb a sweep until it is over."""

    def restart_database() -> None:
        database.control("-m", "immediate", "stop")
        time.sleep(AWAY)
        database.control("start")

    def restart_server() -> None:
        server.kill()
        time.sleep(AWAY)
        server.start()

    others: dict[str, Callable[[], None]] = {
        "PostgreSQL": restart_database,
        "a node": lambda: cluster.remove_node(next(iter(cluster.worker_nodes))),
        "MLflow": restart_server,
    }
    while not is_over.wait(BETWEEN):
        known = workers()
        if not known or "running" not in states(database):  # they start
            continue
        if faults.workers < KILLS and faults.workers <= 2 * len(faults.others) + 1:
            os.kill(known[faults.workers % len(known)], signal.SIGKILL)
            faults.workers += 1
        elif others:
            name = next(iter(others))
            others.pop(name)()
            faults.others.append(name)


def workers() -> list[int]:
    """The ids of the processes that are workers of a sweep."""
    listed = subprocess.run(
        ["ps", "-ww", "-e", "-o", "pid=", "-o", "args="], capture_output=True, text=True, check=True
    )
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if "ray::SweepWorker" in line]


def states(database: postgres.Server) -> list[str]:
    """The states of all trials, in small letters."""
    return [state.lower() for _, state, _ in _trials(database)]


def _trials(database: postgres.Server) -> list[tuple[int, str, float | None]]:
    import psycopg

    query = "SELECT number, state, value FROM trials LEFT JOIN trial_values USING (trial_id) ORDER BY number"
    with closing(psycopg.connect(database.url.replace("+psycopg", ""))) as connection:
        rows: list[tuple[int, str, float | None]] = connection.execute(query).fetchall()
    return rows


def found(database: postgres.Server, server: mlflow_server.Server) -> dict[int, Trial]:
    """The trials, and the runs that the server has of each. Ends this script if a number is there twice."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(server.uri)
    experiments = [each.experiment_id for each in client.search_experiments()]
    runs = client.search_runs(experiments, max_results=1000)
    trials = _trials(database)
    if [number for number, _, _ in trials] != list(range(TRIALS)):
        sys.exit(f"trials {trials}")
    return {
        number: Trial(
            state,
            float("nan") if value is None else value,
            [run.info.status for run in runs if run.data.tags.get("frostline.trial") == str(number)],
        )
        for number, state, value in trials
    }


def main() -> None:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        outcomes = {name: sweep(Path(folder) / name, name == "harmed") for name in ("undisturbed", "harmed")}
    rows = []
    for name, each in outcomes.items():
        complete = sum(trial.state == "COMPLETE" for trial in each.trials.values())
        children = sum(trial.runs == ["FINISHED"] for trial in each.trials.values())
        number, value = each.best
        rows.append(
            [
                name,
                f"{each.seconds:.0f} s",
                f"{each.faults.workers} workers; {', '.join(each.faults.others)}" if each.faults.workers else "nothing",
                f"{complete} of {TRIALS}",
                f"{children} of {TRIALS}",
                f"{number}: {value:.6f}",
            ]
        )
    alone, harmed = (each.trials for each in outcomes.values())
    apart = max(abs(alone[number].value - harmed[number].value) for number in range(TRIALS))
    table.show(
        "faults_cluster",
        f"A sweep of {TRIALS} trials on digits by {WORKERS} workers on a Ray cluster of two nodes, with the study in "
        "PostgreSQL and the runs on an MLflow server with users; all of it on this machine. A fault happens every "
        f"{BETWEEN:.0f} seconds while trials are trained. The largest difference between the values of a trial in both "
        f"sweeps is {apart:.2g}.",
        ["sweep", "time", "killed", "trials complete", "with one finished run", "best trial: validation loss"],
        rows,
    )


if __name__ == "__main__":
    main()
