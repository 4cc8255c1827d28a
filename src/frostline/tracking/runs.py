"""One run in MLflow. A training continues if the server goes away.

The rest of the package writes to a `TrackedRun`. It passes calls on to a `RunWriter`, and keeps them in an outbox while
the server does not answer. Each call of a `RunWriter` may be made twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from frostline.core.history import HistoryRow
from frostline.core.masking import from_home, masked
from frostline.errors import UnreachableError
from frostline.tracking.contact import Contact
from frostline.tracking.outbox import Call, Outbox
from frostline.tracking.run_writer import RunWriter, State


class Run(Protocol):
    """A run that can be written to."""

    @property
    def state(self) -> State:
        """The state of the run when it was opened."""

    @property
    def id(self) -> str | None:
        """The id in MLflow, if it is known."""

    @property
    def experiment(self) -> str | None:
        """The id of its experiment in MLflow."""

    def params(self, values: Mapping[str, Any]) -> None:
        """Record those settings, under dotted names, that the run does not have. None becomes `null`, as in YAML."""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Record numbers at a step."""

    def epochs(self, rows: Sequence[HistoryRow], seconds: float | None = None) -> None:
        """Record the numbers of those epochs whose `step` the run does not have. seconds: the time of the last one."""

    def tags(self, values: Mapping[str, str]) -> None:
        """Record tags."""

    def dataset(self, name: str, digest: str, context: str, counts: Mapping[str, int]) -> None:
        """Record a data set as an input. context: training, validation or test; counts: of images and classes."""

    def document(self, name: str, values: Mapping[str, Any]) -> None:
        """Keep values as a JSON file of the run, in the place of the one that it has."""

    def files(self, paths: Sequence[Path], folder: str | None = None) -> None:
        """Keep copies of files and folders in a folder of the run's artifacts. Missing files are left out."""

    def model(self, bundle: Path) -> None:
        """Keep a bundle as a logged model (see packaging.py), unless the run has one."""

    def status(self, status: str) -> None:
        """Set the status, in MLflow's words: RUNNING, FINISHED, FAILED, KILLED."""


class NullRun:
    """A run that records nothing, because tracking is off."""

    state, id, experiment = State(), None, None

    def params(self, values: Mapping[str, Any]) -> None: ...
    def metrics(self, values: Mapping[str, float], step: int = 0) -> None: ...
    def epochs(self, rows: Sequence[HistoryRow], seconds: float | None = None) -> None: ...
    def tags(self, values: Mapping[str, str]) -> None: ...
    def dataset(self, name: str, digest: str, context: str, counts: Mapping[str, int]) -> None: ...
    def document(self, name: str, values: Mapping[str, Any]) -> None: ...
    def files(self, paths: Sequence[Path], folder: str | None = None) -> None: ...
    def model(self, bundle: Path) -> None: ...
    def status(self, status: str) -> None: ...


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

    @property
    def experiment(self) -> str:
        """The id of its experiment in MLflow."""
        return self.writer.spec.experiment

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

    def dataset(self, name: str, digest: str, context: str, counts: Mapping[str, int]) -> None:
        given = {"name": _masked(name), "digest": digest, "context": context, "counts": dict(counts)}
        self._call("dataset", given)

    def document(self, name: str, values: Mapping[str, Any]) -> None:
        text = json.dumps(dict(values), indent=2, ensure_ascii=False, default=str)
        self._call("document", {"name": name, "text": _masked(text)})

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
