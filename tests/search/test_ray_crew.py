"""Workers of a sweep on a Ray cluster of two nodes, both on this machine."""

import os
import signal
import subprocess
import threading
import time

import pytest
from test_crews import check_nothing_is_lost_or_doubled
from test_worker import params, project, trials

from frostline.commands import sweep
from frostline.errors import UserError
from frostline.search.ray_crew import Cluster

__all__ = ["project"]  # a fixture


def test_what_a_worker_asks_for():
    assert Cluster((16, 16), (0, 0), frozenset(), "").demand(4) == (8, 0)
    assert Cluster((16, 4), (0, 0), frozenset(), "").demand(3) == (2, 0)
    assert Cluster((1, 1), (0, 0), frozenset(), "").default_workers == 2
    assert Cluster((32,), (4,), frozenset(), "").demand(4) == (1, 1)
    assert Cluster((32,), (4,), frozenset(), "").default_workers == 4
    with pytest.raises(UserError, match="--workers 3: the Ray cluster has 2 cores; give --workers 2 at most"):
        Cluster((1, 1), (0, 0), frozenset(), "").demand(3)


@pytest.fixture
def cluster(monkeypatch):
    """A node with a core for the driver, and one more for workers; both are processes on this machine."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install -e .[ray]")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster as LocalCluster

    made = LocalCluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield made
    made.shutdown()


def actors():
    """The ids of the processes that are workers of a sweep."""
    listed = subprocess.run(
        ["ps", "-ww", "-e", "-o", "pid=", "-o", "args="], capture_output=True, text=True, check=True
    )
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if "ray::SweepWorker" in line]


@pytest.mark.process
def test_a_sweep_on_two_nodes_outlives_a_worker_and_a_node(project, cluster, capfd):
    second = cluster.add_node(num_cpus=1)
    given = params(tracking__uri="auto", sweep__trials=6)

    def harm():
        while not list(project.glob(".frostline/sweeps/*/*.snapshot")):  # no trial has paused yet
            time.sleep(0.1)
        os.kill(actors()[0], signal.SIGKILL)
        time.sleep(3)
        cluster.remove_node(second)

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
