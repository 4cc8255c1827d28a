"""Probabilities by way of the store against the saved model's own."""

import keras
import numpy as np
import pytest
import workspace
from conftest import assert_alike, in_process_tier

from frostline.core.mapped import Memory
from frostline.features import predictor
from frostline.features.store import Store
from frostline.models import assembly, backbones, bundles, freezing, heads
from frostline.models.freeze_rules import Band


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "features", 1e9, Memory(1e9))


def make(folder, layout, binary, frozen, temperature):
    """A bundle that was saved and loaded, of which so many layers are frozen."""
    keras.utils.set_random_seed(1)
    backbone = backbones.build("frostnet", "builtin", 32)
    classes = 2 if binary else 3
    head = heads.build(backbone.model.output.shape[1:], classes, "avg", [4], "relu", binary)
    freezing.freeze(backbone.model, Band.above(frozen, len(backbone.model.layers)), False)
    made_from = workspace.made_from(frozen=frozen)
    folder.mkdir()
    bundle = bundles.Bundle(assembly.whole(backbone, head), layout, made_from)
    bundles.save(folder, bundle.calibrated(temperature))
    return bundles.load(folder)


@pytest.mark.parametrize(
    ("binary", "temperature", "frozen", "stored"),
    [
        (False, 1.7, 66, 42),
        (True, 0.6, 34, 42),
        in_process_tier(False, 1.7, 34, 42),
        in_process_tier(True, 0.6, 0, 0),
    ],
)
def test_the_same_as_the_saved_model_and_stored_for_the_next(
    tmp_path, store, small_sets, binary, temperature, frozen, stored
):
    images = small_sets()[0]
    bundle = make(tmp_path / "bundle", images.layout, binary, frozen, temperature)
    expected = bundle.probabilities(images)
    assert expected.shape == (42, 2 if binary else 3)
    for _ in range(2):
        found = predictor.probabilities(bundle, images, store, "always")
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert sum(entry.images for entry in store.usage()) == stored
    assert_alike(predictor.probabilities(bundle, images, store, "never"), found)
    logits = predictor.logits(bundle, images, store, "always") / temperature
    squashed = keras.ops.sigmoid(logits) if binary else keras.ops.softmax(logits)
    np.testing.assert_allclose(assembly.by_class(np.array(squashed)), expected, rtol=0, atol=1e-6)
