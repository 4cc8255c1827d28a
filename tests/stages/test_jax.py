"""The stages on Keras's JAX backend: with and without stored features, and a bundle that TensorFlow can load."""

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
    environment = {**os.environ, "KERAS_BACKEND": "jax", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    command = [sys.executable, "-m", "frostline", command, *(["--json"] if command == "sweep" else [])]
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return process.stdout


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
    for stored, computed in zip(*(bundle.model.weights for bundle in models), strict=True):
        np.testing.assert_allclose(np.array(stored), np.array(computed), rtol=0, atol=1e-6)
    assert "test accuracy" in frostline("evaluate", "auto")
    result = json.loads(frostline("sweep", "always"))
    assert result["trials"] == {"complete": 2}
    CHANGES.update({key.replace(".", "__"): value for key, value in result["best"]["values"].items()})
    CHANGES["finetune__devices"] = 2  # `auto` is one on CPUs, so the trials were trained on one
    out = frostline("finetune", "always")
    assert "finetune: 2 devices share each batch" in out
    assert f"val_accuracy {result['best']['value']:.4f}" in out
    metrics = json.loads((tmp_path / "reports" / "metrics.json").read_text())
    assert metrics["accuracy"] > 0.6
    test = shards.open_folder(tmp_path / "data" / "prepared" / "test")  # here on TensorFlow
    assert np.mean(models[1].probabilities(test).argmax(axis=1) == test.labels) == pytest.approx(
        metrics["accuracy"], abs=5e-3
    )
