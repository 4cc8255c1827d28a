"""The vectors of all depths in one pass: what plain Keras gives, computed once and shared where bodies are the same."""

import keras
import numpy as np
import pytest
from conftest import make_shards

from frostline.core.mapped import Memory
from frostline.features import depths
from frostline.features.prefix import FeatureSource
from frostline.features.store import Store
from frostline.models import backbones, backend, freezing, heads, vision_transformer
from frostline.models.backbones import Backbone


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "features", 1e9, Memory(1e9))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("images") / "train", 20)


@pytest.fixture
def computed(monkeypatch):
    """The number of vectors' columns and images of each call of a network."""
    calls, predict = [], backend.predict

    def counting(model, batch, rows):
        calls.append((model.output.shape[-1], len(batch)))
        return predict(model, batch, rows)

    monkeypatch.setattr(backend, "predict", counting)
    return calls


def frostnet():
    return backbones.build("frostnet", "builtin", 32)


def fine_tuned(layer):
    """frostnet with other weights from the layer on."""
    made = frostnet()
    names = [each.name for each in made.model.layers]
    for each in made.model.layers[names.index(layer) :]:
        each.set_weights([value + 0.01 for value in each.get_weights()])
    return made


def transformer():
    keras.utils.set_random_seed(0)
    body = vision_transformer.build(vision_transformer.Design(8, 32, 2, 2, 64), 32, "body")
    return Backbone("tiny", body, lambda x: keras.ops.cast(x, "float32") / 127.5 - 1, pretrained=False)


def plainly(backbone, layer, images):
    """The pooled output of a plain Keras model that ends at a depth, from an operation of any kind."""
    (cut,) = (cut for cut in freezing.cut_points(backbone.model) if cut.layer == layer)
    pixels = keras.Input(backbone.model.input.shape[1:], dtype="uint8")
    output = keras.Model(backbone.model.input, cut.tensor)(backbone.preprocess(pixels))
    values = keras.Model(pixels, output).predict(images.take(np.arange(len(images))), verbose=0)
    if values.ndim == 3:  # tokens, the class token first
        values = values[:, 1:] if backbone.name == "tiny" else values
    return values.mean(axis=tuple(range(1, values.ndim - 1)))


@pytest.mark.parametrize("make", [frostnet, transformer])
def test_the_vectors_are_the_pooled_outputs_of_plain_models(make, images, store):
    body = make()
    one_pass = depths.Pass([body], "depths")
    found = one_pass.vectors(images, np.arange(len(images)), store)
    (places,) = one_pass.depths
    assert places[-1].layer == freezing.cut_points(body.model)[-1].layer
    assert len(places) > 3
    assert all(len(place.entry.shape) == 1 and place.entry.shape[0] <= 160 for place in places)
    shares = [place.share for place in places]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    for place in (places[0], places[len(places) // 2], places[-1]):
        expected = plainly(body, place.layer, images)
        assert found[place.entry.key].dtype == np.float32
        np.testing.assert_allclose(found[place.entry.key], expected, rtol=1e-4, atol=1e-5)


def test_a_second_pass_computes_nothing_and_more_images_only_theirs(images, store, computed, tmp_path):
    first = depths.Pass([frostnet()], "depths").vectors(images, np.arange(len(images)), store)
    assert [rows for _, rows in computed] == [20]
    again = depths.Pass([frostnet()], "depths").vectors(images, np.arange(len(images)), store)
    assert len(computed) == 1
    assert first.keys() == again.keys()
    assert all(np.array_equal(first[key], again[key]) for key in first)
    more = make_shards(tmp_path / "more", 24)
    assert set(images.identities) < set(more.identities)
    extended = depths.Pass([frostnet()], "depths").vectors(more, np.arange(len(more)), store)
    assert [rows for _, rows in computed] == [20, 4]
    assert all(np.isin(first[key], extended[key]).all() for key in first)


def test_what_two_bodies_share_is_computed_once(images, store, computed):
    bodies = [frostnet(), fine_tuned("block3_out")]
    lower, other = (depths.Pass([body], "depths").depths[0] for body in bodies)
    shared = {place.entry.key for place in lower} & {place.entry.key for place in other}
    assert 2 < len(shared) < len(lower)
    both = depths.Pass(bodies, "depths")
    found = both.vectors(images, np.arange(len(images)), store)
    entries = {place.entry.key: place.entry for places in both.depths for place in places}
    assert len(found) == len(entries) == len(lower) + len(other) - len(shared)
    assert computed == [(sum(entry.shape[0] for entry in entries.values()), 20)]
    for body, places in zip(bodies, both.depths, strict=True):
        np.testing.assert_allclose(
            found[places[-1].entry.key], plainly(body, places[-1].layer, images), rtol=1e-4, atol=1e-5
        )


def test_of_a_body_whose_start_is_known_only_the_rest_is_computed(images, store, computed):
    depths.Pass([frostnet()], "depths").vectors(images, np.arange(len(images)), store)
    descendant = fine_tuned("block3_out")
    one_pass = depths.Pass([descendant], "depths")
    new = [place for place in one_pass.depths[0] if not store.count(place.entry, images.identities)]
    one_pass.vectors(images, np.arange(len(images)), store)
    assert computed[1] == (sum(place.entry.shape[0] for place in new), 20)
    assert 0 < len(new) < len(one_pass.depths[0])


def test_without_room_in_the_store_the_vectors_are_the_same(images, store, tmp_path, capsys):
    expected = depths.Pass([frostnet()], "depths").vectors(images, np.arange(len(images)), store)
    found = depths.Pass([frostnet()], "depths").vectors(
        images, np.arange(len(images)), Store(tmp_path / "none", 10.0, Memory(1e9))
    )
    assert all(np.array_equal(expected[key], found[key]) for key in expected)
    assert capsys.readouterr().err.count("can't be stored") == 1


def test_no_entry_is_one_of_training():
    body = frostnet()
    ((*_, end),) = depths.Pass([body], "depths").depths
    head = heads.build(body.model.output.shape[1:], 3, "avg", [], "relu", False)
    of_training = {stop.entry.key for stop in FeatureSource(body, head).stops("float32")}
    assert end.entry.key not in of_training
    assert not of_training & {place.entry.key for place in depths.Pass([body], "depths").depths[0]}
