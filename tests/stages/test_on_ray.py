"""Stages on a Ray cluster of two nodes write what they write without it, byte by byte, whatever dies meanwhile."""

import os
import signal
import threading
import time

import numpy as np
import pandas as pd
import pytest
import ray_nodes
from conftest import make_bundle, make_params, make_shards
from PIL import Image

from frostline import paths
from frostline.commands import features
from frostline.core import digest, ray_cluster
from frostline.errors import DataError
from frostline.features import predictor, store
from frostline.models import bundles
from frostline.serving import batch, loading
from frostline.stages import augment, prepare

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def nodes():
    with ray_nodes.running() as running:
        yield running


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A project whose source has 400 images and two broken files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    rng = np.random.default_rng(0)
    for number in range(400):
        place = tmp_path / "images" / f"class-{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), np.uint8)).save(place / f"{number}.png")
    for name in ("class-0/empty.jpg", "class-1/text.png"):
        (tmp_path / "images" / name).write_bytes(b"no image" * (name[6] == "1"))
    return make_params(data__source="images", data__image_size=32, augment__copies=2)


def outcome():
    """The digests of all that both stages wrote."""
    return [digest.of_folder(each) for each in (paths.PREPARED, paths.AUGMENTED)] + [
        digest.of_file(each) for each in (paths.DATA_REPORT, paths.CONTACT_SHEET)
    ]


def test_prepare_and_augment_write_the_same_though_a_process_is_killed(source, nodes):
    prepare.run(source)
    augment.run(source)
    expected = outcome()
    killed = []

    def kill():
        while not killed:
            for each in ray_nodes.processes("_call")[:1]:
                os.kill(each, signal.SIGKILL)
                killed.append(each)
            time.sleep(0.01)

    threading.Thread(target=kill, daemon=True).start()
    with ray_cluster.connected(nodes.address) as cluster:
        prepare.run(source, cluster)
        augment.run(source, cluster)
    assert killed
    assert outcome() == expected


def test_a_machine_that_does_not_see_the_images_is_an_error_and_drops_none(source, nodes, tmp_path):
    with ray_cluster.connected(nodes.address) as cluster:
        hidden = tmp_path / "images"
        moved = hidden.rename(tmp_path / "moved")

        class Late:
            """The images are there when the source is opened, and not when they are decoded."""

            def map(self, function, arguments):
                hidden.rename(moved)
                return cluster.map(function, arguments)

        moved.rename(hidden)
        with pytest.raises(DataError, match=r".*: images: not found; every machine of the cluster needs it"):
            prepare.run(source, Late())
    assert not paths.PREPARED.exists()


def test_features_probabilities_and_predictions_are_the_same(tmp_path, monkeypatch, nodes):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    test = make_shards(paths.PREPARED / "test", 70)
    bundle = make_bundle(tmp_path / "bundle", ("a", "b", "c"))
    for row, pixels in enumerate(test.take(np.arange(40))):
        Image.fromarray(pixels).save(tmp_path / f"{row}.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    requests = batch.find_images([str(tmp_path / "*.png")])
    given = make_params(data__image_size=32, data__resize="stretch")
    with ray_cluster.connected(nodes.address) as cluster:
        for name, executor in {"here": None, "there": cluster}.items():
            features.run(given, "block6_out", "test", tmp_path / f"{name}.parquet", executor)
            (tmp_path / ".frostline").rename(tmp_path / f"store {name}")
        far = predictor.logits(bundles.load(bundle), test, store.opened(given.cache, cluster), "auto")
        answers = list(batch.answers_elsewhere(cluster, bundle, requests))
    here, there = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("here", "there"))
    np.testing.assert_allclose(there.filter(regex="f[0-9]"), here.filter(regex="f[0-9]"), atol=1e-5)
    assert list(here["path"]) == list(there["path"])
    assert len(list((tmp_path / "store there").glob("features/*/*.npy"))) == 1
    near = predictor.logits(bundles.load(bundle), test, store.opened(given.cache), "auto")
    np.testing.assert_allclose(far, near, atol=1e-4)
    expected = list(batch.answers(loading.scorer_of(bundle), requests))
    assert [(each.path, each.error) for each in answers] == [(each.path, each.error) for each in expected]
    assert sum(bool(each.error) for each in answers) == 1
    for one, other in zip(answers, expected, strict=True):
        if one.prediction:
            assert one.prediction.probability == pytest.approx(other.prediction.probability, abs=1e-5)
