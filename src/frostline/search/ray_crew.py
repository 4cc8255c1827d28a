"""The workers of a sweep as actors of a Ray cluster, which finds a place for each of them, and for their successors.

Ray gives out cores and GPUs; which trial is worth the next epochs is decided by the study, as everywhere.
"""

from __future__ import annotations

import logging
import math
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from frostline.errors import ParamsError, UserError
from frostline.search import assignment, supervision
from frostline.search.assignment import Assignment
from frostline.search.supervision import Outcome

if TYPE_CHECKING:
    from frostline.search.session import Session

CONNECT = 5.0  # seconds to reach a cluster, which Ray itself would try for many minutes
# Variables that workers on other machines get, by the beginning of their names.
HANDED_ON = ("KERAS_BACKEND", "FROSTLINE_", "MLFLOW_TRACKING_", "MLFLOW_S3_", "AWS_", "DVC_ROOT")


@dataclass(frozen=True)
class Cluster:
    """What a Ray cluster has. cores, gpus: of each living node; driver: the address of this machine."""

    cores: tuple[int, ...]
    gpus: tuple[int, ...]
    hosts: frozenset[str]
    driver: str

    def demand(self, workers: int) -> tuple[int, int]:
        """The cores and GPUs that each of so many workers asks for: a GPU if there are any, else equal parts of the
        smallest node. Raises UserError if the cluster is too small."""
        if any(self.gpus):
            most, what, each = sum(self.gpus), "GPUs", (1, 1)
        else:
            a_node = math.ceil(workers / len(self.cores))
            most, what, each = sum(self.cores), "cores", (max(1, min(self.cores) // a_node), 0)
        if workers > most:
            raise UserError(f"--workers {workers}: the Ray cluster has {most} {what}; give --workers {most} at most")
        return each

    @property
    def default_workers(self) -> int:
        """A worker for each GPU, or for each node if there are none."""
        return sum(self.gpus) or len(self.cores)


@dataclass(frozen=True)
class RayActors:
    """Actors of a cluster.

    address: `auto` for the cluster that runs here; count: None for `Cluster.default_workers`.
    """

    address: str
    count: int | None

    def search(self, own: Session, to_stderr: bool) -> None:
        """See `crews.Crew.search`."""
        with _connected(self.address) as ray:
            cluster = _cluster(ray)
            _require_shared(own, cluster)
            count = self.count or cluster.default_workers
            cores, gpus = cluster.demand(count)
            environment = _environment(None if gpus else cores)
            actor = ray.remote(SweepWorker).options(num_cpus=cores, num_gpus=gpus, scheduling_strategy="SPREAD")
            own.print_line(f"sweep: {count} workers on {len(cluster.cores)} nodes of Ray")
            with supervision.storage_for_workers(own, cluster.driver) as storage:
                work = supervision.assignments(own, storage, count, to_stderr, environment)
                team = [_Actor(ray, actor, each) for each in work]
                try:
                    supervision.until_all_are_done(own, team, _ended)
                finally:
                    for member in team:
                        member.end()
                    supervision.free(own, team)


class SweepWorker:
    """A worker on some machine. Ray puts this name before the lines that it prints."""

    def work(self, each: Assignment) -> None:
        try:
            each.work()
        except Exception as error:
            sent = assignment.portable(error)
            sent.args = (f"{socket.gethostname()}: {sent}",)
            raise sent from None


class _Actor:
    """A `SweepWorker` as the driver sees it. options: the class with what each asks for."""

    handle: Any = None
    result: Any = None

    def __init__(self, ray: Any, options: Any, each: Assignment) -> None:
        self.ray, self.options, self.assignment = ray, options, each

    def start(self) -> None:
        self.handle = self.options.remote()
        self.result = self.handle.work.remote(self.assignment)

    def outcome(self) -> Outcome:
        """How the actor ended."""
        try:
            self.ray.get(self.result)
        except self.ray.exceptions.RayTaskError as error:
            cause: Exception = error.cause
            return cause
        except self.ray.exceptions.RayError as error:  # of a worker or its node; Ray prints which
            return type(error).__name__
        return None

    def end(self) -> None:
        """End the actor if it was started."""
        if self.handle is not None:
            self.ray.kill(self.handle)


def _ended(at_work: Sequence[_Actor], timeout: float) -> list[tuple[_Actor, Outcome]]:
    done, _ = at_work[0].ray.wait([member.result for member in at_work], timeout=timeout)
    return [(member, member.outcome()) for member in at_work if member.result in done]


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Ray, connected to a cluster. Raises UserError if it is not installed or does not answer."""
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # or lines of trials would be left out
    try:
        import ray
    except ImportError:
        raise UserError("--ray needs Ray, which is not installed; pip install 'frostline[ray]'") from None
    try:
        host, _, port = address.rpartition("/")[2].rpartition(":")
        if port.isdecimal():
            socket.create_connection((host, int(port)), CONNECT).close()
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"--ray {address}: no Ray cluster answers ({_line(error)}); start one by `ray start --head`, or correct "
            "the address"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _cluster(ray: Any) -> Cluster:
    nodes = [node for node in ray.nodes() if node["Alive"]]
    return Cluster(
        cores=tuple(int(node["Resources"].get("CPU", 0)) for node in nodes),
        gpus=tuple(int(node["Resources"].get("GPU", 0)) for node in nodes),
        hosts=frozenset(node["NodeManagerHostname"] for node in nodes),
        driver=ray.util.get_node_ip_address(),
    )


def _require_shared(own: Session, cluster: Cluster) -> None:
    """Refuse files of this machine as the study or the tracking database, where workers are on others."""
    if own.params.sweep.storage == "journal":
        raise ParamsError(
            "params.yaml: sweep.storage: journal is a file of this machine; set auto, or postgresql://..."
        )
    uri = os.environ.get("MLFLOW_TRACKING_URI") or own.params.tracking.uri
    is_away = any(host != socket.gethostname() for host in cluster.hosts)
    if is_away and not uri.startswith(("http://", "https://", "none")):
        raise ParamsError(
            f"params.yaml: tracking.uri: {uri} is a file of this machine, and workers are on others; name an MLflow "
            "server, or set none"
        )


def _environment(cores: int | None) -> Mapping[str, str]:
    """The variables that workers need. cores: of each, None for GPUs: TensorFlow would use all cores of a node."""
    handed_on = {name: value for name, value in os.environ.items() if name.startswith(HANDED_ON)}
    if cores is None:
        return handed_on
    return {**handed_on, **{f"TF_NUM_{kind}_THREADS": str(cores) for kind in ("INTRAOP", "INTEROP")}}


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]
