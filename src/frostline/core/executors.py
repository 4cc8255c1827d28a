"""Where work on many images is done: in processes of this machine, or by a Ray cluster (ray_cluster.py).

The work is a function that can be pickled. What it returns depends on its argument alone, so a call may be repeated.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, Protocol, TypeVar

from frostline.errors import InternalError

T = TypeVar("T")
R = TypeVar("R")
F = TypeVar("F")

AHEAD = 16  # calls for each worker that are ready before they are needed


class Executor(Protocol):
    """Calls functions on another machine, or elsewhere on this one."""

    def map(self, function: Callable[[T], R], arguments: Iterable[T], on_gpu: bool = False) -> Iterator[R]:
        """The results, in the order of the arguments, of which few are taken ahead. Raises what the function raises.

        on_gpu: whether the function is a network's, which runs on a GPU where there is one.
        """


@dataclass(frozen=True)
class Processes:
    """Processes of this machine.

    handover: a path in a folder of the caller's, where the function lies meanwhile; begin: is called in each process,
    before its first work, with what `shared` has made in this one.
    """

    count: int
    handover: Path
    begin: Callable[..., None]
    shared: Callable[[BaseContext], Sequence[Any]]

    def map(self, function: Callable[[T], R], arguments: Iterable[T], on_gpu: bool = False) -> Iterator[R]:
        """See `Executor.map`; all processes see all GPUs. Raises InternalError if a process dies."""
        # The function is read from a file: if a worker died while it reads a pipe, the parent would wait forever.
        self.handover.write_bytes(pickle.dumps(function))
        context = get_context(_start_method())
        given = (self.handover, os.getpid(), self.begin, self.shared(context))
        try:
            with ProcessPoolExecutor(self.count, context, _begin, given) as pool:
                # Not pool.map, which would keep all arguments.
                yield from in_order(lambda each: pool.submit(_call, each), Future.result, arguments, AHEAD * self.count)
        except BrokenProcessPool:
            raise InternalError("a worker process died, probably for lack of memory; free some and repeat") from None
        finally:
            self.handover.unlink()  # not earlier: a worker may start when the others have done all the work


def in_order(begin: Callable[[T], F], result: Callable[[F], R], arguments: Iterable[T], ahead: int) -> Iterator[R]:
    """The results of calls, in the order of their arguments.

    begin: starts a call elsewhere; result: waits for what it gives; ahead: calls that may be begun before they are
    needed.
    """
    waiting: deque[F] = deque()
    for each in arguments:
        waiting.append(begin(each))
        if len(waiting) > ahead:
            yield result(waiting.popleft())
    while waiting:
        yield result(waiting.popleft())


def _start_method() -> str:
    """How worker processes start: by fork, in milliseconds, unless threads run that don't survive a fork."""
    is_alone = threading.active_count() == 1 and not {"tensorflow", "jax", "torch"} & sys.modules.keys()
    return "fork" if is_alone and sys.platform == "linux" else "spawn"


_function: Callable[[Any], Any]  # set once in each worker process, so that it is not sent with every call


def _begin(handover: Path, parent: int, begin: Callable[..., None], shared: Sequence[Any]) -> None:
    global _function
    begin(*shared)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _function = pickle.loads(handover.read_bytes())


def _end_with(parent: int) -> None:
    """End this worker when its parent is killed: otherwise it would wait for the next call forever."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _call(argument: Any) -> Any:
    return _function(argument)
