"""Runs in MLflow: the only room that knows its tracking API.

One training is one run. It is found again by tags, never by a run id in a file: `frostline.job` while it trains, so
that a resumed training goes on in the same run, and `frostline.bundle`, the digest of what it produced, afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from frostline import atomic, catalog, packaging
from frostline.errors import StateError
from frostline.params import Tracking

JOB, BUNDLE = "frostline.job", "frostline.bundle"

# Lets MLflow's UI open the experiment with its table of runs, and not with what it shows of language models.
TRAINING = {"mlflow.experimentKind": "custom_model_development"}

# Read by MLflow when it is imported.
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


class Run(Protocol):
    """A run that can be written to.

    is_new: whether nothing was written to it before; False for one that is gone on with. known: the tags that it had
    when it was opened.
    """

    @property
    def is_new(self) -> bool: ...

    @property
    def known(self) -> Mapping[str, str]: ...

    def params(self, values: Mapping[str, Any]) -> None:
        """Record settings under dotted names; None is recorded as `null`, as YAML writes it."""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Record numbers at a step."""

    def tags(self, values: Mapping[str, str]) -> None:
        """Record tags."""

    def dataset(self, name: str, digest: str, context: str) -> None:
        """Record a data set as an input. context: training, validation or test."""

    def files(self, paths: list[Path], folder: str | None = None) -> None:
        """Keep copies of files and folders, in that folder of the run's artifacts."""

    def model(self, bundle: Path) -> None:
        """Keep a bundle as a logged model (see packaging.py)."""


class NullRun:
    """A run for those who switched tracking off: takes everything, keeps nothing."""

    is_new = True
    known: ClassVar[Mapping[str, str]] = {}

    def params(self, values: Mapping[str, Any]) -> None: ...
    def metrics(self, values: Mapping[str, float], step: int = 0) -> None: ...
    def tags(self, values: Mapping[str, str]) -> None: ...
    def dataset(self, name: str, digest: str, context: str) -> None: ...
    def files(self, paths: list[Path], folder: str | None = None) -> None: ...
    def model(self, bundle: Path) -> None: ...


@dataclass(frozen=True)
class MlflowRun:
    """The active MLflow run."""

    is_new: bool
    known: Mapping[str, str]

    def params(self, values: Mapping[str, Any]) -> None:
        import mlflow

        mlflow.log_params({key: "null" if value is None else value for key, value in values.items()})

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        import mlflow

        mlflow.log_metrics(dict(values), step=step)

    def tags(self, values: Mapping[str, str]) -> None:
        import mlflow

        mlflow.set_tags(dict(values))

    def dataset(self, name: str, digest: str, context: str) -> None:
        import mlflow
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.data.meta_dataset import MetaDataset

        source = CodeDatasetSource({"frostline.source": name})
        mlflow.log_input(MetaDataset(source, name=name, digest=digest[:32]), context=context)  # MLflow keeps 36

    def files(self, paths: list[Path], folder: str | None = None) -> None:
        import mlflow

        for path in paths:
            if not path.exists():  # what an earlier stage wrote and somebody removed is no reason to lose this run
                continue
            if path.is_dir():
                mlflow.log_artifacts(str(path), f"{folder}/{path.name}" if folder else path.name)
            else:
                mlflow.log_artifact(str(path), folder)

    def model(self, bundle: Path) -> None:
        packaging.log(bundle, "classifier")


@dataclass(frozen=True)
class Tracker:
    """Where runs go. uri: an MLflow tracking URI or `none`; artifacts: folder for the files of a local database."""

    uri: str
    experiment: str
    artifacts: Path
    lock: Path

    @contextmanager
    def training(self, job: str, name: str) -> Iterator[Run]:
        """A run for a training; the one that a killed process left behind where there is one for the same job."""
        if self.uri == "none":
            yield NullRun()
            return
        experiment = self.connect()
        import mlflow

        filter_string = f"tags.`{JOB}` = '{job}' and attributes.status = 'RUNNING'"
        found = [
            run
            for run in mlflow.search_runs([experiment], filter_string, output_format="list")
            if BUNDLE not in run.data.tags  # trained to its end; it runs because it is being evaluated
        ]
        with self._active(experiment, found, name, {JOB: job}) as run:
            yield run

    @contextmanager
    def result(self, bundle: str, name: str) -> Iterator[Run]:
        """The latest run that produced a bundle (by its digest); a new one where none is known."""
        if self.uri == "none":
            yield NullRun()
            return
        experiment = self.connect()
        import mlflow

        filter_string = f"tags.`{BUNDLE}` = '{bundle}'"
        found = mlflow.search_runs(
            [experiment], filter_string, max_results=1, order_by=["start_time DESC"], output_format="list"
        )
        with self._active(experiment, found, name, {BUNDLE: bundle}) as run:
            yield run

    @contextmanager
    def _active(self, experiment: str, found: list[Any], name: str, tags: dict[str, str]) -> Iterator[Run]:
        """The run that was found, its name untouched, or a new one."""
        import mlflow

        if found:
            active = mlflow.start_run(run_id=found[0].info.run_id)
        else:
            active = mlflow.start_run(experiment_id=experiment, run_name=name, tags=tags)
        with reachable(self.uri), active:
            known = found[0].data.tags if found else {}
            yield MlflowRun(is_new=not (found and found[0].data.params), known=known)

    def connect(self) -> str:
        """The id of the experiment, made where it is new; one process at a time, or a fresh SQLite database breaks."""
        for key, value in QUIET.items():
            os.environ.setdefault(key, value)
        import logging

        import mlflow
        from sqlalchemy.exc import SQLAlchemyError

        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        self.lock.parent.mkdir(parents=True, exist_ok=True)
        # ImportError: a database's driver
        with atomic.lock(self.lock), reachable(self.uri, SQLAlchemyError, OSError, ImportError):
            mlflow.set_tracking_uri(self.uri)
            known = mlflow.get_experiment_by_name(self.experiment)
            if known is not None:
                return str(known.experiment_id)
            place = self.artifacts.as_uri() if self.uri.startswith("sqlite:") else None
            return str(mlflow.create_experiment(self.experiment, artifact_location=place, tags=TRAINING))


@contextmanager
def reachable(uri: str, *others: type[Exception]) -> Iterator[None]:
    """Turn what MLflow raises in the block, and those other errors, into a StateError that names the mend."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, *others) as error:
        reason = " ".join(str(error).split())[:160]
        raise StateError(
            f"{uri}: tracking can't be reached ({reason}); mend tracking.uri in params.yaml or "
            "MLFLOW_TRACKING_URI, or set tracking.uri to none"
        ) from error


def tracker(settings: Tracking) -> Tracker:
    """The tracker of params.yaml: `none` stays; MLFLOW_TRACKING_URI goes first; `auto` is mlflow.db at the root."""
    uri = settings.uri
    if uri != "none":
        default = f"sqlite:///{catalog.tracking_database()}" if uri == "auto" else uri
        uri = os.environ.get("MLFLOW_TRACKING_URI") or default
        relative = uri.removeprefix("sqlite:///")
        if relative != uri and not relative.startswith("/"):  # to the root: the working directory may be a passing one
            uri = f"sqlite:///{catalog.root() / relative}"
    return Tracker(uri, settings.experiment, catalog.tracking_artifacts(), catalog.tracking_lock())


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out
