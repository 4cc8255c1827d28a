"""The probes are what their names say: compared with scikit-learn and with slow formulas."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsClassifier

from frostline.choice import probes
from frostline.choice.probes import Probe


def centred(count, width, seed=0):
    x = np.random.default_rng(seed).normal(size=(count, width))
    return x - x.mean(axis=0)


def problem(count, width, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    vectors = rng.normal(size=(count, width)) + 1.2 * np.eye(classes, width)[labels]
    return vectors.astype(np.float32), labels


SHAPES = pytest.mark.parametrize(("count", "width"), [(60, 8), (25, 80)], ids=["tall", "wide"])


@SHAPES
def test_ridge_is_that_of_scikit_learn(count, width):
    x, held_out = centred(count, width), centred(7, width, seed=1)
    targets = np.eye(3)[np.arange(count) % 3 // 1]
    scores = probes.ridge_scores(x, targets, held_out, np.array([0.05]))
    expected = Ridge(alpha=0.05 * count).fit(x, targets).predict(held_out)
    np.testing.assert_allclose(scores, expected, atol=1e-9)


@SHAPES
def test_the_penalty_is_the_one_that_generalised_cross_validation_prefers(count, width):
    """By the hat matrix H, mean included: the residuals of leaving one out, each with the average leverage."""
    x, rng = centred(count, width), np.random.default_rng(2)
    targets = np.eye(3)[(x[:, :3] + rng.normal(size=(count, 3))).argmax(axis=1)]
    errors = []
    for penalty in probes.PENALTIES * count:
        hat = x @ np.linalg.solve(x.T @ x + penalty * np.eye(width), x.T) + 1 / count
        left_out = (targets - hat @ targets) / (1 - np.trace(hat) / count)
        errors.append((left_out**2).mean())
    best = int(np.argmin(errors))
    assert 0 < best < len(errors) - 1, "neither end of the range"
    scores = probes.ridge_scores(x, targets, x)
    np.testing.assert_allclose(scores, probes.ridge_scores(x, targets, x, probes.PENALTIES[best : best + 1]))


def test_the_cross_validated_ridge_is_scikit_learns_fold_by_fold(monkeypatch):
    monkeypatch.setattr(probes.ridge_scores, "__defaults__", (np.array([0.1]),))
    vectors, labels = problem(90, 6)
    fold = probes.folds(labels, pd.Series([""] * 90), 1)
    right = 0
    for number in range(probes.FOLDS):
        inside = fold != number
        x = (vectors - vectors[inside].mean(axis=0)) / vectors[inside].std(axis=0)
        model = Ridge(alpha=0.1 * inside.sum()).fit(x[inside], np.eye(3)[labels[inside]])
        right += int((model.predict(x[~inside]).argmax(axis=1) == labels[~inside]).sum())
    assert probes.ridge(vectors, labels, fold) == Probe(right / 90, 90)


def test_labels_that_the_vectors_say_nothing_about_are_guessed_and_clear_ones_are_told():
    vectors, labels = problem(300, 200)
    fold = probes.folds(labels, pd.Series([""] * 300), 0)
    noise = np.random.default_rng(5).permutation(labels)
    assert 0.2 < probes.ridge(vectors, noise, fold).accuracy < 0.47
    clear = np.eye(3, 50, dtype=np.float32)[labels]  # most columns are constant
    assert probes.ridge(clear, labels, fold).accuracy == 1
    assert probes.nearest(clear, labels, fold).accuracy == 1


def test_folds_keep_sets_together_are_balanced_and_the_same_every_time():
    labels = np.repeat([0, 1, 2], [50, 20, 10])
    together = pd.Series([""] * 80)
    together[[0, 1, 2]], together[[55, 75]] = "three", "pair"
    fold = probes.folds(labels, together, 7)
    np.testing.assert_array_equal(fold, probes.folds(labels, together, 7))
    assert (fold != probes.folds(labels, together, 8)).any()
    assert len(set(fold[[0, 1, 2]])) == len(set(fold[[55, 75]])) == 1
    for label, count in enumerate([50, 20, 10]):
        shares = np.bincount(fold[labels == label], minlength=probes.FOLDS)
        assert shares.sum() == count
        assert shares.max() - shares.min() <= 3, "as even as sets of three allow"
    alone = probes.folds(labels, pd.Series([""] * 80), 7)
    assert [np.bincount(alone[labels == label]).tolist() for label in range(3)] == [[10] * 5, [4] * 5, [2] * 5]


def test_no_more_images_teach_than_the_training_will_have():
    labels = np.repeat([0, 1, 2], [100, 60, 40])
    fold = probes.folds(labels, pd.Series([""] * 200), 7)
    assert probes.teachers(labels, fold, 2, None).tolist() == np.flatnonzero(fold != 2).tolist()
    rows = probes.teachers(labels, fold, 2, 40)
    assert set(rows) < set(np.flatnonzero(fold != 2))
    assert np.bincount(labels[rows]).tolist() == [20, 12, 8]
    vectors, labels = problem(400, 30)
    fold = probes.folds(labels, pd.Series([""] * 400), 3)
    for probe in (probes.ridge, probes.nearest):
        assert probe(vectors, labels, fold, 400) == probe(vectors, labels, fold)
        assert probe(vectors, labels, fold, 30).accuracy < probe(vectors, labels, fold).accuracy - 0.05


def test_the_error_of_a_difference_is_that_of_pairs():
    right = np.arange(100) < 80
    one, near = Probe(0.8, 100, right), Probe(0.79, 100, np.arange(100) < 79)
    assert one.error_of_difference(near) == pytest.approx((0.01 * 0.99) ** 0.5 / 10)
    assert one.error_of_difference(near) < one.error / 3, "they tell nearly the same images"
    assert one.error_of_difference(Probe(0.79, 100)) == one.error, "which images were told is not known"


def test_the_nearest_neighbours_are_those_of_scikit_learn():
    vectors, labels = problem(70, 5)
    fold = probes.folds(labels, pd.Series([""] * 70), 3)
    x = vectors - vectors.mean(axis=0)
    right = 0
    for number in range(probes.FOLDS):
        inside = fold != number
        model = KNeighborsClassifier(probes.NEIGHBOURS, metric="cosine", weights=lambda distance: 2 - distance)
        right += int((model.fit(x[inside], labels[inside]).predict(x[~inside]) == labels[~inside]).sum())
    assert probes.nearest(vectors, labels, fold) == Probe(right / 70, 70)


def test_the_nearest_neighbours_are_never_of_the_same_fold_even_when_there_are_few():
    vectors = np.eye(6, dtype=np.float32)
    vectors[:3] += 1
    labels = np.array([0, 0, 0, 1, 1, 1])
    fold = np.array([0, 0, 0, 1, 1, 1])  # of its own class, an image sees nothing
    assert probes.nearest(vectors, labels, fold).accuracy == 0


def test_the_chunks_of_similarities_make_no_difference(monkeypatch):
    vectors, labels = problem(70, 5)
    fold = probes.folds(labels, pd.Series([""] * 70), 3)
    whole = probes.nearest(vectors, labels, fold)
    monkeypatch.setattr(probes, "CHUNK", 9)
    assert probes.nearest(vectors, labels, fold) == whole


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    # statsmodels.stats.proportion.proportion_confint(right, count, method="wilson")
    [(8, 10, 0.490162, 0.943318), (0, 20, 0.0, 0.161125), (150, 150, 0.975030, 1.0)],
)
def test_the_interval_is_wilsons(right, count, low, high):
    from scipy.stats import binomtest

    found = Probe(right / count, count).interval
    assert found == pytest.approx((low, high), abs=1e-5)
    reference = binomtest(right, count).proportion_ci(method="wilson")
    assert found == pytest.approx((reference.low, reference.high), abs=1e-6)


@pytest.mark.parametrize("size", [32, 27, 8])
def test_the_floor_of_pixels_is_a_plain_mean_of_each_place(size):
    images = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    edges = [int(size * place / 8) for place in range(9)]
    places = [
        (slice(*edges[row : row + 2]), slice(*edges[column : column + 2])) for row in range(8) for column in range(8)
    ]
    expected = np.concatenate([images[:, rows, columns].mean(axis=(1, 2)) for rows, columns in places], axis=1)
    found = probes.pixels(images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)
