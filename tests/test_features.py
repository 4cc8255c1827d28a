import dataclasses
import os

import keras
import numpy as np
import pytest

from frostline import backbones, classifier, features, freezing
from frostline.errors import ParamsError, StateError


@pytest.fixture(scope="module")
def extractor():
    backbone = backbones.build("frostnet", "builtin", 32)
    head = classifier.build_head(backbone.model.output.shape[1:], 3, "avg", [], "relu", 0.0, False)
    freezing.freeze(backbone.model, len(backbone.model.layers), False)
    cut = freezing.cut_points(backbone.model)[-1]
    return features.Extractor(classifier.prefix(backbone, head, cut))


@pytest.fixture
def store(tmp_path):
    return features.Store(tmp_path / "features", 1e9, "float32")


def entries(store):
    return sorted(store.folder.glob("*.npy"))


def test_stored_features_are_what_the_prefix_gives(extractor, store, small_sets):
    train = small_sets()[0]
    found = store.features(extractor, train)
    expected = extractor.prefix.predict(train.take(np.arange(len(train))), verbose=0)
    assert found.shape == (len(train), 160)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    rows = features.Stored(store, extractor, train)
    np.testing.assert_array_equal(rows.take(np.array([5, 3, 5])), found[[5, 3, 5]])


def test_the_second_use_reads_instead_of_computing(extractor, store, small_sets, monkeypatch):
    train = small_sets()[0]
    first = np.array(store.features(extractor, train))
    monkeypatch.setattr(features, "extract", lambda *_: pytest.fail("computed again"))
    np.testing.assert_array_equal(store.features(extractor, train), first)
    assert len(entries(store)) == 1


def test_a_damaged_entry_is_computed_again_with_a_warning(extractor, store, small_sets, capsys):
    train = small_sets()[0]
    first = np.array(store.features(extractor, train))
    for damage in (b"", entries(store)[0].read_bytes()[:-100]):
        entries(store)[0].write_bytes(damage)
        np.testing.assert_array_equal(store.features(extractor, train), first)
        assert "is damaged; computing it again" in capsys.readouterr().err


def test_other_pictures_weights_cut_or_dtype_are_other_entries(extractor, store, small_sets):
    train, validation = small_sets()
    store.features(extractor, train)
    store.features(extractor, validation)
    half = dataclasses.replace(store, dtype="float16").features(extractor, train)
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, store.features(extractor, train), rtol=1e-3, atol=1e-3)
    assert len(entries(store)) == 3
    kernel = extractor.prefix.weights[0]
    value = np.array(kernel)
    kernel.assign(value + 1)
    try:
        store.features(features.Extractor(extractor.prefix), train)
    finally:
        kernel.assign(value)
    assert len(entries(store)) == 4


def test_the_least_recently_used_entry_goes_when_the_budget_is_full(extractor, store, small_sets):
    train, first, second = small_sets(2)[:3]
    bytes_each = store.size(extractor, len(train))
    store = dataclasses.replace(store, budget=2.9 * bytes_each)
    for pictures in (train, first):
        store.features(extractor, pictures)
    oldest, newer = entries(store)
    os.utime(oldest, (1, 1))
    os.utime(newer, (2, 2))
    store.features(extractor, second)
    assert not oldest.exists()
    assert newer.exists()


def test_a_place_that_cannot_be_written_is_named(extractor, tmp_path, small_sets):
    (tmp_path / "file").write_text("in the way")
    store = features.Store(tmp_path / "file" / "features", 1e9, "float32")
    with pytest.raises(StateError, match="file/features: can't be made"):
        store.features(extractor, small_sets()[0])


def key(size=32, pooling="avg", place=5, preprocessing="tf"):
    """The key of a prefix of random weights, whatever was built in this process before."""
    keras.utils.set_random_seed(0)
    body = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(size, size, 3))
    backbone = backbones.Backbone("MobileNetV2", body, backbones._PREPROCESSING[preprocessing], False)
    head = classifier.build_head(body.output.shape[1:], 3, pooling, [], "relu", 0.0, False)
    return features.Extractor(classifier.prefix(backbone, head, freezing.cut_points(body)[place])).key


def test_the_key_knows_the_graph_and_not_the_names_that_keras_numbers():
    keys = [key(), key(size=64), key(place=6), key(preprocessing="caffe"), key(place=-1), key(place=-1, pooling="max")]
    assert len(set(keys)) == len(keys)
    assert key() == keys[0]


def test_features_that_overflow_are_an_error_that_names_the_key(extractor, store, small_sets):
    kernel = extractor.prefix.weights[-4]
    value = np.array(kernel)
    kernel.assign(np.full_like(value, 1e9))
    try:
        with pytest.raises(ParamsError, match=r"features are not finite in cache\.dtype float16; set it to float32"):
            dataclasses.replace(store, dtype="float16").features(features.Extractor(extractor.prefix), small_sets()[0])
    finally:
        kernel.assign(value)
    assert not list(store.folder.iterdir())
