"""Writes to one run in MLflow, over its client. Every call may be made twice and writes once."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from frostline.serving import packaging
from frostline.tracking.outbox import Call

# MLflow's words for a run that has ended.
ENDED = {"FINISHED", "FAILED", "KILLED"}

AT_ONCE = 100  # params or tags in a call; MLflow takes ten times as many metrics
LONGEST = 500  # letters of a param's value that every version of MLflow keeps

# The columns of a history that are metrics, with their names in MLflow. A run's page and the comparison of runs show
# metrics in the order in which they were logged, so the one that matters comes first. Charts are sorted by name, so
# those of the test images come first. The learning rate and the number of frozen layers are in history.csv: as metrics,
# runs would be compared by their last values, which say nothing.
EPOCH_METRICS = {
    "val_accuracy": "val_accuracy",
    "val_loss": "val_loss",
    "accuracy": "train_accuracy",
    "loss": "train_loss",
    "seconds": "train_seconds",
}

# MLflow never changes a param. The value that a resumed run has now is a tag of this name and the param's.
CHANGED = "frostline.changed."


@dataclass(frozen=True)
class State:
    """The state of a run when it was opened.

    is_new: it had no settings yet; has_model: it had a complete logged model; has_ended: it had ended.
    """

    tags: Mapping[str, str] = field(default_factory=dict)
    is_new: bool = True
    has_model: bool = False
    has_ended: bool = False


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
        self._settings: dict[str, str] = {}

    def open(self) -> State:
        """Find the run or create it; returns its state."""
        if self.id is None:
            spec, order = self.spec, ["attributes.start_time DESC"]
            runs = self.client.search_runs([spec.experiment], spec.find, max_results=50, order_by=order)
            self.id = next((run.info.run_id for run in runs if spec.without not in run.data.tags), None)
        if self.id is None:  # not by MLflow's `start_run`, which tags it with the user's name and paths of this machine
            new = self.client.create_run(self.spec.experiment, run_name=self.spec.name, tags=dict(self.spec.tags))
            self.id, self._steps, self._settings = new.info.run_id, set(), {}
            return State()
        run = self.client.get_run(self.id)
        self._settings = dict(run.data.params)
        has_model = packaging.logged(self.client, run) is not None
        return State(run.data.tags, not run.data.params, has_model, run.info.status in ENDED)

    def write(self, call: Call) -> None:
        """Make a call that may have waited in an outbox."""
        if self.id is None:
            self.open()
        paths = {"paths": list(call.paths)} if call.method in {"files", "model"} else {}
        getattr(self, call.method)(**call.arguments, **paths)

    def params(self, values: Mapping[str, str]) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._log_new(values)
        except MlflowException:  # another process may have given the run a setting since it was opened
            known = dict(self.client.get_run(self.id).data.params)
            if known == self._settings:
                raise
            self._settings = known
            self._log_new(values)
        changed = {key: value for key, value in values.items() if not self._is_logged(key, value)}
        if changed:
            self.tags({f"{CHANGED}{key}": value for key, value in changed.items()})
            pairs = ", ".join(f"{key} = {self._settings[key]} (now {value})" for key, value in changed.items())
            print(
                f"warning: run {self.spec.name}: MLflow keeps the first value of a param: {pairs}; the new values are "
                f"its tags {CHANGED}*",
                file=sys.stderr,
            )

    def _log_new(self, values: Mapping[str, str]) -> None:
        """Log the settings that the run does not have."""
        from mlflow.entities import Param

        new = [Param(key, value) for key, value in values.items() if key not in self._settings]
        for start in range(0, len(new), AT_ONCE):
            self.client.log_batch(self.id, params=new[start : start + AT_ONCE])
        self._settings |= {param.key: param.value for param in new}

    def _is_logged(self, key: str, value: str) -> bool:
        """Whether the run has this value of a setting, which MLflow may have cut."""
        return value.startswith(self._settings[key]) if len(value) > LONGEST else value == self._settings[key]

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
            Metric(key, row[column], time, row["step"])
            for row in new
            for column, key in EPOCH_METRICS.items()
            if column in row
        ]
        for start in range(0, len(metrics), 10 * AT_ONCE):
            self.client.log_batch(self.id, metrics[start : start + 10 * AT_ONCE])
        self._steps |= {row["step"] for row in new}

    def tags(self, values: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        self.client.log_batch(self.id, tags=[RunTag(key, value) for key, value in values.items()])

    def dataset(self, name: str, digest: str, context: str, counts: Mapping[str, int] | None = None) -> None:
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.entities import Dataset, DatasetInput, InputTag

        source = CodeDatasetSource({"frostline.source": name}).to_json()
        profile = json.dumps(counts) if counts else None  # None: of an outbox that an older frostline filled
        dataset = Dataset(name, digest[:32], "code", source, profile=profile)  # MLflow keeps 36 digits
        self.client.log_inputs(self.id, [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])])

    def document(self, name: str, text: str) -> None:
        self.client.log_text(self.id, text, name)

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
