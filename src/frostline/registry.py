"""Registered models in MLflow: versions, the aliases `champion` and `challenger`, and the record of who was champion.

Every move of `champion` is a tag of the registered model, `frostline.move.<UTC time>`, whose value says from where, to
where and why. So the record is MLflow's own, seen in its UI, and `rollback` needs nothing else.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frostline import atomic, catalog, lineage, run_log, tracking
from frostline.errors import StateError
from frostline.params import Tracking
from frostline.tracking import BUNDLE, reachable

if TYPE_CHECKING:
    import pandas as pd

CHAMPION, CHALLENGER = "champion", "challenger"
MOVE = "frostline.move."
PREDICTIONS = catalog.PREDICTIONS.name


@dataclass(frozen=True)
class Version:
    """A registered version. bundle: digest of what it was made from; test_digest: of what it was last tested on."""

    name: str
    number: int
    run: str
    tags: dict[str, str]

    @property
    def uri(self) -> str:
        return f"models:/{self.name}/{self.number}"

    @property
    def bundle(self) -> str | None:
        return self.tags.get(BUNDLE)

    @property
    def test_digest(self) -> str | None:
        return self.tags.get(run_log.TEST_DIGEST)


@dataclass(frozen=True)
class Move:
    """A move of `champion`, UTC: between numbers of versions, None for no champion. kind: promote or rollback."""

    time: str
    kind: str
    before: int | None
    after: int | None
    reason: str


class Registry:
    """The versions of one registered model."""

    def __init__(self, uri: str, experiment: str, name: str, lock: Path) -> None:
        from mlflow.tracking import MlflowClient

        self.uri, self.experiment, self.name, self._lock = uri, experiment, name, lock
        self.client = MlflowClient()

    def versions(self) -> list[Version]:
        """All versions, the oldest first."""
        found = self.client.search_model_versions(f"name = '{self.name}'", max_results=10_000)
        return sorted(map(_version, found), key=lambda version: version.number)

    def version(self, wanted: str) -> Version:
        """A version by its number or alias. Raises StateError where there is none."""
        found = self._aliased(wanted)
        if found is None and wanted.isdecimal():
            found = next((version for version in self.versions() if version.number == int(wanted)), None)
        if found is None:
            known = ", ".join(str(version.number) for version in self.versions())
            mend = f"take one of {known}" if known else "run `frostline register`"
            raise StateError(f"models:/{self.name}: has no version or alias {wanted}; {mend}")
        return found

    def champion(self) -> Version | None:
        """Who is champion now, if anybody."""
        return self._aliased(CHAMPION)

    def register(self, bundle: str, tags: dict[str, str], description: str) -> Version:
        """Make the model that a run logged a version, with alias `challenger`.

        bundle: digest by which the run is known. What is a version already gets tags, description and alias alone.
        """
        from mlflow.exceptions import MlflowException

        with self.alone():
            known = [version for version in self.versions() if version.bundle == bundle]
            if known:
                number = known[-1].number
            else:
                try:
                    self.client.get_registered_model(self.name)
                except MlflowException:
                    self.client.create_registered_model(self.name)
                run, model = self._logged(bundle)
                made = self.client.create_model_version(
                    self.name, f"models:/{model}", run, tags={BUNDLE: bundle}, model_id=model
                )
                number = int(made.version)
            self.client.update_model_version(self.name, str(number), description)
            for key, value in tags.items():
                self.client.set_model_version_tag(self.name, str(number), key, value)
            self.client.set_registered_model_alias(self.name, CHALLENGER, str(number))
        return self.version(str(number))

    def move(self, kind: str, before: Version | None, after: Version | None, reason: str) -> None:
        """Move `champion`, and say so. Raises StateError where it is no longer where it was seen.

        Call it inside `alone`: on one machine nothing can come between then. Between machines MLflow offers no way to
        compare and set, so there two promotions within the same few milliseconds can still cross.
        """
        if (now := self.champion()) != before:
            seen = now.number if now else "none"
            raise StateError(f"models:/{self.name}@champion: was moved meanwhile (now {seen}); run it again")
        if after is None:
            self.client.delete_registered_model_alias(self.name, CHAMPION)
        else:
            self.client.set_registered_model_alias(self.name, CHAMPION, str(after.number))
        time = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        numbers = [version.number if version else None for version in (before, after)]
        told = {"kind": kind, "before": numbers[0], "after": numbers[1], "reason": reason}
        self.client.set_registered_model_tag(self.name, MOVE + time, json.dumps(told))
        if after is not None:
            self.client.set_model_version_tag(self.name, str(after.number), f"frostline.{kind}", f"{time}: {reason}")

    def moves(self) -> list[Move]:
        """The record, the oldest first."""
        tags = self.client.get_registered_model(self.name).tags
        return [Move(key.removeprefix(MOVE), **json.loads(tags[key])) for key in sorted(tags) if key.startswith(MOVE)]

    def previous_champion(self) -> int | None:
        """The number of who was champion before the present one came: rollbacks undo promotions, the last one first.

        Raises StateError where there is nothing to undo.
        """
        stack: list[int | None] = []
        for move in self.moves():
            if move.kind == "rollback":
                stack.pop()
            else:
                stack.append(move.before)
        if not stack:
            raise StateError(f"models:/{self.name}@champion: no promotion is left to undo")
        return stack[-1]

    def predictions(self, version: Version, test_digest: str) -> pd.DataFrame | None:
        """What a version says of a test set's pictures: sha256, label, probabilities; None where that isn't known."""
        import mlflow
        import pandas as pd
        from mlflow.exceptions import MlflowException

        place = run_log.EVALUATION.format(run_log.short(test_digest))
        try:
            path = mlflow.artifacts.download_artifacts(run_id=version.run, artifact_path=f"{place}/{PREDICTIONS}")
        except (MlflowException, OSError):
            return None
        return pd.read_parquet(path)

    def keep_predictions(self, version: Version, test_digest: str, table: pd.DataFrame) -> None:
        """Keep what a version says of a test set that it was not evaluated on."""
        place = run_log.EVALUATION.format(run_log.short(test_digest))
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / PREDICTIONS
            table.to_parquet(path, index=False)
            self.client.log_artifact(version.run, str(path), place)

    def state(self, version: Version) -> Path:
        """The folder of dvc.lock, dvc.yaml and params.yaml of the state that a version was registered from."""
        import mlflow
        from mlflow.exceptions import MlflowException

        place = run_log.STATE.format(run_log.short(version.tags.get(lineage.LOCK, "")))
        try:
            return Path(mlflow.artifacts.download_artifacts(run_id=version.run, artifact_path=place))
        except (MlflowException, OSError) as error:
            raise StateError(f"{version.uri}: was not registered by frostline, so it has no lineage") from error

    def bundle(self, version: Version) -> Path:
        """The folder of a version's bundle; fetched where it is not on this machine."""
        return _fetched(version.uri)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep this machine's other commands away from the registry."""
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        with atomic.lock(self._lock, "waiting for another frostline command that changes the registry ..."):
            yield

    def _logged(self, bundle: str) -> tuple[str, str]:
        """Run and id of the model that was logged for a bundle."""
        found = self.client.search_runs(
            [self.experiment], f"tags.`{BUNDLE}` = '{bundle}'", order_by=["start_time DESC"], max_results=50
        )
        for run in found:
            if run.outputs and run.outputs.model_outputs:
                return run.info.run_id, run.outputs.model_outputs[-1].model_id
        raise StateError(
            f"{self.uri}: the run of this classifier has no logged model; delete the run, then `frostline sync`"
        )

    def _aliased(self, alias: str) -> Version | None:
        from mlflow.exceptions import MlflowException

        try:
            return _version(self.client.get_model_version_by_alias(self.name, alias))
        except MlflowException:
            return None


@contextmanager
def registry(settings: Tracking, name: str) -> Iterator[Registry]:
    """The registry beside the runs. Raises StateError where it can't be reached, or tracking is off."""
    tracker = tracking.tracker(settings)
    if tracker.uri == "none":
        raise StateError("params.yaml: tracking.uri is none, so there is no registry; set it to auto or a URI")
    experiment = tracker.connect()
    with reachable(tracker.uri):
        yield Registry(tracker.uri, experiment, name, catalog.registry_lock())


@contextmanager
def located(settings: Tracking, uri: str) -> Iterator[tuple[Registry, Version]]:
    """The version that `models:/NAME@ALIAS` or `models:/NAME/3` names, and its registry. Raises StateError."""
    parts = re.fullmatch(r"models:/([^/:@]+)[/@]([^/:@]+)", uri)
    if parts is None:
        raise StateError(f"{uri}: is no registered model; write models:/NAME@ALIAS or models:/NAME/VERSION")
    with registry(settings, parts[1]) as known:
        yield known, known.version(parts[2])


def bundle_folder(settings: Tracking | None, model: str) -> Path:
    """The folder of a bundle: `model` itself, or that of a registered or logged model, `models:/NAME@ALIAS`.

    It is fetched where it is not on this machine. settings: where it is registered. Raises StateError where there is no
    such model, or it is none of frostline's.
    """
    if not model.startswith("models:/"):
        return Path(model)
    tracker = tracking.tracker(settings) if settings else None
    if tracker is None or tracker.uri == "none":
        raise StateError(f"{model}: tracking.uri in params.yaml is none, so nothing is registered; name a folder")
    tracker.connect()
    with reachable(tracker.uri):
        return _fetched(model)


def locator(settings: Tracking) -> Callable[[str], str]:
    """`backbone.weights` -> the same, or the folder of the bundle where it names a registered model.

    An alias is looked up once, so that all of a stage means the same version.
    """
    return cache(lambda weights: str(bundle_folder(settings, weights)))


def _fetched(uri: str) -> Path:
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        model = Path(mlflow.artifacts.download_artifacts(uri))
    except (MlflowException, OSError) as error:
        reason = " ".join(str(error).split())[:160]
        raise StateError(f"{uri}: can't be had ({reason}); see `frostline register` and MLflow's UI") from error
    found = sorted(model.glob("artifacts/*/bundle.json"))
    if len(found) != 1:
        raise StateError(f"{uri}: is no model that frostline registered; it holds no bundle")
    return found[0].parent


def _version(found: Any) -> Version:
    return Version(found.name, int(found.version), found.run_id, dict(found.tags))
