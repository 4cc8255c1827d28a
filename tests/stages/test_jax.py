"""The stages on Keras's JAX backend: the same commands, cached as uncached, and a bundle that loads anywhere."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, make_params
from ruamel.yaml import YAML

from frostline.data import shards
from frostline.models import bundles
from frostline.stages import augment, prepare

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed: pip install -e .[jax]"),
]

CHANGES = {
    "data__train_per_class": 3,
    "augment__copies": 1,
    "finetune__head_epochs": 3,
    "finetune__epochs": 3,
    "finetune__batch_size": 10,
    "evaluate__bootstrap": 100,
    "sweep__trials": 2,
    "sweep__space": {"finetune.freeze": ["block6_out"], "finetune.learning_rate": [1e-4, 1e-3]},
    "sweep__sampler": "grid",
}


def frostline(command, mode):
    values = make_params(**CHANGES, cache__mode=mode).model_dump(mode="json")
    with open("params.yaml", "w") as file:
        YAML(typ="safe").dump(values, file)
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    command = [sys.executable, "-m", "frostline", command, *(["--json"] if command == "sweep" else [])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_finetune_and_evaluate_run_on_jax(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    shutil.copytree(ROOT / "data", "data", ignore=shutil.ignore_patterns("prepared", "augmented"))
    prepare.run(make_params(**CHANGES))
    augment.run(make_params(**CHANGES))
    models = []
    for mode in ("always", "never"):
        out = frostline("finetune", mode)
        assert out.startswith("plan: ")
        assert "weights proved unchanged" in out
        models.append(bundles.load(tmp_path / "models" / "classifier"))
    for cached, computed in zip(*(bundle.model.weights for bundle in models), strict=True):
        np.testing.assert_allclose(np.array(cached), np.array(computed), rtol=0, atol=1e-6)
    assert "test accuracy" in frostline("evaluate", "auto")
    found = json.loads(frostline("sweep", "always"))
    assert found["trials"] == {"complete": 2}
    CHANGES.update({key.replace(".", "__"): value for key, value in found["best"]["values"].items()})
    assert f"val_accuracy {found['best']['value']:.4f}" in frostline("finetune", "always")
    metrics = json.loads((tmp_path / "reports" / "metrics.json").read_text())
    assert metrics["accuracy"] > 0.6
    test = shards.open_folder(tmp_path / "data" / "prepared" / "test")  # here on TensorFlow
    assert np.mean(models[1].probabilities(test).argmax(axis=1) == test.labels) == pytest.approx(
        metrics["accuracy"], abs=5e-3
    )
