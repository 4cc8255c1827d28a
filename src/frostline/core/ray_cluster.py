"""A Ray cluster: what it has, and how it calls functions for a command of this machine."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from frostline.core.executors import in_order
from frostline.errors import FrostlineError, StateError, UserError

T = TypeVar("T")
R = TypeVar("R")
E = TypeVar("E", bound=Exception)

CONNECT = 5.0  # seconds to reach a cluster, which Ray itself would try for many minutes
AHEAD = 3  # calls for each core that are ready before they are needed
REPEATS = 20  # of a call whose node or process died
# Variables that functions on other machines get, by the beginning of their names.
HANDED_ON = ("KERAS_BACKEND", "FROSTLINE_", "MLFLOW_TRACKING_", "MLFLOW_S3_", "AWS_", "DVC_ROOT")


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process is connected to.

    ray: the module; cores, gpus: of each living node that has cores; hosts: their names; driver: the address of this
    machine.
    """

    ray: Any
    cores: tuple[int, ...]
    gpus: tuple[int, ...]
    hosts: frozenset[str]
    driver: str

    @property
    def is_elsewhere(self) -> bool:
        """Whether some of its nodes are other machines."""
        return any(host != socket.gethostname() for host in self.hosts)

    def map(self, function: Callable[[T], R], arguments: Iterable[T], on_gpu: bool = False) -> Iterator[R]:
        """See `executors.Executor.map`. The functions run in this folder, which all nodes must have. A call whose node
        dies is repeated elsewhere. Raises StateError if that happens again and again."""
        gpus = int(on_gpu and any(self.gpus))
        variables = {**environment(), **({} if gpus else threads(1))}
        shared = self.ray.put((function, Path.cwd(), variables))
        call = self.ray.remote(_call).options(
            num_cpus=1, num_gpus=gpus, max_retries=REPEATS, scheduling_strategy="SPREAD"
        )
        return in_order(partial(call.remote, shared), self.result, arguments, AHEAD * sum(self.cores))

    def result(self, reference: Any) -> Any:
        """The result of a call, or its error. Raises StateError if Ray has lost it."""
        try:
            return self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self.ray.exceptions.RayError as error:
            raise StateError(
                f"Ray gave up ({type(error).__name__}); see `ray status` and the logs of its nodes"
            ) from error


@contextmanager
def connected(address: str) -> Iterator[Cluster]:
    """Connect to the cluster at an address; `auto` is the one that runs here.

    Raises UserError if Ray is not installed, or if no cluster answers.
    """
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
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"--ray {address}: no Ray cluster answers ({reason}); start one by `ray start --head`, or "
            "correct the address"
        ) from error
    try:
        nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        yield Cluster(
            ray,
            cores=tuple(int(node["Resources"]["CPU"]) for node in nodes),
            gpus=tuple(int(node["Resources"].get("GPU", 0)) for node in nodes),
            hosts=frozenset(node["NodeManagerHostname"] for node in nodes),
            driver=ray.util.get_node_ip_address(),
        )
    finally:
        ray.shutdown()


def environment() -> Mapping[str, str]:
    """The variables of this process that functions on other machines need."""
    return {name: value for name, value in os.environ.items() if name.startswith(HANDED_ON)}


def threads(cores: int) -> Mapping[str, str]:
    """The variables by which TensorFlow uses so many cores: it would use all cores of a node."""
    return {f"TF_NUM_{kind}_THREADS": str(cores) for kind in ("INTRAOP", "INTEROP")}


def enter(project: Path, variables: Mapping[str, str]) -> None:
    """Make a project the working directory of this process. Raises StateError if this machine has no such folder."""
    os.environ.update(variables)
    if not project.is_dir():
        raise StateError(f"{project}: not found; every machine of the cluster needs the project at this place")
    os.chdir(project)


def with_host(error: E) -> E:
    """An error with the name of this machine before it."""
    error.args = (f"{socket.gethostname()}: {error}",)
    return error


def _call(shared: tuple[Callable[[Any], Any], Path, Mapping[str, str]], argument: Any) -> Any:
    function, project, variables = shared
    try:
        enter(project, variables)
        return function(argument)
    except FrostlineError as error:
        raise with_host(error) from None
