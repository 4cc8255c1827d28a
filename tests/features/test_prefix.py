"""Features of images: the same bits from wherever they are taken."""

import dataclasses

import numpy as np
import pytest
from conftest import assert_alike

from frostline.core.mapped import Memory
from frostline.errors import ParamsError
from frostline.features.prefix import IMAGES, ComputedRows, FeatureSource, Prefix
from frostline.features.store import Store
from frostline.models import assembly, backbones, backend, heads


def make(dtype="float32", places=(4, 9, -1)):
    backbone = backbones.build("frostnet", "builtin", 32)
    head = heads.build(backbone.model.output.shape[1:], 3, "avg", [], "relu", False)
    source = FeatureSource(backbone, head)
    stops = source.stops(dtype)
    return Prefix(source, [stops[place] for place in places])


@pytest.fixture(scope="module")
def prefix():
    return make()


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "features", 1e9, Memory(1e9))


def everything(rows):
    return rows.take(np.arange(len(rows)))


def test_the_chain_gives_what_the_backbone_gives(prefix, small_sets):
    images = small_sets()[0]
    body = assembly.suffix(prefix.source.backbone, prefix.source.head, None)
    got = everything(ComputedRows(prefix, IMAGES, 2, images))
    assert got.shape == (42, 160)
    logits = assembly.suffix(prefix.source.backbone, prefix.source.head, prefix.stops[2].cut).predict(got, verbose=0)
    expected = body.predict(everything(images), verbose=0)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_the_same_bits_from_the_store_a_shallower_place_or_the_fly_in_any_batch(prefix, store, small_sets):
    images = small_sets()[0]
    direct = everything(ComputedRows(make(places=(-1,)), IMAGES, 0, images))
    plain = prefix.rows(2, set(), set(), store, images)
    order = np.random.default_rng(0).permutation(42)
    assert_alike(plain.take(order[:40]), direct[order[:40]])
    assert_alike(plain.take(order[40:]), direct[order[40:]])
    for kept, read in ({0}, set()), ({1}, {0}), ({2}, {0, 1}), (set(), {1}):
        rows = prefix.rows(2, kept, read, store, images)
        assert len(rows) == 42
        assert_alike(rows.take(order), direct[order])
    assert [store.count(stop.entry, images.identities) for stop in prefix.stops] == [42, 42, 42]


def test_a_place_that_is_only_read_is_not_added_to(prefix, store, small_sets):
    train, variant, _ = small_sets(1)
    everything(prefix.rows(0, {0}, set(), store, train))
    rows = prefix.rows(2, set(), {0}, store, variant)
    assert_alike(everything(rows), everything(ComputedRows(prefix, IMAGES, 2, variant)))
    assert store.count(prefix.stops[0].entry, variant.identities) == 0
    mixed = dataclasses.replace(  # half of these images are there
        rows.below, identities=np.concatenate([train.identities[:21], variant.identities[21:]])
    )
    taken = everything(mixed)
    assert_alike(taken[:21], everything(ComputedRows(prefix, IMAGES, 0, train))[:21])
    assert_alike(taken[21:], everything(ComputedRows(prefix, IMAGES, 0, variant))[21:])


def test_float16_features_are_near(store, small_sets):
    train = small_sets()[0]
    half = everything(make("float16").rows(2, {2}, set(), store, train))
    assert half.dtype == np.float16
    exact = everything(make().rows(2, {2}, set(), store, train))
    np.testing.assert_allclose(half, exact, rtol=1e-3, atol=1e-4)
    assert len(store.usage()) == 2


def test_features_that_overflow_are_an_error_that_names_the_key(store, small_sets):
    broken = make("float16", places=(-1,))
    kernel = broken.source.backbone.model.layers[1].kernel
    kernel.assign(np.full(kernel.shape, 1e9, np.float32))
    with pytest.raises(ParamsError, match=r"features are not finite in cache\.dtype float16; set it to float32"):
        everything(broken.rows(0, {0}, set(), store, small_sets()[0]))
    assert not list(store.folder.glob("*/*.npy"))


def test_rows_below_are_asked_for_a_batch_at_a_time(prefix, small_sets):
    class Counting:
        def __init__(self, rows):
            self.rows, self.asked = rows, []

        def __len__(self):
            return len(self.rows)

        def take(self, rows):
            self.asked.append(len(rows))
            return self.rows.take(rows)

    size = backend.batch_rows()
    below = Counting(small_sets()[0])
    rows = np.resize(np.arange(42), size + 10)
    assert len(ComputedRows(prefix, IMAGES, 2, below).take(rows)) == size + 10
    assert below.asked == [size, 10]
