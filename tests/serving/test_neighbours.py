"""The nearest training images, against all distances computed one by one."""

import base64
import io
import time
from dataclasses import replace

import numpy as np
import pytest
from conftest import make_bundle, make_shards
from PIL import Image

from frostline.models import bundles
from frostline.models.made_from import SourceDigests
from frostline.serving import neighbours
from frostline.serving.neighbours import Neighbours
from frostline.serving.payload import RefusedRequestError

CLASSES = ("cat", "dog", "owl")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A bundle that says it was trained on these images, and the images."""
    folder = tmp_path_factory.mktemp("neighbours")
    images = make_shards(folder / "train", 70, names=CLASSES)
    bundle = bundles.load(make_bundle(folder / "bundle", CLASSES))
    made_from = replace(bundle.made_from, data=SourceDigests(images.source_digest(), "b" * 64))
    return replace(bundle, layout=images.layout, made_from=made_from), images


def nearest(near, pixels):
    """The answer, once the images have been read."""
    end = time.monotonic() + 60
    while (found := near.nearest(pixels)) is None and time.monotonic() < end:
        time.sleep(0.05)
    return found


def test_they_are_those_with_the_smallest_distances(trained):
    bundle, images = trained
    near = Neighbours(bundle, images.folder)
    assert near.nearest(images.take(np.array([7]))[0]) is None  # they are being read
    found = nearest(near, images.take(np.array([7]))[0])
    network = neighbours._features(bundle)
    vectors = [network.predict_on_batch(images.take(np.array([row])))[0] for row in range(70)]
    mine = vectors[7]
    distances = [1 - mine @ each / np.linalg.norm(mine) / np.linalg.norm(each) for each in vectors]
    expected = np.argsort(distances)[:5]
    assert [each.label for each in found] == [CLASSES[images.labels[row]] for row in expected]
    np.testing.assert_allclose([each.distance for each in found], np.array(distances)[expected], atol=1e-5)
    assert expected[0] == 7
    assert found[0].distance < 1e-5
    png = base64.b64decode(found[0].image.removeprefix("data:image/png;base64,"))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), images.take(np.array([7]))[0])


def test_classes_are_drawn_in_turn(monkeypatch):
    monkeypatch.setattr(neighbours, "MOST", 20)
    labels = np.repeat([0, 1, 2], [1000, 5, 30])
    rows = neighbours._by_class(labels)
    assert np.bincount(labels[rows]).tolist() == [8, 5, 7]
    assert len(set(rows)) == 20
    np.testing.assert_array_equal(neighbours._by_class(labels), rows)
    np.testing.assert_array_equal(neighbours._by_class(labels[-10:] * 0), np.arange(10))


def test_where_there_are_none_the_reason_is_told(trained, tmp_path):
    bundle, images = trained
    image = images.take(np.array([0]))[0]
    (tmp_path / "meta.json").write_text("{}")
    others = replace(bundle, made_from=replace(bundle.made_from, data=SourceDigests("c" * 64, "b" * 64)))
    cases = [
        (bundle, None, "shows them only with --neighbours"),
        (bundle, tmp_path / "none", "does not have them"),
        (bundle, tmp_path, "cannot be read"),
        (others, images.folder, "not those that this model was trained on"),
        (replace(bundle, layout=replace(bundle.layout, image_size=48)), images.folder, "not those"),
    ]
    for candidate, folder, reason in cases:
        with pytest.raises(RefusedRequestError, match=reason) as refusal:
            nearest(Neighbours(candidate, folder), image)
        assert refusal.value.status == 404
