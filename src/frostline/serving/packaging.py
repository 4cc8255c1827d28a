"""A bundle as an MLflow model that stands on its own: a pyfunc by models-from-code, with its own copy of the few files
that it needs of this package. Nothing in it is pickled, and it loads where frostline is not installed.

https://mlflow.org/docs/latest/ml/model/models-from-code
"""

from __future__ import annotations

import shutil
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frostline import paths
from frostline.core import atomic, digest
from frostline.models import backend

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

# The Python files that travel with a model: all that is behind `pyfunc.Classifier`.
SOURCES = Path(__file__).parents[1]
TRAVELS = ("data/images.py", "serving/inputs.py", "serving/scoring.py", "serving/pyfunc.py")


def log(bundle: Path, name: str, run: str) -> None:
    """Log a bundle's folder as a model of the MLflow run with that id."""
    import mlflow
    from mlflow.models import Model
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    known = client.get_run(run)
    _forget_unfinished(client, known)
    # Made here, because `mlflow.pyfunc.log_model` tags it with the user's name and the paths of this machine.
    made = client.create_logged_model(known.info.experiment_id, name, run, params=known.data.params)
    with _ingredients(bundle, paths.state() / "model") as ingredients:
        Model.log(None, mlflow.pyfunc, name=name, run_id=run, model_id=made.model_id, **ingredients)


def logged(client: MlflowClient, run: Any) -> str | None:
    """The id of the model that a run of MLflow's has; one that a killed process left half uploaded is none."""
    return next((str(model.model_id) for model in _models(client, run) if _is_whole(model)), None)


def _forget_unfinished(client: MlflowClient, run: Any) -> None:
    """Delete the models of a run that a killed process began to upload."""
    for model in _models(client, run):
        if not _is_whole(model):
            client.delete_logged_model(model.model_id)


def _models(client: MlflowClient, run: Any) -> Sequence[Any]:
    """The models of a run but the deleted ones, which `run.outputs` still names."""
    of_run = f"source_run_id = '{run.info.run_id}'"
    return list(client.search_logged_models([run.info.experiment_id], filter_string=of_run))


def _is_whole(model: Any) -> bool:
    from mlflow.entities import LoggedModelStatus

    return bool(model.status == LoggedModelStatus.READY)


def save(bundle: Path, folder: Path) -> None:
    """Save a bundle as an MLflow model's folder."""
    import mlflow

    with _ingredients(bundle, folder) as ingredients:
        mlflow.pyfunc.save_model(str(folder), **ingredients)


def load(folder: Path) -> Any:
    """A saved model's folder as an `mlflow.pyfunc.PyFuncModel`."""
    import mlflow

    return mlflow.pyfunc.load_model(str(folder))


@contextmanager
def _ingredients(bundle: Path, place: Path) -> Iterator[dict[str, Any]]:
    """What `save_model` and `log_model` are given, lying in a folder beside `place` that lasts as long as the block."""
    with atomic.scratch(place) as scratch:
        # Named by what is in it, so that models of different versions live in one process side by side.
        package = scratch / f"frostline_{digest.of_value([digest.of_file(SOURCES / path) for path in TRAVELS])[:12]}"
        for path in map(package.joinpath, TRAVELS):
            path.parent.mkdir(parents=True, exist_ok=True)
            (path.parent / "__init__.py").touch()
            shutil.copy(SOURCES / path.relative_to(package), path)
        (package / "__init__.py").touch()
        script = scratch / "model.py"
        script.write_text(
            f"from mlflow.models import set_model\nfrom {package.name}.serving.pyfunc import Classifier\n\n"
            "set_model(Classifier())\n"
        )
        sys.path.insert(0, str(scratch))  # MLflow runs the script before it is saved
        try:
            with warnings.catch_warnings():
                # The signature is given instead.
                warnings.filterwarnings("ignore", ".*An input example was not provided")  # after a sign for its colour
                yield {
                    "python_model": str(script),
                    "artifacts": {"bundle": str(bundle)},
                    "code_paths": [str(package)],
                    "signature": _signature(),
                    # Named, so that MLflow need not load the model in a fresh process to find out (15 s).
                    "pip_requirements": _requirements(),
                }
        finally:
            sys.path.remove(str(scratch))


def _signature() -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import AnyType, Map

    given = {"image": DataType.binary, "path": DataType.string, "pixels": AnyType()}
    inputs = [ColSpec(kind, column, required=False) for column, kind in given.items()]
    made = {"label": DataType.string, "probability": DataType.double, "probabilities": Map(DataType.double)}
    return ModelSignature(Schema(inputs), Schema([ColSpec(kind, column) for column, kind in made.items()]))


def _requirements() -> list[str]:
    with backend.quiet():
        import keras

    packages = ["mlflow", "keras", keras.backend.backend(), "numpy", "pandas", "pillow"]
    return [f"{package}=={version(package)}" for package in packages]
