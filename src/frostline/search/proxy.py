"""A study behind Optuna's gRPC proxy: one process has the database open, and its clients are the workers.

So dozens of workers keep one connection to the database instead of dozens, and workers may share a SQLite file, which
one process alone can have open. The proxy knows no heartbeats; the clients send them as notes of their trials.
"""

from __future__ import annotations

import contextlib
import socket
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from optuna.storages import BaseStorage, GrpcStorageProxy
from optuna.trial import TrialState

from frostline.errors import StateError, UnreachableError
from frostline.search import optuna_internals
from frostline.search.patience import Patient, make_patient
from frostline.search.sampling import quiet

SCHEME = "grpc://"
BEAT = "beat"  # the note of a trial that its worker changes again and again


class Proxy(Patient, GrpcStorageProxy):
    """Optuna's client of a proxy, with patience and heartbeats."""

    server = "proxy"

    def __init__(self, address: str, heartbeat: int | None, patience: float = 0.0) -> None:
        """address: HOST:PORT; heartbeat: seconds between two, None if the workers know each other's death otherwise."""
        host, _, port = address.rpartition(":")
        self.place, self.patience = f"{SCHEME}{address}", patience
        self._heartbeat, self._seen = heartbeat, dict[int, tuple[str, float]]()
        with quiet():
            super().__init__(host=host, port=int(port))

    def why_away(self, error: Exception) -> str | None:
        import grpc

        if not isinstance(error, grpc.RpcError):
            return None
        words = " ".join((error.details() or "").split())[:160]
        if error.code() == grpc.StatusCode.UNAVAILABLE:
            optuna_internals.reconnect(self)  # at once; gRPC itself would wait up to two minutes between tries
            return words
        raise StateError(f"{self.place} refuses to work ({words}); see what the proxy printed") from error

    def get_heartbeat_interval(self) -> int | None:
        """Seconds between two heartbeats, None if there are none."""
        return self._heartbeat

    def record_heartbeat(self, trial_id: int) -> None:
        """Say that the worker of a trial is alive."""
        self.set_trial_user_attr(trial_id, BEAT, uuid.uuid4().hex[:8])

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        """The running trials whose heartbeat this process has not seen change for three times the interval.

        So the clocks of the machines need not agree.
        """
        now, silent = time.monotonic(), 3 * (self._heartbeat or 0)
        running = self.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,))
        beats = {optuna_internals.trial_id(trial): str(trial.user_attrs.get(BEAT)) for trial in running}
        known = self._seen
        self._seen = {
            trial: known[trial] if trial in known and known[trial][0] == beat else (beat, now)
            for trial, beat in beats.items()
        }
        if self.seconds_since_back < silent:  # all workers have time to send a heartbeat
            return []
        return [trial for trial, (_, since) in self._seen.items() if now - since > silent]


make_patient(Proxy)


def opened(url: str, heartbeat: int, patience: float) -> Proxy:
    """A client of the proxy at grpc://HOST:PORT. Raises UnreachableError if it does not answer."""
    address = url.removeprefix(SCHEME)
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise StateError(f"params.yaml: sweep.storage {url}: write grpc://HOST:PORT, auto, journal or a database's URL")
    proxy = Proxy(address, heartbeat, patience)
    try:
        proxy.wait_server_ready(timeout=max(patience, 5.0))
    except ConnectionError as error:
        raise UnreachableError(
            f"params.yaml: sweep.storage {url} is not reachable; check that the proxy runs, and that host and port are "
            "right"
        ) from error
    return proxy


@contextlib.contextmanager
def serving(storage: BaseStorage, host: str, threads: int) -> Iterator[str]:
    """Serve a storage on a free port of an address of this machine; yields the proxy's address, HOST:PORT.

    threads: requests that are answered at a time, one for a storage that only one thread may use. Whoever reaches the
    address can change the study.
    """
    with socket.create_server((host, 0)) as free:
        port = free.getsockname()[1]
    with quiet():
        server = optuna_internals.proxy_server(storage, host, port, ThreadPoolExecutor(threads))
    server.start()
    try:
        yield f"{host}:{port}"
    finally:
        server.stop(grace=1).wait()
