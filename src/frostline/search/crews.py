"""Who does the work of a sweep: this process alone, or several on this machine. Those on Ray are in ray_crew.py."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Protocol

from frostline.core import machine
from frostline.search import assignment, supervision
from frostline.search.assignment import Assignment
from frostline.search.supervision import Outcome

if TYPE_CHECKING:
    from frostline.search.session import Session

GRACE = 10.0  # seconds that an interrupted worker has to leave


class Crew(Protocol):
    """Those who work on the trials of a sweep."""

    def search(self, own: Session, to_stderr: bool) -> None:
        """Work until nothing is left to do, or the time is over.

        own: the part of this process, which has joined the study; to_stderr: where workers print their progress. Raises
        UserError if a worker can't work, or if workers die again and again.
        """


class Alone:
    """This process."""

    def search(self, own: Session, to_stderr: bool) -> None:
        own.search()


@dataclass(frozen=True)
class LocalProcesses:
    """Several processes on this machine. Each has a GPU, if there are any, and its share of the cores."""

    count: int

    def search(self, own: Session, to_stderr: bool) -> None:
        with supervision.storage_for_workers(own, "127.0.0.1") as storage:
            work = supervision.assignments(own, storage, self.count, to_stderr)
            team = [_WorkerProcess(each, share) for each, share in zip(work, _shares(self.count), strict=True)]
            try:
                supervision.until_all_are_done(own, team, _ended)
            except KeyboardInterrupt:  # the terminal has sent it to the workers too
                for member in team:
                    member.process.join(GRACE)
                raise
            finally:
                for member in team:
                    member.end()
                supervision.free(own, team)


@dataclass(frozen=True)
class _Share:
    """What a worker has of this machine. cores: their numbers, empty for all; gpu: its name for CUDA, None for none."""

    cores: tuple[int, ...]
    gpu: str | None


def _shares(count: int) -> list[_Share]:
    """What each of so many workers has."""
    cores, gpus = machine.core_numbers(), machine.gpus()
    return [
        _Share(tuple(cores[number::count]) if count <= len(cores) else (), gpus[number % len(gpus)] if gpus else None)
        for number in range(count)
    ]


class _WorkerProcess:
    """A worker process, which can be started again."""

    process: BaseProcess
    results: Connection

    def __init__(self, each: Assignment, share: _Share) -> None:
        self.assignment, self.share = each, share

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would share TensorFlow's threads and locks
        self.results, results = context.Pipe(duplex=False)
        arguments = (self.assignment, self.share, results)
        self.process = context.Process(target=_work, args=arguments, daemon=True)
        self.process.start()
        results.close()

    def outcome(self) -> Outcome:
        """How the process ended."""
        try:  # before the process is waited for: it stays until a long error has left the pipe
            if self.results.poll():
                result: Exception | None = self.results.recv()
                return result
        except (EOFError, OSError):
            pass
        finally:
            self.process.join()
        code = self.process.exitcode or 0
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def end(self) -> None:
        """End the process if it was started and lives."""
        if hasattr(self, "process"):
            self.process.kill()
            self.process.join()


def _ended(at_work: Sequence[_WorkerProcess], timeout: float) -> list[tuple[_WorkerProcess, Outcome]]:
    ready = wait([each for member in at_work for each in (member.process.sentinel, member.results)], timeout)
    return [
        (member, member.outcome()) for member in at_work if member.process.sentinel in ready or member.results in ready
    ]


def _work(each: Assignment, share: _Share, results: Connection) -> None:
    """The main function of a worker process."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if share.cores and hasattr(os, "sched_setaffinity"):  # not on macOS
        os.sched_setaffinity(0, share.cores)
    if share.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = share.gpu
    try:
        each.work()
        results.send(None)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        results.send(assignment.portable(error))


def _end_with_parent() -> None:
    """End this process when its parent is killed, which could not end it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
