"""The metrics equal those of scikit-learn, and the intervals those of SciPy."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from conftest import make_predictions
from scipy.stats import binomtest
from sklearn import metrics as reference

from frostline.evaluation import metrics
from frostline.evaluation.scores import Scores

CLASSES = 5


@pytest.mark.parametrize(("n", "classes"), [(300, 5), (40, 2), (7, 10)])
def test_metrics_agree_with_scikit_learn(n: int, classes: int) -> None:
    labels, probabilities = make_predictions(n, seed=n, classes=classes)
    predicted = probabilities.argmax(axis=1)
    scores = metrics.compute(labels, probabilities, top_k=1, resamples=100, seed=0)
    assert scores.accuracy.value == scores.top_k_accuracy == pytest.approx(reference.accuracy_score(labels, predicted))
    assert scores.macro_f1.value == pytest.approx(reference.f1_score(labels, predicted, average="macro"))
    assert scores.weighted_f1 == pytest.approx(reference.f1_score(labels, predicted, average="weighted"))
    exact = probabilities.astype(float)
    expected = reference.log_loss(labels, exact / exact.sum(axis=1, keepdims=True), labels=range(classes))
    assert scores.log_loss.value == pytest.approx(expected, rel=1e-5)
    assert scores.n_test == n
    written = json.loads(json.dumps(scores.as_json(), allow_nan=False))
    assert Scores.from_json(written).as_json() == written


def test_top_k_agrees_with_scikit_learn_and_k_is_at_most_the_classes() -> None:
    labels, probabilities = make_predictions()
    for k in (2, 3):
        expected = reference.top_k_accuracy_score(labels, probabilities, k=k)
        scores = metrics.compute(labels, probabilities, k, 100, 0)
        assert scores.top_k_accuracy == pytest.approx(expected)
        assert scores.as_json()[f"top_{k}_accuracy"] == pytest.approx(expected, abs=5e-5)
    assert metrics.compute(labels, probabilities, 99, 100, 0).as_json()["top_5_accuracy"] == 1


def test_the_confusion_matrix_and_the_table_of_classes_agree_with_scikit_learn() -> None:
    labels, probabilities = make_predictions()
    predicted = probabilities.argmax(axis=1)
    confusion = metrics.confusion_matrix(labels, predicted, CLASSES)
    np.testing.assert_array_equal(confusion, reference.confusion_matrix(labels, predicted))
    table = metrics.per_class(labels, predicted, tuple("abcde"))
    expected = reference.precision_recall_fscore_support(labels, predicted)
    np.testing.assert_allclose(table[["precision", "recall", "f1", "support"]].to_numpy().T, np.stack(expected))
    assert table["class"].tolist() == list("abcde")


def test_a_class_that_never_occurs_is_ignored() -> None:
    labels = np.array([0, 0, 1, 1])
    probabilities = np.eye(4, dtype=np.float32)[[0, 0, 1, 0]]
    scores = metrics.compute(labels, probabilities, 1, 100, 0)
    assert scores.macro_f1.value == pytest.approx(
        reference.f1_score(labels, probabilities.argmax(axis=1), average="macro")
    )
    table = metrics.per_class(labels, probabilities.argmax(axis=1), tuple("abcd"))
    assert table.loc[3, ["precision", "recall", "f1", "support"]].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (10, 10), (7, 10), (1, 1), (950, 1000)])
def test_wilsons_interval_agrees_with_scipy(hits: int, n: int) -> None:
    expected = binomtest(hits, n).proportion_ci(method="wilson")
    assert metrics.wilson(hits, n) == pytest.approx([expected.low, expected.high], abs=1e-6)


def test_the_calibration_error_agrees_with_a_plain_loop() -> None:
    labels, probabilities = make_predictions()
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    error, counts = 0.0, []
    for low in range(metrics.ECE_BINS):
        inside = (confidence > low / metrics.ECE_BINS) & (confidence <= (low + 1) / metrics.ECE_BINS)
        if inside.any():
            counts.append(int(inside.sum()))
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert metrics.expected_calibration_error(labels, probabilities) == pytest.approx(error, rel=1e-5)
    assert metrics.reliability(labels, probabilities)["count"].tolist() == counts


def test_the_bins_of_reliability_hold_every_image_once() -> None:
    labels, probabilities = make_predictions()
    table = metrics.reliability(labels, probabilities)
    assert table["count"].sum() == len(labels)
    assert (table["count"] * table["accuracy"]).sum() == (probabilities.argmax(axis=1) == labels).sum()
    pd.testing.assert_series_equal(table["confidence"], table["confidence"].sort_values())


def test_certainty_is_well_calibrated_when_right_and_finite_when_wrong() -> None:
    certain = np.eye(2, dtype=np.float32)[[0, 1]]
    right, wrong = np.array([0, 1]), np.array([1, 0])
    assert metrics.losses(right, certain).sum() == metrics.expected_calibration_error(right, certain) == 0
    assert metrics.losses(wrong, certain) == pytest.approx(-np.log(np.finfo(np.float32).eps))
    assert metrics.expected_calibration_error(wrong, certain) == 1


def test_the_bootstraps_intervals_agree_with_resampling_images() -> None:
    labels, probabilities = make_predictions(200)
    predicted = probabilities.argmax(axis=1)
    rng = np.random.default_rng(1)
    resamples = []
    for _ in range(1000):
        rows = rng.integers(0, len(labels), len(labels))
        table = metrics.per_class(labels[rows], predicted[rows], tuple("abcde"))
        resamples.append((table["f1"].mean(), metrics.losses(labels[rows], probabilities[rows]).mean()))
    scores = metrics.compute(labels, probabilities, 1, 2000, 7)
    low, high = np.quantile(resamples, [0.025, 0.975], axis=0)
    for at, name in enumerate(("macro_f1", "log_loss")):
        score = getattr(scores, name)
        assert score.interval == pytest.approx((low[at], high[at]), abs=0.1 * (high[at] - low[at]))
        assert score.interval[0] < score.value < score.interval[1]
    assert scores == metrics.compute(labels, probabilities, 1, 2000, 7)


def test_the_hardest_are_the_most_confident_mistakes_or_the_least_sure_right_answers() -> None:
    labels, probabilities = make_predictions(50)
    wrong, confidence = probabilities.argmax(axis=1) != labels, probabilities.max(axis=1)
    rows = metrics.hardest(labels, probabilities, 5)
    assert wrong[rows].all()
    np.testing.assert_array_equal(confidence[rows], np.sort(confidence[wrong])[::-1][:5])
    right = metrics.hardest(labels[~wrong], probabilities[~wrong], 3)
    np.testing.assert_array_equal(confidence[~wrong][right], np.sort(confidence[~wrong])[:3])


def test_confusions_count_each_pair_of_classes() -> None:
    confusion = np.array([[5, 1, 0], [3, 4, 0], [0, 1, 2]])
    assert metrics.confusions(confusion).to_numpy().tolist() == [[1, 0, 3], [0, 1, 1], [2, 1, 1]]
    assert metrics.confusions(np.diag([1, 2])).empty


def test_one_image_is_enough() -> None:
    scores = metrics.compute(np.array([1]), np.array([[0.25, 0.75]], np.float32), 3, 100, 0)
    assert scores.accuracy.value == scores.macro_f1.value == 1
    assert scores.accuracy.interval[0] == pytest.approx(0.2065, abs=1e-3)


def test_the_file_has_the_digits_that_are_the_same_on_every_processor() -> None:
    labels, probabilities = make_predictions()
    nearly = np.nextafter(probabilities, np.float32(0))  # as another processor would round
    files = [metrics.compute(labels, each, 2, 100, 0).as_json() for each in (probabilities, nearly)]
    assert files[0] == files[1]
    assert all(len(f"{value:g}") <= 6 for value in files[0].values() if isinstance(value, float))
