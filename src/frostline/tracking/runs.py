"""One run in MLflow, and who may write to it: a server that goes away ends no training.

`RunWriter` makes the calls, each of which may be made twice. `TrackedRun` is what the rest of the package writes to: it
hands calls to the writer, and keeps them in an outbox while the server does not answer.
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

# MLflow's words for a run that is over.
ENDED = {"FINISHED", "FAILED", "KILLED"}

AT_ONCE = 100  # params and tags; of metrics MLflow takes ten times as many


@dataclass(frozen=True)
class State:
    """How a run stood when it was opened.

    is_new: it had no settings yet; has_model: it had a whole logged model; has_ended: it was over.
    """

    tags: Mapping[str, str] = field(default_factory=dict)
    is_new: bool = True
    has_model: bool = False
    has_ended: bool = False


class Run(Protocol):
    """A run that can be written to."""

    @property
    def state(self) -> State:
        """How it stood when it was opened."""

    def params(self, values: Mapping[str, Any]) -> None:
        """Record settings under dotted names, those alone that it does not have; None becomes `null`, as in YAML."""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Record numbers at a step."""

    def epochs(self, rows: Sequence[HistoryRow], seconds: float | None = None) -> None:
        """Record the numbers of a training's epochs, those alone whose `step` it does not have.

        seconds: what the last of them took.
        """

    def tags(self, values: Mapping[str, str]) -> None:
        """Record tags."""

    def dataset(self, name: str, digest: str, context: str) -> None:
        """Record a data set as an input. context: training, validation or test."""

    def files(self, paths: Sequence[Path], folder: str | None = None) -> None:
        """Keep copies of files and folders, in that folder of the run's artifacts; what does not exist is left out."""

    def model(self, bundle: Path) -> None:
        """Keep a bundle as a logged model (see packaging.py), unless it has one."""

    def status(self, status: str) -> None:
        """Say how it stands, in MLflow's words: RUNNING, FINISHED, FAILED, KILLED."""


class NullRun:
    """A run for those who switched tracking off: takes everything, keeps nothing."""

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
    """A run by what it is found by, or made with.

    find: a filter of MLflow's; without: a tag that it must not have; name, tags: of a new one; id: MLflow's, where it
    is known.
    """

    experiment: str
    find: str
    name: str
    tags: Mapping[str, str]
    without: str | None = None
    id: str | None = None


class RunWriter:
    """Writes to one run. Every call may be made twice and writes once."""

    def __init__(self, wanted: RunSpec) -> None:
        from mlflow.tracking import MlflowClient

        self.client, self.wanted = MlflowClient(), wanted
        self.id: str | None = wanted.id
        self._steps: set[int] | None = None
        self._settings: set[str] = set()

    def open(self) -> State:
        """Find the run or make it; how it stands."""
        if self.id is None:
            wanted = self.wanted
            order = ["attributes.start_time DESC"]
            found = self.client.search_runs([wanted.experiment], wanted.find, max_results=50, order_by=order)
            self.id = next((run.info.run_id for run in found if wanted.without not in run.data.tags), None)
        if self.id is None:  # not by MLflow's `start_run`, which tags it with the user's name and paths of this machine
            made = self.client.create_run(wanted.experiment, run_name=wanted.name, tags=dict(wanted.tags))
            self.id, self._steps, self._settings = made.info.run_id, set(), set()
            return State()
        known = self.client.get_run(self.id)
        self._settings = set(known.data.params)
        has_model = packaging.logged(self.client, known) is not None
        return State(known.data.tags, not known.data.params, has_model, known.info.status in ENDED)

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

        # The same number at the same step and time is recorded once, MLflow sees to that.
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
    """A run behind an outbox; state: how it stood when it was opened."""

    writer: RunWriter
    outbox: Outbox
    contact: Contact
    state: State
    _holding: ExitStack = field(default_factory=ExitStack, init=False)

    @property
    def id(self) -> str | None:
        """MLflow's id; None while the server did not answer and the run is to be found or made."""
        return self.writer.id

    def params(self, values: Mapping[str, Any]) -> None:
        texts = {key: _told("null" if value is None else str(value)) for key, value in values.items()}
        self._call("params", {"values": texts})

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        self._call("metrics", {"values": dict(values), "step": step, "time": _now()})

    def epochs(self, rows: Sequence[HistoryRow], seconds: float | None = None) -> None:
        told: list[dict[str, Any]] = [asdict(row) for row in rows]
        if seconds is not None:
            told[-1]["seconds"] = seconds
        self._call("epochs", {"rows": told, "time": _now()})

    def tags(self, values: Mapping[str, str]) -> None:
        self._call("tags", {"values": {key: _told(value) for key, value in values.items()}})

    def dataset(self, name: str, digest: str, context: str) -> None:
        self._call("dataset", {"name": _told(name), "digest": digest, "context": context})

    def files(self, paths: Sequence[Path], folder: str | None = None) -> None:
        # What an earlier stage wrote and somebody removed is no reason to lose this run.
        self._call("files", {"folder": folder}, [path for path in paths if path.exists()])

    def model(self, bundle: Path) -> None:
        self._call("model", {}, [bundle])

    def status(self, status: str) -> None:
        self._call("status", {"status": status, "time": _now()})

    def close(self) -> bool:
        """Send what waits, if the server answers; whether nothing waits any more."""
        with suppress(UnreachableError):
            self._send()
        self._holding.close()
        return self.outbox.is_empty

    def _call(self, method: str, arguments: Mapping[str, Any], paths: Sequence[Path] = ()) -> None:
        call = Call(method, arguments, paths)
        try:
            self._send()
            with self.contact.answering():
                self.writer.write(call)
        except UnreachableError:
            if self.outbox.is_empty:
                self._holding.enter_context(self.outbox.alone())
            self.outbox.put(call)

    def _send(self) -> None:
        if not self.outbox.is_empty:
            send(self.outbox, self.writer, self.contact)
            self._holding.close()


def send(outbox: Outbox, writer: RunWriter, contact: Contact) -> None:
    """Make the calls of an outbox and clear it. Raises UnreachableError, and keeps all, where nobody answers."""
    with contact.answering():
        for call in outbox.calls():
            writer.write(call)
    outbox.clear()


def _told(text: str) -> str:
    """A text as it may leave this machine: without passwords and without the user's name in a path."""
    return from_home(masked(text))


def _now() -> int:
    """Milliseconds since 1970, as MLflow counts time."""
    return int(time.time() * 1000)
