"""What several tests need: params with a few keys changed, small data, the folder of real photos."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import workspace

from frostline.core.history import HistoryRow
from frostline.data import shards
from frostline.models import backend
from frostline.params.schema import Params

backend.set_up()  # before any test imports TensorFlow

ROOT = Path(__file__).parent.parent

# The files that take longest, so that none of them is left over at the end while another worker has nothing to do.
LONGEST = (
    "stages/test_e2e_readme.py",
    "models/test_hub.py",
    "training/test_loop.py",
    "stages/test_e2e_registry.py",
    "deploy/test_team_server.py",
    "search/test_worker.py",
    "stages/test_e2e.py",
    "project/test_workflows.py",
    "training/test_same_bits.py",
    "models/test_applications.py",
    "tracking/test_registry.py",
    "serving/test_app.py",
    "tracking/test_runs.py",
    "tracking/test_tracker.py",
    "models/test_graph.py",
    "models/test_weights.py",
    "features/test_predictor.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files; the order within a file stays."""
    places = {ROOT / "tests" / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(LONGEST)))


def in_process_tier(*values: Any) -> Any:
    """A case of a parametrized test that `make test` leaves out, because others of the test are quicker."""
    return pytest.param(*values, marks=pytest.mark.process)


def make_params(**changes: Any) -> Params:
    """The repository's own params.yaml with some dotted keys (`finetune__epochs=2`) changed; no tracking."""
    return workspace.params({key.replace("__", "."): value for key, value in changes.items()})


def make_shards(
    folder: Path,
    count: int,
    size: int = 32,
    classes: int = 3,
    seed: int = 0,
    names: tuple[str, ...] = tuple("abcdefghij"),
) -> shards.Shards:
    """Images whose class is the place of a bright square, so that a network can learn it in a few epochs."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    pixels = rng.integers(0, 80, (count, size, size, 3), dtype=np.uint8)
    side = size // classes
    for image, label in zip(pixels, labels, strict=True):
        image[label * side : (label + 1) * side, :side] += 150
    index = pd.DataFrame(
        {
            "path": [f"{label}/{i}.png" for i, label in enumerate(labels)],
            "label": labels,
            "sha256": [f"{seed:08x}{i:056x}" for i in range(count)],
        }
    )
    folder.mkdir(parents=True)
    layout = shards.Layout(names[:classes], size, "stretch")
    return shards.write(folder, layout, index, pixels)


def make_row(**numbers: Any) -> HistoryRow:
    """A row of a history, where most of its numbers don't matter."""
    values = {"step": 1, "phase": "head", "epoch": 1, "learning_rate": 1e-3, "loss": 0.5, "accuracy": 0.5}
    return HistoryRow(**{**values, "val_loss": 0.5, "val_accuracy": 0.5, "frozen_layers": 66, **numbers})


def make_bundle(folder: Path, classes: tuple[str, ...], binary: bool = False, seed: int = 1, size: int = 32) -> Path:
    """A saved classifier with the embedded backbone and a head of random weights."""
    import keras

    from frostline.models import assembly, backbones, bundles, heads

    keras.utils.set_random_seed(seed)
    backbone = backbones.build("frostnet", "builtin", size)
    head = heads.build(backbone.model.output.shape[1:], len(classes), "avg", [], "relu", binary)
    layout = shards.Layout(classes, size, "stretch")
    folder.mkdir(parents=True)
    made_from = workspace.made_from(seed=seed)
    bundles.save(folder, bundles.Bundle(assembly.whole(backbone, head), layout, made_from))
    return folder


def make_predictions(n: int = 300, seed: int = 0, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and probabilities that are right more often than not."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    logits = rng.normal(0, 1, (n, classes)) + 1.5 * np.eye(classes)[labels]
    e = np.exp(logits)
    return labels, (e / e.sum(axis=1, keepdims=True)).astype(np.float32)


def assert_alike(found: np.ndarray, expected: np.ndarray) -> None:
    """What came another way is the same to the last bit; on a GPU, which promises less, to 1e-5 of its size."""
    if backend.has_gpu():
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * float(np.abs(expected).max()))
    else:
        np.testing.assert_array_equal(found, expected)


@pytest.fixture(autouse=True)
def environment_of_mlflow() -> Iterator[None]:
    """MLflow and the tracker set this variable for child processes; the next test must not find it."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    yield
    if before is None:
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    else:
        os.environ["MLFLOW_TRACKING_URI"] = before


@pytest.fixture(scope="session")
def small_sets(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], list[shards.Shards]]:
    """`sets(copies)` gives [train, variant 1, ..., validation] of 3 classes, 32 pixels."""
    base = tmp_path_factory.mktemp("sets")

    def sets(copies: int = 0) -> list[shards.Shards]:
        made = []
        for name, count, seed in [("train", 42, 0), *((f"v{i}", 42, i) for i in range(1, copies + 1)), ("val", 18, 99)]:
            folder = base / name
            made.append(shards.open_folder(folder) if folder.exists() else make_shards(folder, count, seed=seed))
        return made

    return sets


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder of real photos and weights."""
    named = os.environ.get("FROSTLINE_TEST_ASSETS")
    if not named:
        pytest.skip("FROSTLINE_TEST_ASSETS is not set: no real photos and weights here")
    return Path(named)
