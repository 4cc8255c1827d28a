"""What a worker process is told, and what it does: it takes part in a study that another process has planned.

It is sent to processes and to Ray's actors, so nothing here imports Keras before the environment is set.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from frostline import paths
from frostline.core import ray_cluster
from frostline.errors import FrostlineError, StateError, UnreachableError
from frostline.params.schema import Params
from frostline.search.sampling import Settings

T = TypeVar("T")

RETRY = 2.0  # seconds between two tries at a server that is away


@dataclass(frozen=True)
class Assignment:
    """The work of one worker.

    worker: its name, which it keeps when it is started again; project: the folder of the project, the same on all
    machines; params: without `finetune.soup`; study: the name of the study, by which a worker notices that its data or
    settings are others; settings: of the search; storage: where the study is, a value of `sweep.storage` without
    variables; until: seconds since 1970 after which no new trial begins, None for no limit; environment: variables that
    the worker needs; to_stderr: whether progress is printed to standard error.
    """

    worker: str
    project: Path
    params: Params
    study: str
    settings: Settings
    storage: str
    until: float | None
    environment: Mapping[str, str]
    to_stderr: bool

    def work(self) -> None:
        """Work until nothing is left to do. Raises the errors of `Session.search`, and StateError if this machine's
        data or settings are not those of the study."""
        ray_cluster.enter(self.project, self.environment)
        print_line = partial(print, flush=True, file=sys.stderr if self.to_stderr else sys.stdout)
        from frostline.models import backend

        with backend.quiet():
            from frostline.search import session, setup, storages
            from frostline.tracking import model_uris
            from frostline.training import inputs

        locate = model_uris.locator(self.params.tracking)
        training_inputs = inputs.open_all(self.params)
        plan = setup.plan(self.params, training_inputs, locate)
        if plan.name != self.study:
            raise StateError(
                f"{paths.PREPARED}: the data or the weights are not those that the sweep was started with; run "
                "`git pull` and `dvc pull` there"
            )
        plan = replace(plan, settings=self.settings)
        params = self._until_its_end()
        patience = params.sweep.patience
        with ExitStack() as opened:
            storage = _when_reachable(
                lambda: opened.enter_context(storages.opened(self.storage, paths.state(), patience)), patience
            )
            joined = (params, plan, storage, training_inputs, locate, print_line, self.worker)
            own = _when_reachable(lambda: opened.enter_context(session.joined(*joined)), patience)
            own.search()

    def _until_its_end(self) -> Params:
        """The parameters, with the time that is left."""
        if self.until is None:
            return self.params
        left = max(self.until - time.time(), 0.001)
        return self.params.model_copy(update={"sweep": self.params.sweep.model_copy(update={"timeout": left})})


def _when_reachable(enter: Callable[[], T], patience: float) -> T:
    """What `enter` returns, once its server answers: it did when the sweep was started. Raises UnreachableError after
    `patience` seconds."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return enter()
        except UnreachableError:
            if time.monotonic() > deadline:
                raise
            time.sleep(RETRY)


def portable(error: Exception) -> FrostlineError | RuntimeError:
    """An error of a worker as it is sent to another process: one that can be pickled, with its traceback as a note."""
    sent = error if isinstance(error, FrostlineError) else RuntimeError(f"{type(error).__name__}: {error}")
    sent.add_note("".join(traceback.format_exception(error)))
    return sent
