"""Areas and curves equal those of scikit-learn, and intervals those of a bootstrap."""

import numpy as np
import pytest
from conftest import make_predictions
from sklearn import metrics as reference

from frostline.evaluation import ranking
from frostline.evaluation.ranking import GRID
from frostline.evaluation.scores import Score


def make_ties(n, seed, classes):
    """Labels and probabilities with many ties."""
    labels, probabilities = make_predictions(n, seed, classes)
    return labels, np.round(probabilities, 1)


@pytest.mark.parametrize("make", [make_predictions, make_ties])
@pytest.mark.parametrize(("n", "classes"), [(300, 5), (40, 2), (12, 10)])
def test_areas_agree_with_scikit_learn_with_ties_and_missing_classes(make, n, classes):
    labels, probabilities = make(n, n, classes)
    summary = ranking.summary(labels, probabilities)
    for row in summary.areas.itertuples():
        truth, scores = labels == row.number, probabilities[:, row.number]
        assert row.roc_auc == pytest.approx(reference.roc_auc_score(truth, scores))
        assert row.average_precision == pytest.approx(reference.average_precision_score(truth, scores))
    assert summary.areas["number"].tolist() == np.unique(labels).tolist()
    assert summary.roc_auc.value == pytest.approx(summary.areas["roc_auc"].mean())
    for name in ("roc_auc", "average_precision"):
        low, high = getattr(summary, name).interval
        assert 0 < low < getattr(summary, name).value < high < 1


@pytest.mark.parametrize("make", [make_predictions, make_ties])
def test_curves_agree_with_scikit_learn(make):
    labels, probabilities = make(120, 3, 4)
    summary = ranking.summary(labels, probabilities)
    for row, roc, precisions in zip(summary.areas.itertuples(), summary.roc, summary.precision_recall, strict=True):
        truth, scores = labels == row.number, probabilities[:, row.number]
        false, true, _ = reference.roc_curve(truth, scores, drop_intermediate=False)
        np.testing.assert_allclose(roc, np.interp(GRID, false, true), atol=1e-12)
        precision, recall, _ = reference.precision_recall_curve(truth, scores)
        expected = [precision[:-1][recall[:-1] >= least - 1e-9].max() for least in GRID]
        np.testing.assert_allclose(precisions, expected, atol=1e-12)


def test_intervals_agree_with_a_bootstrap_of_the_images():
    labels, probabilities = make_predictions(400, 1, 3)
    rng = np.random.default_rng(0)
    scores = []
    for _ in range(400):
        rows = rng.integers(0, len(labels), len(labels))
        areas = ranking.summary(labels[rows], probabilities[rows])
        scores.append((areas.roc_auc.value, areas.average_precision.value))
    areas_of_all = ranking.summary(labels, probabilities)
    low, high = np.quantile(scores, [0.025, 0.975], axis=0)
    for at, name in enumerate(("roc_auc", "average_precision")):
        assert getattr(areas_of_all, name).interval == pytest.approx(
            (low[at], high[at]), abs=0.15 * (high[at] - low[at])
        )


def test_influence_is_the_derivative_by_the_weight_of_an_image():
    labels, probabilities = make_ties(60, 5, 3)
    base = ranking.Ranking(probabilities[:, 0], labels == 0)
    times = 1000  # every image is there 1000 times, and one of them once more: that adds a thousandth to its weight
    many, truth = np.tile(base.scores, times), np.tile(base.is_positive, times)
    for extra in (0, 7, 13):
        more = ranking.Ranking(np.append(many, base.scores[extra]), np.append(truth, base.is_positive[extra]))
        for influence, name in zip(base.influence(), ("roc_auc", "average_precision"), strict=True):
            change = (getattr(more, name) - getattr(base, name)) * times * len(labels)
            assert change == pytest.approx(influence[extra], rel=0.01, abs=1e-6)


def test_with_one_class_in_the_test_split_nothing_is_ranked():
    summary = ranking.summary(np.array([1, 1]), np.array([[0.25, 0.75], [0.5, 0.5]], np.float32))
    assert summary.areas.empty
    assert summary.roc_auc is summary.average_precision is None
    assert summary.roc.shape == summary.precision_recall.shape == (0, len(GRID))


def test_a_perfect_ranking_has_no_interval():
    summary = ranking.summary(np.array([0, 1]), np.eye(2, dtype=np.float32))
    assert summary.roc_auc == summary.average_precision == Score(1)


def test_a_thousand_classes_take_a_moment():
    labels, probabilities = make_predictions(3000, 0, 1000)
    summary = ranking.summary(labels, probabilities)
    assert len(summary.areas) == len(np.unique(labels))
    assert all(
        np.isfinite([average.value, *average.interval]).all()
        for average in (summary.roc_auc, summary.average_precision)
    )
