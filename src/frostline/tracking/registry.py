"""Registered models in MLflow: versions, the aliases `champion` and `challenger`, and the record of who was champion.

Every move of `champion` is a tag of the registered model (see moves.py). So the record is MLflow's own, seen in its UI,
and `rollback` needs nothing else.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frostline import paths
from frostline.core import atomic
from frostline.core.masking import masked
from frostline.errors import StateError, of_system
from frostline.params.schema import TrackingSection
from frostline.serving import packaging
from frostline.tracking import lineage, model_uris, moves, relocation, run_log
from frostline.tracking import tracker as tracking
from frostline.tracking.contact import reachable
from frostline.tracking.moves import CHALLENGER, CHAMPION, Move
from frostline.tracking.tracker import BUNDLE

if TYPE_CHECKING:
    import pandas as pd

PREDICTIONS = paths.PREDICTIONS.name


@dataclass(frozen=True)
class Version:
    """A registered version.

    run: the id of the run that logged the model; bundle: the digest of the bundle's account; test_digest: of the test
    images that the version was last tested on.
    """

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
        """state: the folder of the lock and of fetched files."""
        from mlflow.tracking import MlflowClient

        self.uri, self.experiment, self.name, self._state = uri, experiment, name, state
        self.client = MlflowClient()

    def versions(self) -> list[Version]:
        """All versions, the oldest first."""
        versions = self.client.search_model_versions(f"name = '{self.name}'", max_results=10_000)
        return sorted(map(_version, versions), key=lambda version: version.number)

    def version(self, reference: str) -> Version:
        """A version by its number or alias. Raises StateError if there is none."""
        version = self._aliased(reference)
        if version is None and reference.isdecimal():
            version = next((each for each in self.versions() if each.number == int(reference)), None)
        if version is None:
            raise model_uris.not_registered(f"models:/{self.name}{'/' if reference.isdecimal() else '@'}{reference}")
        return version

    def champion(self) -> Version | None:
        """The present champion, if there is one."""
        return self._aliased(CHAMPION)

    def register(self, bundle: str, tags: dict[str, str], description: str) -> Version:
        """Register the model that a run logged as a version, with the alias `challenger`.

        bundle: the digest by which the run is found. A model that is a version already only gets the tags, the
        description and the alias.
        """
        from mlflow.exceptions import MlflowException

        with self.alone():
            registered = [version for version in self.versions() if version.bundle == bundle]
            if registered:
                number = registered[-1].number
            else:
                try:
                    self.client.get_registered_model(self.name)
                except MlflowException:
                    self.client.create_registered_model(self.name)
                run, model = self._logged(bundle)
                version = self.client.create_model_version(
                    self.name, f"models:/{model}", run, tags={BUNDLE: bundle}, model_id=model
                )
                number = int(version.version)
            self.client.update_model_version(self.name, str(number), description)
            for key, value in tags.items():
                self.client.set_model_version_tag(self.name, str(number), key, value)
            self.client.set_registered_model_alias(self.name, CHALLENGER, str(number))
        return self.version(str(number))

    def move(self, kind: str, before: Version | None, after: Version | None, reason: str) -> None:
        """Move `champion` and record the move. Raises StateError if the present champion is not `before`.

        Call it inside `alone`, so that no other command on this machine comes in between. MLflow has no way to compare
        and set, so two promotions on two machines within the same few milliseconds can still cross.
        """
        if (now := self.champion()) != before:
            number = now.number if now else "none"
            raise StateError(f"models:/{self.name}@champion: was moved meanwhile (now {number}); run it again")
        time = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        old, new = (version.number if version else None for version in (before, after))
        moves.begin(self.client, self.name, Move(time, kind, old, new, reason))

    def moves(self) -> list[Move]:
        """All moves, the oldest first."""
        return moves.done(self._tags())

    def previous_champion(self) -> int | None:
        """The number of the champion before the present one. Raises StateError if there is no move to undo."""
        return moves.previous(self.name, self.moves())

    def predictions(self, version: Version, test_digest: str) -> pd.DataFrame | None:
        """The stored predictions of a version for a test set: sha256, label, probabilities; None if there are none."""
        import pandas as pd

        place = f"{run_log.EVALUATION.format(run_log.short(test_digest))}/{PREDICTIONS}"
        with self._fetched(version, place) as path:
            return None if path is None else pd.read_parquet(path, page_checksum_verification=True)

    def keep_predictions(self, version: Version, test_digest: str, table: pd.DataFrame) -> None:
        """Store the predictions of a version for a test set that it was not evaluated on."""
        place = run_log.EVALUATION.format(run_log.short(test_digest))
        with atomic.scratch(self._state / "predictions") as scratch:
            path = scratch / PREDICTIONS
            table.to_parquet(path, index=False, write_page_checksum=True)
            self.client.log_artifact(version.run, str(path), place)

    @contextmanager
    def state(self, version: Version) -> Iterator[Path]:
        """A folder with dvc.lock, dvc.yaml and params.yaml as they were when a version was registered.

        The folder is removed at the end of the block.
        """
        place = run_log.STATE.format(run_log.short(version.tags.get(lineage.LOCK, "")))
        with self._fetched(version, place) as folder:
            if folder is None:
                raise StateError(f"{version.uri}: was not registered by frostline, so it has no lineage")
            yield folder

    def run_tags(self, version: Version) -> dict[str, str]:
        """The tags of the run that logged a version's model; none if the run was deleted for good."""
        from mlflow.exceptions import MlflowException

        try:
            return dict(self.client.get_run(version.run).data.tags)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return {}

    def bundle(self, version: Version) -> Path:
        """The folder of a version's bundle, which is fetched if it is not on this machine."""
        return model_uris.fetch(version.uri)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other commands of this machine away from the registry; first finish the move that a killed one began."""
        atomic.require_writable(self._state)
        waiting = "waiting for another frostline command that changes the registry ..."
        with atomic.lock(self._state / "registry.lock", waiting):
            numbers = [version.number for version in self.versions()]
            move = moves.finish_begun(self.client, self.name, self._tags(), numbers)
            if move is not None:
                print(f"registry: finished the {move.kind} that a killed command began", file=sys.stderr)
            yield

    @contextmanager
    def _fetched(self, version: Version, place: str) -> Iterator[Path | None]:
        """A copy of what the run of a version keeps in a place, for the block; None if it has nothing there."""
        import mlflow
        from mlflow.exceptions import MlflowException

        with atomic.scratch(self._state / "fetched") as scratch:
            try:
                path = Path(
                    mlflow.artifacts.download_artifacts(run_id=version.run, artifact_path=place, dst_path=str(scratch))
                )
            except (MlflowException, OSError):
                path = None
                self._require_readable(version, place)
            yield path

    def _require_readable(self, version: Version, place: str) -> None:
        """Raise StateError if files on this machine may not be read: MLflow says then that they don't exist."""
        from mlflow.exceptions import MlflowException

        try:
            folder = relocation.path_of(self.client.get_run(version.run).info.artifact_uri)
            if folder.is_absolute():
                (folder / place).stat()
        except (FileNotFoundError, MlflowException):  # there is nothing, or the run was deleted for good
            return
        except PermissionError as error:
            raise StateError(of_system(error)) from error

    def _tags(self) -> dict[str, str]:
        """The tags of the registered model; none before the first version."""
        from mlflow.exceptions import MlflowException

        try:
            return dict(self.client.get_registered_model(self.name).tags)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return {}

    def _logged(self, bundle: str) -> tuple[str, str]:
        """The run and the id of the model that was logged for a bundle."""
        runs = self.client.search_runs(
            [self.experiment], f"tags.`{BUNDLE}` = '{bundle}'", order_by=["start_time DESC"], max_results=50
        )
        for run in runs:
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
    """The registry of the tracking server. Raises StateError if it can't be reached, or if tracking is off."""
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
    with registry(settings, parts[1]) as models:
        yield models, models.version(parts[2])


def _version(version: Any) -> Version:
    return Version(version.name, int(version.version), version.run_id, dict(version.tags))
