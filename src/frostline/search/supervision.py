"""Workers in processes of their own: what they are told, and how dead ones are started again.

It is the same for processes on this machine and for actors of a Ray cluster.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

from frostline.errors import StateError
from frostline.params import variables
from frostline.search import proxy
from frostline.search.assignment import Assignment

if TYPE_CHECKING:  # worker processes read this file before the environment is set that Keras reads
    from frostline.search.session import Session

DEATHS = 3  # of each worker, without a step forward of the study, that end a sweep
LEAVE = 15.0  # seconds for the other workers when the study is finished

# How a worker ended: None if its work is done, the error that ended it, or in words how it died.
Outcome: TypeAlias = Exception | str | None


class Member(Protocol):
    """A worker that can be started again. assignment: its work."""

    @property
    def assignment(self) -> Assignment: ...

    def start(self) -> None:
        """Begin the work, or continue what a dead predecessor left."""


M = TypeVar("M", bound=Member)


class Ended(Protocol[M]):
    """Waits for workers."""

    def __call__(self, at_work: Sequence[M], timeout: float) -> Sequence[tuple[M, Outcome]]:
        """Those that have ended, and how; waits for the first of them, so many seconds at most."""


def assignments(
    own: Session, storage: str, count: int, to_stderr: bool, environment: Mapping[str, str] | None = None
) -> list[Assignment]:
    """The work of `count` workers. storage: see `storage_for_workers`; environment: variables that they need."""
    timeout = own.params.sweep.timeout
    return [
        Assignment(
            worker=f"{own.study.liveness.worker}.{number}",
            project=Path.cwd(),
            params=own.params,
            study=own.plan.name,
            settings=own.plan.settings,
            storage=storage,
            until=None if timeout is None else time.time() + timeout,
            environment=environment or {},
            to_stderr=to_stderr,
        )
        for number in range(count)
    ]


@contextmanager
def storage_for_workers(own: Session, host: str) -> Iterator[str]:
    """Where workers find the study, as they understand `sweep.storage`. host: an address of this machine that they
    reach: a SQLite file is open in this process alone, which serves it there."""
    setting = variables.expanded(own.params.sweep.storage, "sweep.storage")
    if setting != "auto" and not setting.startswith("sqlite:"):
        yield setting
        return
    with proxy.serving(own.storage, host, threads=1) as address:
        yield f"{proxy.SCHEME}{address}"


def until_all_are_done(own: Session, team: Sequence[M], ended: Ended[M]) -> None:
    """Start the workers, and dead ones again, until nothing is left to do.

    A worker that has not come back some seconds after the study is finished is not waited for: its machine may be gone.
    Raises the error of the first worker that can't work, and StateError if workers die and no trial goes on.
    """
    for member in team:
        member.start()
    at_work, deadline = list(team), math.inf
    steps, deaths = -1, 0
    while at_work and time.monotonic() < deadline:
        for member, outcome in ended(at_work, 1.0):
            if isinstance(outcome, Exception):
                raise outcome
            if outcome is None:
                at_work.remove(member)
                if deadline == math.inf and all(trial.is_finished for trial in own.study.trials()):
                    deadline = time.monotonic() + LEAVE
                continue
            own.study.free([member.assignment.worker])
            before, steps = steps, sum(len(trial.reported) + trial.is_finished for trial in own.study.trials())
            deaths = 1 if steps > before else deaths + 1
            if deaths > DEATHS * len(team):
                raise StateError(
                    f"the workers died {deaths} times and no trial went on, the last one by {outcome}; start fewer "
                    "(--workers), which need less memory"
                )
            own.print_line(f"sweep: worker {team.index(member)} died ({outcome}); starting it again")
            member.start()


def free(own: Session, team: Sequence[Member]) -> None:
    """Put the trials that workers had back into the pool. The workers must have been ended."""
    own.study.free([member.assignment.worker for member in team])
