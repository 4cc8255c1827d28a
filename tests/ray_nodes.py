"""A Ray cluster of two nodes, which are processes on this machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def running(cores: int = 1) -> Iterator[Any]:
    """The cluster, with so many cores a node; the test is skipped where Ray is not installed."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install -e .[ray]")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": cores, "include_dashboard": False})
    made.add_node(num_cpus=cores)
    try:
        yield made
    finally:
        made.shutdown()


def processes(name: str) -> list[int]:
    """The ids of Ray's processes that run a function or an actor of that name."""
    listed = subprocess.run(
        ["ps", "-ww", "-e", "-o", "pid=", "-o", "args="], capture_output=True, text=True, check=True
    )
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if f"ray::{name}" in line]
