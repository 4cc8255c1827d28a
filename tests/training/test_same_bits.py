"""The plan changes only the time of a training: the whole pipeline ends with the same bits for every plan."""

import os

import numpy as np
import pytest
from conftest import make_params
from PIL import Image

from frostline import paths
from frostline.core import digest
from frostline.models import backend
from frostline.stages import augment, evaluate, finetune, prepare

pytestmark = pytest.mark.process

# Stored; computed because the store was full from the start, or became full during the training; never stored.
ROUTES = {
    "stored": {"cache__mode": "always"},
    "full": {"cache__mode": "auto", "cache__disk_gb": 1e-9},
    "half full": {"cache__mode": "always", "cache__disk_gb": 3e-4},
    "never": {"cache__mode": "never"},
}


@pytest.mark.skipif(backend.has_gpu(), reason="a GPU is only exact to 1e-5")
def test_features_that_are_stored_or_computed_give_the_same_bits(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # MLflow itself sets it
    rng = np.random.default_rng(0)
    for label in range(3):
        folder = tmp_path / "images" / "abc"[label]
        folder.mkdir(parents=True)
        for number in range(40):  # each split has more than one batch of the prefix, and its last one is shorter
            pixels = rng.integers(0, 80, (32, 32, 3), dtype=np.uint8)
            pixels[label * 10 : label * 10 + 10, :10] += 150
            Image.fromarray(pixels).save(folder / f"{number}.png")
    digests = {}
    for name, changes in ROUTES.items():
        monkeypatch.setenv("FROSTLINE_CACHE", f"cache-{name}")
        params = make_params(
            data__source="images",
            data__image_size=32,
            data__train_per_class=None,
            data__near_duplicates=False,
            augment__copies=1,
            finetune__head_epochs=2,
            finetune__epochs=2,
            finetune__freeze="block6_out",
            evaluate__bootstrap=100,
            **changes,
        )
        if not paths.PREPARED.exists():
            prepare.run(params)
            augment.run(params)
        finetune.run(params)
        evaluate.run(params)
        output = capsys.readouterr()
        assert ("there is room for" in output.err) == (name in {"full", "half full"})
        digests[name] = {
            path: digest.of_file(tmp_path / path)
            for path in (paths.BUNDLE / "model.keras", paths.HISTORY, paths.METRICS, paths.PREDICTIONS)
        }
    for name in ROUTES:
        assert digests[name] == digests["stored"], name
