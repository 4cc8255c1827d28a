"""Workers of a sweep on a Ray cluster of two nodes, both on this machine."""

import os
import signal
import threading
import time

import pytest
import ray_nodes
from test_crews import check_nothing_is_lost_or_doubled
from test_worker import params, project, trials

from frostline.commands import sweep
from frostline.errors import UserError
from frostline.search.ray_crew import demand

__all__ = ["project"]  # a fixture


def test_what_a_worker_asks_for():
    assert demand((16, 16), (0, 0), 4) == (8, 0)
    assert demand((16, 4), (0, 0), 3) == (2, 0)
    assert demand((32,), (4,), 4) == (1, 1)
    with pytest.raises(UserError, match="--workers 3: the Ray cluster has 2 cores; give --workers 2 at most"):
        demand((1, 1), (0, 0), 3)


@pytest.fixture
def cluster():
    with ray_nodes.running() as nodes:
        yield nodes


@pytest.mark.process
def test_a_sweep_on_two_nodes_outlives_a_worker_and_a_node(project, cluster, capfd):
    given = params(tracking__uri="auto", sweep__trials=6)

    def harm():
        while not list(project.glob(".frostline/sweeps/*/*.snapshot")):  # no trial has paused yet
            time.sleep(0.1)
        os.kill(ray_nodes.processes("SweepWorker")[0], signal.SIGKILL)
        time.sleep(3)
        cluster.remove_node(next(iter(cluster.worker_nodes)))

    harming = threading.Thread(target=harm)
    harming.start()
    text = sweep.run(given, workers=2, ray=cluster.address)
    harming.join()
    assert text.startswith("sweep: 6 of 6 trials (")
    assert "sweep: 2 workers on 2 nodes of Ray" in capfd.readouterr().out
    check_nothing_is_lost_or_doubled(given, 6, trials())
    assert sweep.run(given).startswith(text.splitlines()[0])  # one worker reads the same study


@pytest.mark.process
def test_a_cluster_that_does_not_answer_is_one_line(project):
    with pytest.raises(UserError, match=r"--ray 127\.0\.0\.1:1: no Ray cluster answers .*; start one by `ray start"):
        sweep.run(params(), ray="127.0.0.1:1")
