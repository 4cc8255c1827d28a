"""Which images a round of measuring takes, and which bodies the next one does."""

import numpy as np
import pytest
from conftest import make_params, make_shards
from test_verdict import body

from frostline import paths
from frostline.choice import measuring
from frostline.choice.verdict import BodyProbe
from frostline.features import store


@pytest.fixture
def sample(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FROSTLINE_CACHE", str(tmp_path / "cache"))
    make_shards(paths.PREPARED / "train", 30)
    make_shards(paths.PREPARED / "val", 9, seed=99)
    params = make_params(data__image_size=32)
    return measuring._sample(params, store.opened(params.cache))


def test_each_beginning_has_the_same_share_of_each_class(sample):
    for count in (3, 6, 15, 39):
        assert np.bincount(sample.labels[sample.rows(count)]).tolist() == [count / 3] * 3
    assert set(sample.rows(15)) < set(sample.rows(30)) < set(sample.rows(39)) == set(range(39))


def test_the_parts_are_the_rows_of_both_splits(sample):
    (train, its), (val, others) = sample.parts(20)
    assert min(len(its), len(others)) > 0
    assert [*its, *(others + len(train))] == sample.rows(20).tolist()
    labels = [*train.labels[its], *val.labels[others]]
    assert labels == sample.labels[sample.rows(20)].tolist()


def test_half_of_the_bodies_and_all_that_may_be_the_best_are_measured_further():
    found: dict[int, BodyProbe] = {
        number: body(str(number), [value]) for number, value in enumerate([0.9, 0.6, 0.89, 0.5, 0.88])
    }
    assert measuring.promising(found, [0, 1, 2, 3, 4]) == [0, 2, 4]
    assert measuring.promising(found, [0, 1, 3]) == [0, 1], "the better half, though clearly worse"
    assert measuring.promising(found, [1, 3]) == [1]
    near = {number: body(str(number), [0.9 - 0.01 * number]) for number in range(4)}
    assert measuring.promising(near, [0, 1, 2, 3]) == [0, 1, 2, 3], "none is clearly worse"
