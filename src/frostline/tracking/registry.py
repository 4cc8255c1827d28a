"""Registered models in MLflow: versions, the aliases `champion` and `challenger`, and the record of who was champion.

Every move of `champion` is a tag of the registered model (see moves.py). So the record is MLflow's own, seen in its UI,
and `rollback` needs nothing else.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frostline import paths
from frostline.core import atomic, digest
from frostline.core.masking import masked
from frostline.errors import StateError
from frostline.params.schema import TrackingSection
from frostline.serving import packaging
from frostline.tracking import lineage, moves, run_log
from frostline.tracking import tracker as tracking
from frostline.tracking.contact import reachable
from frostline.tracking.moves import CHALLENGER, CHAMPION, Move
from frostline.tracking.tracker import BUNDLE

if TYPE_CHECKING:
    import pandas as pd

PREDICTIONS = paths.PREDICTIONS.name
MODELS_KEPT = 8  # fetched ones


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


class Registry:
    """The versions of one registered model."""

    def __init__(self, uri: str, experiment: str, name: str, state: Path) -> None:
        """state: folder of its lock and of what is fetched."""
        from mlflow.tracking import MlflowClient

        self.uri, self.experiment, self.name, self._state = uri, experiment, name, state
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
            fix = f"take one of {known}" if known else "run `frostline register`"
            raise StateError(f"models:/{self.name}: has no version or alias {wanted}; {fix}")
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
        time = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        old, new = (version.number if version else None for version in (before, after))
        moves.begin(self.client, self.name, Move(time, kind, old, new, reason))

    def moves(self) -> list[Move]:
        """The record, the oldest first."""
        return moves.done(self._tags())

    def previous_champion(self) -> int | None:
        """The number of who was champion before the present one came.

        Raises StateError where there is nothing to undo.
        """
        return moves.previous(self.name, self.moves())

    def predictions(self, version: Version, test_digest: str) -> pd.DataFrame | None:
        """What a version says of a test set's images: sha256, label, probabilities; None where that isn't known."""
        import mlflow
        import pandas as pd
        from mlflow.exceptions import MlflowException

        place = f"{run_log.EVALUATION.format(run_log.short(test_digest))}/{PREDICTIONS}"
        with atomic.scratch(self._state / "fetched") as scratch:
            try:
                path = mlflow.artifacts.download_artifacts(
                    run_id=version.run, artifact_path=place, dst_path=str(scratch)
                )
            except (MlflowException, OSError):
                return None
            return pd.read_parquet(path, page_checksum_verification=True)

    def keep_predictions(self, version: Version, test_digest: str, table: pd.DataFrame) -> None:
        """Keep what a version says of a test set that it was not evaluated on."""
        place = run_log.EVALUATION.format(run_log.short(test_digest))
        with atomic.scratch(self._state / "predictions") as scratch:
            path = scratch / PREDICTIONS
            table.to_parquet(path, index=False, write_page_checksum=True)
            self.client.log_artifact(version.run, str(path), place)

    @contextmanager
    def state(self, version: Version) -> Iterator[Path]:
        """The folder of dvc.lock, dvc.yaml and params.yaml of the state that a version was registered from, for as long
        as the block lasts."""
        import mlflow
        from mlflow.exceptions import MlflowException

        place = run_log.STATE.format(run_log.short(version.tags.get(lineage.LOCK, "")))
        with atomic.scratch(self._state / "fetched") as scratch:
            try:
                found = mlflow.artifacts.download_artifacts(
                    run_id=version.run, artifact_path=place, dst_path=str(scratch)
                )
            except (MlflowException, OSError) as error:
                raise StateError(f"{version.uri}: was not registered by frostline, so it has no lineage") from error
            yield Path(found)

    def bundle(self, version: Version) -> Path:
        """The folder of a version's bundle; fetched where it is not on this machine."""
        return _fetched(version.uri)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep this machine's other commands away from the registry; finish first what a killed one began."""
        atomic.require_writable(self._state)
        waiting = "waiting for another frostline command that changes the registry ..."
        with atomic.lock(self._state / "registry.lock", waiting):
            numbers = [version.number for version in self.versions()]
            begun = moves.finish_begun(self.client, self.name, self._tags(), numbers)
            if begun is not None:
                print(f"registry: finished the {begun.kind} that a killed command began", file=sys.stderr)
            yield

    def _tags(self) -> dict[str, str]:
        """Of the registered model; none before the first version."""
        from mlflow.exceptions import MlflowException

        try:
            return dict(self.client.get_registered_model(self.name).tags)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return {}

    def _logged(self, bundle: str) -> tuple[str, str]:
        """Run and id of the model that was logged for a bundle."""
        found = self.client.search_runs(
            [self.experiment], f"tags.`{BUNDLE}` = '{bundle}'", order_by=["start_time DESC"], max_results=50
        )
        for run in found:
            model = packaging.logged(self.client, run)
            if model is not None:
                return run.info.run_id, model
        raise StateError(f"{masked(self.uri)}: the run of this classifier has no logged model; run `frostline sync`")

    def _aliased(self, alias: str) -> Version | None:
        from mlflow.exceptions import MlflowException

        try:
            return _version(self.client.get_model_version_by_alias(self.name, alias))
        except MlflowException:
            return None


@contextmanager
def registry(settings: TrackingSection, name: str) -> Iterator[Registry]:
    """The registry beside the runs. Raises StateError where it can't be reached, or tracking is off."""
    tracker = tracking.tracker(settings)
    if tracker.uri == "none":
        raise StateError("params.yaml: tracking.uri is none, so there is no registry; set it to auto or a URI")
    experiment = tracker.connect()
    with reachable(tracker.uri):
        yield Registry(tracker.uri, experiment, name, tracker.state)


@contextmanager
def located(settings: TrackingSection, uri: str) -> Iterator[tuple[Registry, Version]]:
    """The version that `models:/NAME@ALIAS` or `models:/NAME/3` names, and its registry. Raises StateError."""
    parts = re.fullmatch(r"models:/([^/:@]+)[/@]([^/:@]+)", uri)
    if parts is None:
        raise StateError(f"{uri}: is no registered model; write models:/NAME@ALIAS or models:/NAME/VERSION")
    with registry(settings, parts[1]) as known:
        yield known, known.version(parts[2])


def bundle_folder(settings: TrackingSection | None, model: str) -> Path:
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


def locator(settings: TrackingSection) -> Callable[[str], str]:
    """`backbone.weights` -> the same, or the folder of the bundle where it names a registered model.

    An alias is looked up once, so that all of a stage means the same version.
    """
    return cache(lambda weights: str(bundle_folder(settings, weights)))


def _fetched(uri: str) -> Path:
    """The folder of a model's bundle: where a local artifact store has it, or a copy that is kept for the next time."""
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        model, identity = _place(uri)
        if model is None:
            model = paths.models() / digest.of_value(identity)[:24]
            if not model.is_dir():
                with atomic.folder(model) as temporary:
                    mlflow.artifacts.download_artifacts(uri, dst_path=str(temporary))
            os.utime(model)
            used = sorted(paths.models().iterdir(), key=lambda path: path.stat().st_mtime)
            for old in used[:-MODELS_KEPT]:
                shutil.rmtree(old, ignore_errors=True)
    except (MlflowException, OSError) as error:
        reason = masked(" ".join(str(error).split()))[:160]
        raise StateError(f"{uri}: is not available ({reason}); see `frostline register` and MLflow's UI") from error
    found = sorted(model.glob("**/artifacts/*/bundle.json"))
    if len(found) != 1:
        raise StateError(f"{uri}: is no model that frostline registered; it holds no bundle")
    return found[0].parent


def _place(uri: str) -> tuple[Path | None, list[str]]:
    """The folder of a registered or logged model on this machine, if it is there; and what names its content."""
    import mlflow
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    parts = re.fullmatch(r"models:/([^/:@]+)(?:@([^/:@]+)|/(\d+))?", uri)
    model, identity = "", [masked(mlflow.get_tracking_uri()), uri]
    if parts and (parts[2] or parts[3]):
        name, alias, number = parts.groups()
        known = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, number)
        model = known.model_id or ""
        identity = [identity[0], name, str(known.version), str(known.creation_timestamp)]
    elif parts:
        model = parts[1]
    location = client.get_logged_model(model).artifact_location if model else ""
    folder = Path(location.removeprefix("file://"))
    return (folder if folder.is_absolute() and folder.is_dir() else None), identity


def _version(found: Any) -> Version:
    return Version(found.name, int(found.version), found.run_id, dict(found.tags))
