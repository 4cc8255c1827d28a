"""A bundle as a self-contained MLflow model: a pyfunc by models-from-code, with its own copy of the few files that it
needs from this package. Nothing in it is pickled, and it loads without frostline.

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
from frostline.models import account, backend

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

# The Python files that are copied into a model: `pyfunc.RegisteredClassifier` and everything that it imports.
SOURCES = Path(__file__).parents[1]
COPIED_FILES = (
    *(f"data/{name}.py" for name in ("deep_grey", "dicom", "images", "memory_budget")),
    "models/answers.py",
    *(f"serving/{name}.py" for name in ("batching", "inputs", "pyfunc", "scoring")),
)


def log(bundle: Path, name: str, run: str) -> None:
    """Log a bundle's folder as a model of the MLflow run with this id."""
    import mlflow
    from mlflow.models import Model
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    record = client.get_run(run)
    _delete_unfinished(client, record)
    # Created here, because `mlflow.pyfunc.log_model` would tag it with the user's name and the paths of this machine.
    model = client.create_logged_model(record.info.experiment_id, name, run, params=record.data.params)
    with _ingredients(bundle, paths.state() / "model") as ingredients:
        Model.log(None, mlflow.pyfunc, name=name, run_id=run, model_id=model.model_id, **ingredients)


def logged(client: MlflowClient, run: Any) -> str | None:
    """The id of the model of an MLflow run; None if it has none, or only one whose upload was killed."""
    return next((str(model.model_id) for model in _models(client, run) if _is_whole(model)), None)


def _delete_unfinished(client: MlflowClient, run: Any) -> None:
    """Delete the models of a run whose upload was killed."""
    for model in _models(client, run):
        if not _is_whole(model):
            client.delete_logged_model(model.model_id)


def _models(client: MlflowClient, run: Any) -> Sequence[Any]:
    """The models of a run, without the deleted ones, which are still in `run.outputs`."""
    condition = f"source_run_id = '{run.info.run_id}'"
    return list(client.search_logged_models([run.info.experiment_id], filter_string=condition))


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
    """The arguments of `save_model` and `log_model`. Their files lie beside `place` until the block ends."""
    facts = account.read(bundle).answers
    with atomic.scratch(place) as scratch:
        # The name contains a digest of the content, so models of different versions can be loaded in one process.
        content = digest.of_value([digest.of_file(SOURCES / path) for path in COPIED_FILES])
        package = scratch / f"frostline_{content[:12]}"
        for path in map(package.joinpath, COPIED_FILES):
            path.parent.mkdir(parents=True, exist_ok=True)
            (path.parent / "__init__.py").touch()
            shutil.copy(SOURCES / path.relative_to(package), path)
        (package / "__init__.py").touch()
        script = scratch / "model.py"
        script.write_text(
            f"from mlflow.models import set_model\nfrom {package.name}.serving.pyfunc import RegisteredClassifier\n\n"
            "set_model(RegisteredClassifier())\n"
        )
        sys.path.insert(0, str(scratch))  # MLflow runs the script before it is saved
        try:
            with warnings.catch_warnings():
                # The signature is given instead. The text begins with a code for its colour, hence the `.*`.
                warnings.filterwarnings("ignore", ".*An input example was not provided")
                yield {
                    "python_model": str(script),
                    "artifacts": {"bundle": str(bundle)},
                    "code_paths": [str(package)],
                    "signature": _signature(facts.says if facts else ()),
                    # Without them, MLflow would load the model in a new process to find them out (15 s).
                    "pip_requirements": _requirements(),
                }
        finally:
            sys.path.remove(str(scratch))


def _signature(says: Sequence[str]) -> Any:
    """The columns of a table of images and of the answers. says: what the latter have besides probabilities."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import AnyType, Array, Map

    inputs = {"image": DataType.binary, "path": DataType.string, "pixels": AnyType()}
    outputs = {"label": DataType.string, "probability": DataType.double, "probabilities": Map(DataType.double)}
    kinds = {"set": Array(DataType.string), "unknown": DataType.boolean}
    outputs |= {name: kinds[name] for name in says}
    return ModelSignature(
        Schema([ColSpec(kind, column, required=False) for column, kind in inputs.items()]),
        Schema([ColSpec(kind, column) for column, kind in outputs.items()]),
    )


def _requirements() -> list[str]:
    with backend.quiet():
        import keras

    packages = ["mlflow", "keras", keras.backend.backend(), "numpy", "pandas", "pillow"]
    return [f"{package}=={version(package)}" for package in packages]
