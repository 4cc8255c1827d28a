"""Servers of faults.py that go away while commands need them: PostgreSQL under a sweep, MLflow under trainings."""

from __future__ import annotations

import csv
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import faults_content
import faults_project
from faults_project import ROOT, Place, Process

Row = tuple[str, str, str]

AWAY = 4.0  # seconds
LONG = {"finetune": {"head_epochs": 8, "epochs": 24}}
TRIALS = 12


# What is restarted, under which command, and how to find out what comes of it.
CASES: tuple[tuple[str, str, Callable[[Place], str]], ...] = (
    ("MLflow's server", "finetune", lambda place: mlflow_under(place, "augmented", ["finetune"], "head   1/")),
    ("MLflow's server", "sweep", lambda place: mlflow_under(place, "searchable", ["sweep"], "\ntrial ")),
    ("PostgreSQL, twice", "sweep, two workers", lambda place: postgresql(place)),
)


def row(place: Place, number: int) -> Row:
    """A row of the table."""
    sys.path.append(str(ROOT / "tests"))
    server, command, measure = CASES[number]
    return server, command, measure(place)


def wait_for(place: Place, words: str, processes: Sequence[Process]) -> None:
    """Wait until a command has printed something; it must not have ended by then."""
    end = time.monotonic() + faults_project.LONGEST
    while words not in place.log.read_text(errors="replace"):
        if time.monotonic() > end or any(process.wait(0) is not None for process in processes):
            raise SystemExit(f"did not print {words!r}:\n{place.log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.01)


def mlflow_under(place: Place, start: str, command: list[str], words: str) -> str:
    """Kill the server once the command has printed those words, start it again, and compare with a run that had it."""
    from mlflow_server import Server

    expected = _runs(place, start, command, None)
    folder = place.state / "server"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    server = Server(folder)
    server.start()

    def lose(process: Process) -> None:
        wait_for(place, words, [process])
        server.kill()
        time.sleep(AWAY)
        server.start()

    try:
        found = _runs(place, start, command, server.uri, lose)
    finally:
        server.kill()
    differ = faults_content.differences(found, expected)
    runs = sum(key.endswith(", status") for key in found)
    epochs = sum('"val_loss"' in part for value in found.values() for part in value.split("["))
    same = "as with a server that stays" if not differ else f"DIFFERS: {', '.join(differ)}"
    return f"{runs} runs, {epochs} epochs of theirs recorded; {same}"


def _runs(
    place: Place,
    start: str,
    command: list[str],
    uri: str | None,
    lose: Callable[[Process], None] | None = None,
) -> dict[str, str]:
    """What MLflow knows of runs after a command. lose: called while it runs; uri: of a server, default mlflow.db."""
    place.use(start)
    faults_project.change(place.project, LONG if command == ["finetune"] else {"sweep": {"trials": TRIALS}})
    if uri:
        faults_project.change(place.project, {"tracking": {"uri": uri}})
    process = place.start(command)
    if lose:
        lose(process)
    status = process.wait()
    if status != 0:
        raise SystemExit(f"{command}: exit status {status}\n{place.log.read_text()[-3000:]}")
    place.run(faults_project.connect)  # the next command that reaches the server sends what waits
    left = list(place.project.glob(".frostline/outbox/*/calls.jsonl"))
    known = faults_content.tracked(place.state / "server/server.db" if uri else place.project / "mlflow.db")
    found = {key: value for key, value in known.items() if key.startswith("mlflow: run")}
    return found | ({"calls in outboxes": str(len(left))} if left else {})


def postgresql(place: Place) -> str:
    """Two workers search while the database restarts at once, and is then stopped for some seconds."""
    try:
        import postgres
        import psycopg
    except ImportError as error:
        return f"not measured: {error}"
    if not (shutil.which("pg_ctl") or list(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))):
        return "not measured: PostgreSQL is not installed"
    folder = place.state / "database"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    place.use("searchable")
    with postgres.running(folder) as server:
        storage = {"storage": server.url, "trials": TRIALS, "patience": 60}
        faults_project.change(place.project, {"sweep": storage})
        workers = [place.start(["sweep"]) for _ in range(2)]
        wait_for(place, "\ntrial ", workers)
        server.control("-m", "immediate", "restart")
        time.sleep(1)
        server.control("-m", "fast", "stop")
        time.sleep(AWAY)
        server.control("start")
        statuses = [worker.wait() for worker in workers]
        with closing(psycopg.connect(server.url.replace("+psycopg", ""))) as database:
            trials = database.execute("SELECT number, state FROM trials ORDER BY number").fetchall()
    return _judged(place, statuses, trials)


def _judged(place: Place, statuses: Sequence[int | None], trials: Sequence[tuple[Any, ...]]) -> str:
    """In words, what two workers made of the trials."""
    known = faults_content.tracked(place.project / "mlflow.db")
    runs = [key for key in known if key.startswith("mlflow: run of trial") and key.endswith(", status")]
    with (place.project / "reports/sweep/trials.csv").open() as file:
        reported = list(csv.DictReader(file))
    once = [number for number, _ in trials] == list(range(TRIALS))
    over = all(state in ("COMPLETE", "PRUNED") for _, state in trials)
    children = sorted(runs) == sorted(
        f"mlflow: run of trial {number}, status" for number in [*map(str, range(TRIALS)), "none"]
    )
    good = statuses == [0, 0] and once and over and children and len(reported) == TRIALS
    said = f"{len(trials)} trials of {TRIALS}, each once and ended" if once and over else f"trials {trials}"
    return f"{said}; {len(runs) - 1} child runs; exit status {statuses}; {'as it must be' if good else 'WRONG'}"
