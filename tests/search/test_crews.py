"""Several processes search one study: nothing is lost or doubled, whoever is killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from test_worker import params, project, runs, trials

from frostline.commands import sweep
from frostline.errors import StateError, UserError

__all__ = ["project"]  # a fixture

pytestmark = pytest.mark.process


def workers_of(parent):
    """The ids of the processes that a process has started as workers of a sweep."""
    listed = subprocess.run(
        ["ps", "-ww", "-o", "pid=", "-o", "args=", "--ppid", str(parent)], capture_output=True, text=True, check=False
    ).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if "spawn_main" in line]


def check_nothing_is_lost_or_doubled(given, count, known):
    assert [trial.number for trial in known] == list(range(count))
    assert {trial.state.name for trial in known} <= {"COMPLETE", "PRUNED"}
    children = [run for run in runs(given) if run.data.tags["frostline.trial"] != "none"]
    assert sorted(int(run.data.tags["frostline.trial"]) for run in children) == list(range(count))
    for run in children:
        trial = known[int(run.data.tags["frostline.trial"])]
        assert run.data.tags["frostline.state"] == trial.state.name.lower()
        assert run.info.status == {"COMPLETE": "FINISHED", "PRUNED": "KILLED"}[trial.state.name]


def test_two_processes_search_one_study_and_a_killed_one_is_started_again(project, capfd):
    given = params(tracking__uri="auto", sweep__trials=6)
    killed = []

    def kill_one_at_work():
        while not killed:
            if list(project.glob(".frostline/sweeps/*/*.snapshot")):  # a trial has paused
                killed.extend(workers_of(os.getpid())[:1])
                os.kill(killed[0], signal.SIGKILL)
            time.sleep(0.1)

    killing = threading.Thread(target=kill_one_at_work, daemon=True)
    killing.start()
    text = sweep.run(given, workers=2)
    killing.join()
    assert text.startswith("sweep: 6 of 6 trials (")
    printed = capfd.readouterr()
    assert "sweep: worker 0 died (SIGKILL); starting it again" in printed.out
    assert "oneDNN" not in printed.err  # TensorFlow's own lines
    check_nothing_is_lost_or_doubled(given, 6, trials())
    assert workers_of(os.getpid()) == []
    assert not list(project.glob(".frostline/sweeps/*/worker-*"))
    again = sweep.run(given)  # one worker reads the same study
    assert again.startswith(text.splitlines()[0])


@pytest.mark.slow  # test_supervision.py has the quick one
def test_the_error_of_a_worker_is_that_of_the_sweep(project):
    given = params(sweep__space={"finetune.learning_rate": {"low": 1e30, "high": 1e31, "log": True}}, sweep__trials=8)
    with pytest.raises(UserError, match=r"sweep\.space: the first \d trials failed"):
        sweep.run(given, workers=2)
    assert workers_of(os.getpid()) == []


def test_workers_end_with_the_sweep_that_started_them(project):
    params(sweep__trials=40, sweep__storage="journal", sweep__pruner="none")
    command = [sys.executable, "-m", "frostline", "sweep", "--workers", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        next(line for line in process.stdout if line.startswith("trial"))
        workers = workers_of(process.pid)
        process.kill()
    assert len(workers) == 2
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{each}").exists() for each in workers) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not any(Path(f"/proc/{each}").exists() for each in workers)


def test_workers_that_die_at_once_end_the_sweep(project, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(project))
    (project / "sitecustomize.py").write_text(
        "import os, sys\nif '--multiprocessing-fork' in sys.orig_argv: os.abort()\n"
    )
    with pytest.raises(StateError, match=r"the workers died \d+ times and no trial went on, the last one by SIGABRT"):
        sweep.run(params(), workers=2)
