"""The workers of a sweep as actors of a Ray cluster, which finds a place for each of them, and for their successors.

Ray gives out cores and GPUs; which trial is worth the next epochs is decided by the study, as everywhere.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from frostline.core import ray_cluster
from frostline.core.ray_cluster import Cluster
from frostline.errors import ParamsError, UserError
from frostline.search import assignment, supervision
from frostline.search.assignment import Assignment
from frostline.search.supervision import Outcome

if TYPE_CHECKING:
    from frostline.search.session import Session


def demand(cores: Sequence[int], gpus: Sequence[int], workers: int) -> tuple[int, int]:
    """The cores and GPUs that each of so many workers asks for: a GPU if there are any, else equal parts of the
    smallest node. cores, gpus: of each node. Raises UserError if the cluster is too small."""
    if any(gpus):
        most, what, each = sum(gpus), "GPUs", (1, 1)
    else:
        a_node = math.ceil(workers / len(cores))
        most, what, each = sum(cores), "cores", (max(1, min(cores) // a_node), 0)
    if workers > most:
        raise UserError(f"--workers {workers}: the Ray cluster has {most} {what}; give --workers {most} at most")
    return each


@dataclass(frozen=True)
class RayActors:
    """Actors of a cluster.

    address: see `ray_cluster.connected`; count: None for a worker for each GPU, or for each node if there are none.
    """

    address: str
    count: int | None

    def search(self, own: Session, to_stderr: bool) -> None:
        """See `crews.Crew.search`."""
        with ray_cluster.connected(self.address) as cluster:
            _require_shared(own, cluster)
            count = self.count or sum(cluster.gpus) or len(cluster.cores)
            cores, gpus = demand(cluster.cores, cluster.gpus, count)
            environment = {**ray_cluster.environment(), **({} if gpus else ray_cluster.threads(cores))}
            actor = cluster.ray.remote(SweepWorker).options(num_cpus=cores, num_gpus=gpus, scheduling_strategy="SPREAD")
            own.print_line(f"sweep: {count} workers on {len(cluster.cores)} nodes of Ray")
            with supervision.storage_for_workers(own, cluster.driver) as storage:
                work = supervision.assignments(own, storage, count, to_stderr, environment)
                team = [_Actor(cluster.ray, actor, each) for each in work]
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
            raise ray_cluster.with_host(assignment.portable(error)) from None


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


def _require_shared(own: Session, cluster: Cluster) -> None:
    """Refuse files of this machine as the study or the tracking database, where workers are on others."""
    if own.params.sweep.storage == "journal":
        raise ParamsError(
            "params.yaml: sweep.storage: journal is a file of this machine; set auto, or postgresql://..."
        )
    uri = os.environ.get("MLFLOW_TRACKING_URI") or own.params.tracking.uri
    if cluster.is_elsewhere and not uri.startswith(("http://", "https://", "none")):
        raise ParamsError(
            f"params.yaml: tracking.uri: {uri} is a file of this machine, and workers are on others; name an MLflow "
            "server, or set none"
        )
