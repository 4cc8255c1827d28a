"""Where runs in MLflow go, and how they are found.

One training is one run. It is found by tags, never by a run id in a file: by `frostline.job` while it trains, so that a
resumed training continues in the same run, and afterwards by `frostline.bundle`, the digest of the trained bundle.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from frostline import paths
from frostline.core import atomic, digest
from frostline.core.masking import HIDDEN, masked
from frostline.errors import StateError, UnreachableError
from frostline.params import variables
from frostline.params.schema import TrackingSection
from frostline.tracking import local_database, outbox, relocation
from frostline.tracking.contact import Contact, reachable
from frostline.tracking.run_writer import RunSpec, RunWriter, State
from frostline.tracking.runs import NullRun, Run, TrackedRun, send

JOB, BUNDLE, CHOICE = "frostline.job", "frostline.bundle", "frostline.choice"

# With this tag MLflow's UI opens the experiment with its table of runs, and not with its page for language models.
TRAINING = {"mlflow.experimentKind": "custom_model_development"}

# MLflow reads these variables when it is imported.
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",  # seconds; the default of 120 would hold up a training
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # frostline prints it once, and not for each trial
    "GIT_PYTHON_REFRESH": "quiet",
}


DATABASE_TRIES = 5  # within 3 seconds; MLflow's default of 10 takes 102 seconds


@dataclass(frozen=True)
class Tracker:
    """Where runs go.

    uri: an MLflow tracking URI or `none`; artifacts: the folder for the files of a local database; state: the folder
    of the outboxes and of the lock for the creation of that database.
    """

    uri: str
    experiment: str
    artifacts: Path
    state: Path

    @contextmanager
    def training(self, job: str, name: str) -> Iterator[Run]:
        """The run of a training: the one that an interrupted or killed process left for the same job, or a new one."""
        find = f"tags.`{JOB}` = '{job}' and attributes.status != 'FINISHED' and attributes.status != 'FAILED'"
        with self._whole(find, name, {JOB: job}, without=BUNDLE) as run:
            yield run

    @contextmanager
    def result(self, bundle: str, name: str) -> Iterator[Run]:
        """The latest run that produced a bundle, by its digest, or else a new one."""
        with self._whole(f"tags.`{BUNDLE}` = '{bundle}'", name, {BUNDLE: bundle}) as run:
            yield run

    @contextmanager
    def choice(self, identity: str, name: str) -> Iterator[Run]:
        """The run of what `frostline choose` measured, by the digest of that, or else a new one."""
        with self._whole(f"tags.`{CHOICE}` = '{identity}'", name, {CHOICE: identity}) as run:
            yield run

    @contextmanager
    def _whole(self, find: str, name: str, tags: Mapping[str, str], without: str | None = None) -> Iterator[Run]:
        """A run whose status becomes finished or failed at the end of the block."""
        if self.uri == "none":
            yield NullRun()
            return
        contact = Contact(self.uri)
        run = self.run(RunSpec(self.connect(), find, name, tags, without), contact)
        is_training = without is not None
        if is_training and run.state.has_ended:
            run.status("RUNNING")
        status = "FAILED"
        try:
            yield run
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            if is_training or not run.state.has_ended:  # an evaluation does not change its training's status
                with nullcontext() if status == "FINISHED" else suppress(StateError):
                    run.status(status)
            contact.retry()
            if not run.close():
                self.warn_of_outbox()

    def run(self, spec: RunSpec, contact: Contact, may_be_away: bool = False) -> TrackedRun:
        """Open a run. Raises StateError if the server does not answer, unless it may be away."""
        self.require_writable()
        writer = RunWriter(spec)
        state = State()
        try:
            with contact.answering():
                state = writer.open()
        except UnreachableError:
            if not may_be_away:
                raise
        to = {"uri": masked(self.uri), **asdict(spec), "id": writer.id}
        box = outbox.Outbox(self._outboxes() / f"{os.getpid()}-{writer.id or digest.of_value(to)[:16]}", to)
        return TrackedRun(writer, box, contact, state)

    def view(self, run: Run) -> str | None:
        """Where to look at a run: its page on the server, or the command that opens the UI; None if tracking is off."""
        uri = masked(self.uri)
        if uri == "none":
            return None
        if uri.startswith("http"):
            page = uri.rstrip("/").replace(f"{HIDDEN}@", "")  # a browser asks for the user
            return f"{page}/#/experiments/{run.experiment}/runs/{run.id}" if run.id else page
        if uri != f"sqlite:///{paths.tracking_database()}":
            return f"mlflow ui --backend-store-uri '{uri}'"
        has_make = (paths.root() / "Makefile").is_file()  # a project that `frostline init` made has none
        return "make ui" if has_make else f"mlflow ui --backend-store-uri sqlite:///{paths.tracking_database().name}"

    def require_writable(self) -> None:
        """Raise StateError if a run could not keep its files: a training would notice that only at its end."""
        if self.uri.startswith("sqlite:"):
            atomic.require_writable(self.artifacts)

    def connect(self) -> str:
        """The id of the experiment, which is created if it is new. The outboxes for this server are sent.

        One process at a time connects, because several would break a new SQLite database.
        """
        for key, value in QUIET.items():
            os.environ.setdefault(key, value)
        import logging

        import mlflow
        from alembic.util import CommandError
        from mlflow.store.db import utils as databases
        from sqlalchemy.exc import SQLAlchemyError

        databases.MAX_RETRY_COUNT = DATABASE_TRIES
        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it prints what it raises, in 100 lines
        atomic.require_writable(self.state)
        # ImportError: the driver of a database is missing; CommandError: Alembic can't bring its tables up to date
        others = (SQLAlchemyError, ImportError, CommandError)
        with atomic.lock(self.state / "tracking.lock"), reachable(self.uri, *others):
            file = local_database.file_of(self.uri)
            if file is not None:
                local_database.create(file, self.artifacts)
                relocation.require_in_place(file, self.artifacts)
            mlflow.set_tracking_uri(self.uri)
            existing = mlflow.get_experiment_by_name(self.experiment)
            if existing is not None and existing.lifecycle_stage == "deleted":
                raise StateError(
                    f"params.yaml: tracking.experiment: {self.experiment} was deleted in MLflow; restore it by `mlflow "
                    f"experiments restore --experiment-id {existing.experiment_id}` with MLFLOW_TRACKING_URI="
                    f"{masked(self.uri)}, or set another name"
                )
            if existing is not None:
                experiment = str(existing.experiment_id)
            else:
                place = self.artifacts.as_uri() if self.uri.startswith("sqlite:") else None
                experiment = str(mlflow.create_experiment(self.experiment, artifact_location=place, tags=TRAINING))
        self._send()
        return experiment

    def correct_places(self) -> relocation.Corrected | None:
        """Make a database in the project follow a move of its folder; None if tracking has none there."""
        file = local_database.file_of(self.uri)
        if file is None or not file.exists():
            return None
        atomic.require_writable(self.state)
        with atomic.lock(self.state / "tracking.lock"), reachable(self.uri, sqlite3.Error):
            corrected = relocation.correct(file, self.artifacts)
        inside = file.relative_to(self.artifacts.parent) if corrected.before else file
        addresses = {masked(f"sqlite:///{place.parent / inside}") for place in corrected.before}
        for box in outbox.boxes(self._outboxes()):
            if box.to.get("uri") in addresses:
                box.readdress({**box.to, "uri": masked(self.uri)})
        return corrected

    def _send(self) -> None:
        """Send the outboxes of processes that have ended."""
        for box in outbox.boxes(self._outboxes()):
            with box.alone() as is_alone:
                if not is_alone or box.is_empty or box.to.get("uri") != masked(self.uri):
                    continue
                spec = {key: box.to[key] for key in RunSpec.__dataclass_fields__}
                try:
                    send(box, RunWriter(RunSpec(**spec)), Contact(self.uri))
                except UnreachableError:
                    return
                except StateError as error:
                    print(f"warning: {error}; remove {box.folder} to forget these records", file=sys.stderr)

    def warn_of_outbox(self) -> None:
        """Print where the calls are that could not be made."""
        print(
            f"warning: the tracking server does not answer; the records are kept in {self._outboxes()}, and the next "
            "command that reaches it sends them, as `frostline sync` does",
            file=sys.stderr,
        )

    def _outboxes(self) -> Path:
        return self.state / "outbox"


def tracker(settings: TrackingSection) -> Tracker:
    """The tracker for params.yaml; `auto` is mlflow.db.

    MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME have precedence, except over `none`.
    """
    uri = settings.uri
    if uri != "none":
        setting = f"sqlite:///{paths.tracking_database()}" if uri == "auto" else uri
        uri = os.environ.get("MLFLOW_TRACKING_URI") or variables.expanded(setting, "tracking.uri")
        relative = uri.removeprefix("sqlite:///")
        if relative != uri and not relative.startswith("/"):  # the working directory may be temporary
            uri = f"sqlite:///{paths.root() / relative}"
        _warn_of_unused_variables()
    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or settings.experiment
    return Tracker(uri, experiment, paths.tracking_artifacts(), paths.state())


@cache
def _warn_of_unused_variables() -> None:
    """Warn once of MLflow's variables that would put a training into a run or an experiment of another program."""
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
        if os.environ.get(name):
            print(
                f"warning: {name} is set and not used: every training is a run of its own, in tracking.experiment or "
                "MLFLOW_EXPERIMENT_NAME",
                file=sys.stderr,
            )
