"""From a model's name to the folder of its bundle: `models:/NAME@ALIAS`, `models:/NAME/3`, `models:/ID` or a folder."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

from frostline import paths
from frostline.core import atomic, digest, suggest
from frostline.core.masking import masked
from frostline.errors import StateError, of_system
from frostline.params.schema import TrackingSection
from frostline.tracking import relocation
from frostline.tracking import tracker as tracking
from frostline.tracking.contact import reachable

MOST_FETCHED = 8  # models that are kept on this machine
MOST_NAMED = 10  # models or versions in a message

ALIASED = re.compile(r"models:/([^/:@]+)@([^/:@]+)")

# MLflow's codes for a model or version that does not exist, and for an alias that does not.
NOT_FOUND = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}


def bundle_folder(settings: TrackingSection | None, model: str) -> Path:
    """The folder of a bundle: `model` itself, or that of a registered or logged model.

    A model that is not on this machine is fetched. settings: where models are registered. Raises StateError if there is
    no such model, or if it does not come from frostline.
    """
    if not model.startswith("models:/"):
        return Path(model)
    with reachable(_connected(settings, model).uri):
        return fetch(model)


def pointer(settings: TrackingSection | None, model: str) -> Callable[[], str]:
    """A function that asks the registry for the version that an alias names now: `models:/NAME@ALIAS` is
    `models:/NAME/3`, and any other name is itself.

    Raises StateError, as the function does, if there is no such alias or the registry does not answer.
    """
    parts = ALIASED.fullmatch(model)
    if parts is None:
        return lambda: model
    name, alias = parts.groups()
    uri = _connected(settings, model).uri

    def look() -> str:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        with reachable(uri):
            try:
                return f"models:/{name}/{MlflowClient().get_model_version_by_alias(name, alias).version}"
            except MlflowException as error:
                if error.error_code in NOT_FOUND:
                    raise not_registered(model) from error
                raise

    return look


def _connected(settings: TrackingSection | None, model: str) -> tracking.Tracker:
    """The tracker with the registry of a model."""
    tracker = tracking.tracker(settings) if settings else None
    if tracker is None or tracker.uri == "none":
        raise StateError(f"{model}: tracking.uri in params.yaml is none, so nothing is registered; name a folder")
    tracker.connect()
    return tracker


def locator(settings: TrackingSection) -> Callable[[str], str]:
    """A function from `backbone.weights` to the same value, or to the folder of the bundle of a registered model.

    It looks an alias up once, so that a stage means one version throughout.
    """
    return cache(lambda weights: str(bundle_folder(settings, weights)))


def fetch(uri: str) -> Path:
    """The folder of a model's bundle in a local artifact store, or a copy that stays for the next time.

    The tracking server must be connected. Raises StateError if the model is not available or holds no bundle.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        model, identity = _locate(uri)
        if model is None:
            model = paths.models() / digest.of_value(identity)[:24]
            if not model.is_dir():
                with atomic.folder(model) as temporary:
                    mlflow.artifacts.download_artifacts(uri, dst_path=str(temporary))
            os.utime(model)
            oldest_first = sorted(paths.models().iterdir(), key=lambda path: path.stat().st_mtime)
            for old in oldest_first[:-MOST_FETCHED]:
                shutil.rmtree(old, ignore_errors=True)
    except PermissionError as error:
        raise StateError(of_system(error)) from error
    except (MlflowException, OSError) as error:
        if getattr(error, "error_code", None) in NOT_FOUND:
            raise not_registered(uri) from error
        reason = masked(" ".join(str(error).split()))[:160]
        raise StateError(f"{uri}: is not available ({reason}); see `frostline register` and MLflow's UI") from error
    accounts = sorted(model.glob("**/artifacts/*/bundle.json"))
    if len(accounts) != 1:
        raise StateError(f"{uri}: is no model that frostline registered; it holds no bundle")
    return accounts[0].parent


def not_registered(uri: str) -> StateError:
    """The error for the URI of a model that does not exist, with what comes nearest to it."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    name, _, reference = uri.removeprefix("models:/").replace("@", "/", 1).partition("/")
    models = {model.name: model for model in client.search_registered_models()}
    if name not in models:
        known = f"registered are {', '.join(sorted(models)[:MOST_NAMED])}" if models else "nothing is registered yet"
        fix = suggest.hint(name, models, known)
        return StateError(f"{uri}: no model is registered as {name}; {fix} (`frostline register` registers one)")
    aliases = sorted(models[name].aliases)
    numbers = sorted(int(each.version) for each in client.search_model_versions(f"name = '{name}'"))
    known = ", ".join([*map(str, numbers[-MOST_NAMED:]), *aliases])
    fix = suggest.hint(reference, aliases, f"take one of {known}" if known else "run `frostline register`")
    lacks = f"has no version or alias {reference}" if reference else "names no version"
    return StateError(f"models:/{name}: {lacks}; {fix}")


def _locate(uri: str) -> tuple[Path | None, list[str]]:
    """The folder of a model on this machine, if there is one, and the strings that identify its content."""
    import mlflow
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    parts = re.fullmatch(r"models:/([^/:@]+)(?:@([^/:@]+)|/(\d+))?", uri)
    model, identity = "", [masked(mlflow.get_tracking_uri()), uri]
    if parts and (parts[2] or parts[3]):
        name, alias, number = parts.groups()
        version = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, number)
        model = version.model_id or ""
        identity = [identity[0], name, str(version.version), str(version.creation_timestamp)]
    elif parts:
        model = parts[1]
    location = client.get_logged_model(model).artifact_location if model else ""
    folder = relocation.path_of(location)
    return (folder if folder.is_absolute() and folder.is_dir() else None), identity
