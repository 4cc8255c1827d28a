"""One run in MLflow. A training continues if the server goes away.

The rest of the package writes to a `TrackedRun`. It passes calls on to a `RunWriter`, and keeps them in an outbox while
the server does not answer. Each call of a `RunWriter` may be made twice.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from frostline.core.history import HistoryRow
from frostline.core.masking import from_home, masked
from frostline.errors import UnreachableError
from frostline.serving import packaging
from frostline.tracking.contact import Contact
from frostline.tracking.outbox import Call, Outbox

# MLflow's words for a run that has ended.
ENDED = {"FINISHED", "FAILED", "KILLED"}

AT_ONCE = 100  # params or tags in a call; MLflow takes ten times as many metrics


@dataclass(frozen=True)
class State:
    """The state of a run when it was opened.

    is_new: it had no settings yet; has_model: it had a complete logged model; has_ended: it had ended.
    """

    tags: Mapping[str, str] = field(default_factory=dict)
    is_new: bool = True
    has_model: bool = False
    has_ended: bool = False


class Run(Protocol):
    """A run that can be written to."""

    @property
    def state(self) -> State:
        """The state of the run when it was opened."""

    def params(self, values: Mapping[str, Any]) -> None:
        """Record those settings, under dotted names, that the run does not have. None becomes `null`, as in YAML."""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Record numbers at a step."""

    def epochs(self, rows: Sequence[HistoryRow], seconds: float | None = None) -> None:
        """Record the numbers of those epochs whose `step` the run does not have. seconds: the time of the last one."""

    def tags(self, values: Mapping[str, str]) -> None:
        """Record tags."""

    def dataset(self, name: str, digest: str, context: str) -> None:
        """Record a data set as an input. context: training, validation or test."""

    def files(self, paths: Sequence[Path], folder: str | None = None) -> None:
        """Keep copies of files and folders in a folder of the run's artifacts. Missing files are left out."""

    def model(self, bundle: Path) -> None:
        """Keep a bundle as a logged model (see packaging.py), unless the run has one."""

    def status(self, status: str) -> None:
        """Set the status, in MLflow's words: RUNNING, FINISHED, FAILED, KILLED."""


class NullRun:
    """A run that records nothing, because tracking is off."""

    state = State()

    def params(self, values: Mapping[str, Any]) -> None: ...
    def metrics(self, values: Mapping[str, float], step: int = 0) -> None: ...
    def epochs(self, rows: Sequence[HistoryRow], seconds: float | None = None) -> None: ...
    def tags(self, values: Mapping[str, str]) -> None: ...
    def dataset(self, name: str, digest: str, context: str) -> None: ...
    def files(self, paths: Sequence[Path], folder: str | None = None) -> None: ...
    def model(self, bundle: Path) -> None: ...
    def status(self, status: str) -> None: ...


@dataclass(frozen=True)
class RunSpec:
    """How to find a run, or else to create it.

    find: a filter in MLflow's syntax; without: a tag that the run must not have; name, tags: of a new run; id: of the
    run in MLflow, if it is known.
    """

    experiment: str
    find: str
    name: str
    tags: Mapping[str, str]
    without: str | None = None
    id: str | None = None


class RunWriter:
    """Writes to one run. Every call may be made twice and writes once."""

    def __init__(self, spec: RunSpec) -> None:
        from mlflow.tracking import MlflowClient

        self.client, self.spec = MlflowClient(), spec
        self.id: str | None = spec.id
        self._steps: set[int] | None = None
        self._settings: set[str] = set()

    def open(self) -> State:
        """Find the run or create it; returns its state."""
        if self.id is None:
            spec, order = self.spec, ["attributes.start_time DESC"]
            runs = self.client.search_runs([spec.experiment], spec.find, max_results=50, order_by=order)
            self.id = next((run.info.run_id for run in runs if spec.without not in run.data.tags), None)
        if self.id is None:  # not by MLflow's `start_run`, which tags it with the user's name and paths of this machine
            new = self.client.create_run(self.spec.experiment, run_name=self.spec.name, tags=dict(self.spec.tags))
            self.id, self._steps, self._settings = new.info.run_id, set(), set()
            return State()
        run = self.client.get_run(self.id)
        self._settings = set(run.data.params)
        has_model = packaging.logged(self.client, run) is not None
        return State(run.data.tags, not run.data.params, has_model, run.info.status in ENDED)

    def write(self, call: Call) -> None:
        """Make a call that may have waited in an outbox."""
        if self.id is None:
            self.open()
        paths = {"paths": list(call.paths)} if call.method in {"files", "model"} else {}
        getattr(self, call.method)(**call.arguments, **paths)

    def params(self, values: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        new = [Param(key, value) for key, value in values.items() if key not in self._settings]
        for start in range(0, len(new), AT_ONCE):
            self.client.log_batch(self.id, params=new[start : start + AT_ONCE])
        self._settings |= {param.key for param in new}

    def metrics(self, values: Mapping[str, float], step: int, time: int) -> None:
        from mlflow.entities import Metric

        # MLflow records the same number at the same step and time only once.
        self.client.log_batch(self.id, metrics=[Metric(key, value, time, step) for key, value in values.items()])

    def epochs(self, rows: Sequence[Mapping[str, Any]], time: int) -> None:
        from mlflow.entities import Metric

        if self._steps is None:
            self._steps = {metric.step for metric in self.client.get_metric_history(self.id, "val_loss")}
        new = [row for row in rows if row["step"] not in self._steps]
        metrics = [
            Metric(key, value, time, row["step"])
            for row in new
            for key, value in row.items()
            if key not in {"step", "phase"}
        ]
        for start in range(0, len(metrics), 10 * AT_ONCE):
            self.client.log_batch(self.id, metrics[start : start + 10 * AT_ONCE])
        self._steps |= {row["step"] for row in new}

    def tags(self, values: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        self.client.log_batch(self.id, tags=[RunTag(key, value) for key, value in values.items()])

    def dataset(self, name: str, digest: str, context: str) -> None:
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.entities import Dataset, DatasetInput, InputTag

        source = CodeDatasetSource({"frostline.source": name}).to_json()
        dataset = Dataset(name, digest[:32], "code", source)  # MLflow keeps 36 digits
        self.client.log_inputs(self.id, [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])])

    def files(self, paths: Sequence[Path], folder: str | None) -> None:
        for path in paths:
            if path.is_dir():
                self.client.log_artifacts(self.id, str(path), f"{folder}/{path.name}" if folder else path.name)
            else:
                self.client.log_artifact(self.id, str(path), folder)

    def model(self, paths: Sequence[Path]) -> None:
        if packaging.logged(self.client, self.client.get_run(self.id)) is None:
            packaging.log(paths[0], "classifier", str(self.id))

    def status(self, status: str, time: int) -> None:
        if status == "RUNNING":
            self.client.update_run(self.id, status)
        else:
            self.client.set_terminated(self.id, status, time)


@dataclass
class TrackedRun:
    """A run behind an outbox. state: of the run when it was opened."""

    writer: RunWriter
    outbox: Outbox
    contact: Contact
    state: State
    _box_lock: ExitStack = field(default_factory=ExitStack, init=False)

    @property
    def id(self) -> str | None:
        """The id in MLflow; None while the server has not answered and the run must still be found or created."""
        return self.writer.id

    def params(self, values: Mapping[str, Any]) -> None:
        texts = {key: _masked("null" if value is None else str(value)) for key, value in values.items()}
        self._call("params", {"values": texts})

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        self._call("metrics", {"values": dict(values), "step": step, "time": _now()})

    def epochs(self, rows: Sequence[HistoryRow], seconds: float | None = None) -> None:
        records: list[dict[str, Any]] = [asdict(row) for row in rows]
        if seconds is not None:
            records[-1]["seconds"] = seconds
        self._call("epochs", {"rows": records, "time": _now()})

    def tags(self, values: Mapping[str, str]) -> None:
        self._call("tags", {"values": {key: _masked(value) for key, value in values.items()}})

    def dataset(self, name: str, digest: str, context: str) -> None:
        self._call("dataset", {"name": _masked(name), "digest": digest, "context": context})

    def files(self, paths: Sequence[Path], folder: str | None = None) -> None:
        # A file of an earlier stage that was removed is no reason to lose this run.
        self._call("files", {"folder": folder}, [path for path in paths if path.exists()])

    def model(self, bundle: Path) -> None:
        self._call("model", {}, [bundle])

    def status(self, status: str) -> None:
        self._call("status", {"status": status, "time": _now()})

    def close(self) -> bool:
        """Send the outbox if the server answers; returns whether it is empty."""
        with suppress(UnreachableError):
            self._send()
        self._box_lock.close()
        return self.outbox.is_empty

    def _call(self, method: str, arguments: Mapping[str, Any], paths: Sequence[Path] = ()) -> None:
        call = Call(method, arguments, paths)
        try:
            self._send()
            with self.contact.answering():
                self.writer.write(call)
        except UnreachableError:
            if self.outbox.is_empty:
                self._box_lock.enter_context(self.outbox.alone())
            self.outbox.put(call)

    def _send(self) -> None:
        if not self.outbox.is_empty:
            send(self.outbox, self.writer, self.contact)
            self._box_lock.close()


def send(outbox: Outbox, writer: RunWriter, contact: Contact) -> None:
    """Make the calls of an outbox and clear it. Raises UnreachableError, and keeps them, if the server is away."""
    with contact.answering():
        for call in outbox.calls():
            writer.write(call)
    outbox.clear()


def _masked(text: str) -> str:
    """A text as it may leave this machine: without passwords and without the user's name in a path."""
    return from_home(masked(text))


def _now() -> int:
    """Milliseconds since 1970, as MLflow counts time."""
    return int(time.time() * 1000)
