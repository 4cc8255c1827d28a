"""Where runs in MLflow go, and how they are found.

One training is one run. It is found again by tags, never by a run id in a file: `frostline.job` while it trains, so
that a resumed training continues in the same run, and `frostline.bundle`, the digest of what it produced, afterwards.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from frostline import paths
from frostline.core import atomic, digest
from frostline.core.masking import masked
from frostline.errors import StateError, UnreachableError
from frostline.params import variables
from frostline.params.schema import TrackingSection
from frostline.tracking import local_database, outbox
from frostline.tracking.contact import Contact, reachable
from frostline.tracking.runs import NullRun, Run, RunSpec, RunWriter, State, TrackedRun, send

JOB, BUNDLE = "frostline.job", "frostline.bundle"

# Lets MLflow's UI open the experiment with its table of runs, and not with what it shows of language models.
TRAINING = {"mlflow.experimentKind": "custom_model_development"}

# Read by MLflow when it is imported.
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",  # seconds; a server that hangs would hold a training up for 120
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


DATABASE_TRIES = 5  # within 3 seconds; MLflow's own 10 keep a person waiting for 102 seconds


@dataclass(frozen=True)
class Tracker:
    """Where runs go.

    uri: an MLflow tracking URI or `none`; artifacts: folder for the files of a local database; state: folder of the
    lock under which it is made, and of the outboxes.
    """

    uri: str
    experiment: str
    artifacts: Path
    state: Path

    @contextmanager
    def training(self, job: str, name: str) -> Iterator[Run]:
        """A run for a training; the one that a killed process left behind where there is one for the same job."""
        find = f"tags.`{JOB}` = '{job}' and attributes.status = 'RUNNING'"
        with self._whole(find, name, {JOB: job}, without=BUNDLE) as run:
            yield run

    @contextmanager
    def result(self, bundle: str, name: str) -> Iterator[Run]:
        """The latest run that produced a bundle (by its digest); a new one where none is known."""
        with self._whole(f"tags.`{BUNDLE}` = '{bundle}'", name, {BUNDLE: bundle}) as run:
            yield run

    @contextmanager
    def _whole(self, find: str, name: str, tags: Mapping[str, str], without: str | None = None) -> Iterator[Run]:
        """A run that ends with the block, as finished or failed."""
        if self.uri == "none":
            yield NullRun()
            return
        contact = Contact(self.uri)
        run = self.run(RunSpec(self.connect(), find, name, tags, without), contact)
        status = "FAILED"
        try:
            yield run
            status = "FINISHED"
        finally:
            if not run.state.has_ended:  # an evaluation leaves the end of its training's run as it was
                with nullcontext() if status == "FINISHED" else suppress(StateError):
                    run.status(status)
            contact.retry()
            if not run.close():
                self.warn_of_kept()

    def run(self, wanted: RunSpec, contact: Contact, may_be_away: bool = False) -> TrackedRun:
        """Open a run. Raises StateError where the server does not answer, unless it may be away."""
        writer = RunWriter(wanted)
        state = State()
        try:
            with contact.answering():
                state = writer.open()
        except UnreachableError:
            if not may_be_away:
                raise
        to = {"uri": masked(self.uri), **asdict(wanted), "id": writer.id}
        box = outbox.Outbox(self._outboxes() / f"{os.getpid()}-{writer.id or digest.of_value(to)[:16]}", to)
        return TrackedRun(writer, box, contact, state)

    def connect(self) -> str:
        """The id of the experiment, made where it is new; one process at a time, or a fresh SQLite database breaks.

        What waits in outboxes for this server is sent.
        """
        for key, value in QUIET.items():
            os.environ.setdefault(key, value)
        import logging

        import mlflow
        from mlflow.store.db import utils as databases
        from sqlalchemy.exc import SQLAlchemyError

        databases.MAX_RETRY_COUNT = DATABASE_TRIES
        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        atomic.require_writable(self.state)
        # ImportError: a database's driver
        with atomic.lock(self.state / "tracking.lock"), reachable(self.uri, SQLAlchemyError, ImportError):
            file = local_database.file_of(self.uri)
            if file is not None:
                local_database.make(file, self.artifacts)
            mlflow.set_tracking_uri(self.uri)
            known = mlflow.get_experiment_by_name(self.experiment)
            if known is not None:
                experiment = str(known.experiment_id)
            else:
                place = self.artifacts.as_uri() if self.uri.startswith("sqlite:") else None
                experiment = str(mlflow.create_experiment(self.experiment, artifact_location=place, tags=TRAINING))
        self._send()
        return experiment

    def _send(self) -> None:
        """Send what processes that are gone left in their outboxes."""
        for box in outbox.boxes(self._outboxes()):
            with box.alone() as mine:
                if not mine or box.is_empty or box.to.get("uri") != masked(self.uri):
                    continue
                wanted = {key: box.to[key] for key in RunSpec.__dataclass_fields__}
                try:
                    send(box, RunWriter(RunSpec(**wanted)), Contact(self.uri))
                except UnreachableError:
                    return
                except StateError as error:
                    print(f"warning: {error}; remove {box.folder} to forget what it holds", file=sys.stderr)

    def warn_of_kept(self) -> None:
        """Say where calls wait that could not be made."""
        print(
            f"warning: the tracking server does not answer; what it was to record is kept in {self._outboxes()}, and "
            "the next command that reaches it sends that, as `frostline sync` does",
            file=sys.stderr,
        )

    def _outboxes(self) -> Path:
        return self.state / "outbox"


def tracker(settings: TrackingSection) -> Tracker:
    """The tracker of params.yaml: `none` stays; MLFLOW_TRACKING_URI goes first; `auto` is mlflow.db at the root."""
    uri = settings.uri
    if uri != "none":
        named = f"sqlite:///{paths.tracking_database()}" if uri == "auto" else uri
        uri = os.environ.get("MLFLOW_TRACKING_URI") or variables.expanded(named, "tracking.uri")
        relative = uri.removeprefix("sqlite:///")
        if relative != uri and not relative.startswith("/"):  # to the root: the working directory may be a passing one
            uri = f"sqlite:///{paths.root() / relative}"
    return Tracker(uri, settings.experiment, paths.tracking_artifacts(), paths.state())
