import hashlib
import json

import keras
import numpy as np
import pytest
import workspace
from conftest import make_params

from frostline.data import shards
from frostline.errors import DataError, ParamsError
from frostline.models import assembly, backbones, bundles, freezing, heads

LAYOUT = shards.Layout(("cat", "dog"), 32, "crop")


def make(binary=False, hidden=(), pooling="avg", classes=2):
    keras.utils.set_random_seed(1)
    backbone = backbones.build("frostnet", "builtin", 32)
    shape = backbone.model.output.shape[1:]
    head = heads.build(shape, classes, pooling, list(hidden), "relu", binary)
    return bundles.Bundle(assembly.whole(backbone, head), LAYOUT, workspace.made_from())


def test_a_bundle_round_trips_and_loads_with_plain_keras(tmp_path, small_sets):
    bundle, images = make(hidden=[7]), small_sets()[0]
    bundles.save(tmp_path, bundle)
    loaded = bundles.load(tmp_path)
    assert loaded.layout == LAYOUT
    assert loaded.made_from == workspace.made_from()
    expected = bundle.probabilities(images)
    np.testing.assert_array_equal(loaded.probabilities(images), expected)
    np.testing.assert_allclose(expected.sum(axis=1), 1, rtol=1e-5)
    plain = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_allclose(plain.predict(images.take(np.arange(42)), verbose=0), expected, rtol=1e-5, atol=1e-6)


def test_the_same_model_saved_twice_gives_the_same_bytes(tmp_path, monkeypatch):
    digests = set()
    for number, when in enumerate((1e9, 1.7e9)):
        monkeypatch.setattr("time.time", lambda when=when: when)
        (tmp_path / str(number)).mkdir()
        bundles.save(tmp_path / str(number), make())
        digests.add(hashlib.sha256((tmp_path / str(number) / "model.keras").read_bytes()).hexdigest())
    assert len(digests) == 1


def test_a_binary_head_has_one_unit_and_two_probabilities(small_sets):
    bundle = make(binary=True)
    assert bundle.model.output.shape == (None, 1)
    probabilities = bundle.probabilities(small_sets()[0])
    assert probabilities.shape == (42, 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)


def test_a_binary_head_for_three_classes_is_refused_naming_both_keys():
    with pytest.raises(ParamsError, match=r"head.binary is true, but data.source has 3 classes"):
        make_params(head__binary=True).head.require_fit(3)
    make_params(head__binary=True).head.require_fit(2)


@pytest.mark.parametrize("binary", [False, True])
def test_a_temperature_is_part_of_the_model_that_plain_keras_loads(tmp_path, small_sets, binary):
    bundle, images = make(binary=binary), small_sets()[0]
    logits = bundle.logits.predict(images.take(np.arange(42)), verbose=0)
    calibrated = bundle.calibrated(2.5)
    bundles.save(tmp_path, calibrated)
    assert json.loads((tmp_path / "bundle.json").read_text())["made_from"]["temperature"] == 2.5
    squash = keras.ops.sigmoid if binary else keras.ops.softmax
    expected = np.array(squash(logits / 2.5))
    plain = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_allclose(plain(images.take(np.arange(42))), expected, atol=1e-6)
    assert (bundles.load(tmp_path).temperature, bundle.temperature) == (2.5, 1)
    again = calibrated.calibrated(1.0)  # replaces the temperature instead of multiplying it
    assert "temperature" not in [layer.name for layer in again.model.layers]


@pytest.mark.parametrize("pooling", ["avg", "max", "flatten"])
def test_every_pooling_builds(pooling):
    assert make(pooling=pooling, hidden=[5, 4]).model.output.shape == (None, 2)


@pytest.mark.parametrize("hidden", [[], [5, 4]])
def test_dropout_in_training_is_that_of_keras_at_any_rate_and_is_saved(hidden, tmp_path):
    backbone = backbones.build("frostnet", "builtin", 32)
    head = heads.build(backbone.model.output.shape[1:], 2, "avg", hidden, "relu", False)
    cut = freezing.cut_points(backbone.model)[-1]
    suffix = assembly.suffix(backbone, head, cut)
    pooled = np.random.default_rng(0).normal(size=(9, *suffix.input.shape[1:])).astype(np.float32)
    states = [layer.seed_generator.state for layer in head.top.layers if isinstance(layer, keras.layers.Dropout)]
    before = [np.array(state) for state in states]
    for rate in (0.7, 0.0, 0.2):
        head.set_dropout(rate)
        outputs = []
        for model in (suffix, head.top):
            for state, value in zip(states, before, strict=True):
                state.assign(value)
            outputs.append(np.array(model(pooled, training=True)))
        np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-6)
        assert np.allclose(outputs[0], np.array(suffix(pooled)), atol=1e-5) == (rate == 0)
    bundles.save(tmp_path, bundles.Bundle(assembly.whole(backbone, head), LAYOUT, workspace.made_from()))
    loaded = bundles.load(tmp_path).model.get_layer("head")
    assert {layer.rate for layer in loaded.layers if isinstance(layer, keras.layers.Dropout)} == {0.2}


def test_a_folder_without_a_bundle_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no classifier"):
        bundles.load(tmp_path)
