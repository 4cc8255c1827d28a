"""The private names of Optuna that this package uses, and no other file does. A test checks that they exist.

Optuna 5.0 has no public way to take a waiting trial of one's own choice, to list the trials whose worker is silent, nor
to stop a gRPC proxy that was started.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, GrpcStorageProxy
from optuna.trial import FrozenTrial, Trial

if TYPE_CHECKING:
    import grpc

# Methods that a database answers besides the public ones of every storage.
DATABASE_METHODS = (
    "record_heartbeat",
    "_get_stale_trial_ids",
    "_create_new_trial",
    "_set_trial_param",
    "_get_trials",
    "_get_best_trial_id",
)


def study_id(study: Study) -> int:
    """The number of a study in its storage."""
    return study._study_id


def trial_id(trial: Trial | FrozenTrial) -> int:
    """The number of a trial in its storage, where trials of all studies are counted together."""
    return trial._trial_id


def suggest(trial: Trial, key: str, distribution: BaseDistribution) -> None:
    """Let the sampler choose the value of one key. `Trial.suggest_*` would build the distribution anew."""
    trial._suggest(key, distribution)


def reported(trial: Trial) -> dict[int, float]:
    """The values that a running trial has reported, by step."""
    return trial._cached_frozen_trial.intermediate_values


def heartbeat(storage: BaseStorage) -> int | None:
    """Seconds between two heartbeats of a worker; None if the storage has no heartbeats."""
    interval = getattr(storage, "get_heartbeat_interval", None)
    return interval() if interval is not None else None


def stale_trial_ids(storage: BaseStorage, study_id: int) -> set[int]:
    """The running trials of a database whose heartbeat is overdue, by their id."""
    return set(storage._get_stale_trial_ids(study_id))  # type: ignore[attr-defined]


def reconnect(proxy: GrpcStorageProxy) -> None:
    """Give a client of the gRPC proxy a new connection."""
    proxy.close()
    proxy._setup()


def proxy_server(storage: BaseStorage, host: str, port: int, threads: ThreadPoolExecutor) -> grpc.Server:
    """The server that `optuna.storages.run_grpc_proxy_server` runs, which can be stopped."""
    from optuna.storages._grpc.server import make_server

    return make_server(storage, host, port, threads)
