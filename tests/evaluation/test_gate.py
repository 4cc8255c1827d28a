"""Whether one classifier is at least as good as another, on predictions that are made up."""

import numpy as np
import pytest

from frostline.evaluation import gate

CLASSES = 4


def predictions(labels, right, rng):
    """Probabilities that are right where `right` says so."""
    guessed = np.where(right, labels, (labels + 1) % CLASSES)
    made = rng.uniform(0.0, 0.1, (len(labels), CLASSES)).astype(np.float32)
    made[np.arange(len(labels)), guessed] += 1
    return made / made.sum(axis=1, keepdims=True)


@pytest.fixture
def rng():
    return np.random.default_rng(4)


def compared(labels, one, other, metric="accuracy", margin=0.01):
    return gate.compare(labels, one, other, metric, margin, confidence=0.95, seed=0)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "log_loss"])
def test_worse_equal_and_better(rng, metric):
    labels = rng.integers(0, CLASSES, 400)
    champion = predictions(labels, rng.random(400) < 0.85, rng)
    for share, passes in ((0.75, False), (0.95, True)):
        found = compared(labels, predictions(labels, rng.random(400) < share, rng), champion, metric)
        assert found.passed == passes
        assert (found.gain > 0) == passes
        assert found.bound < found.gain
    same = compared(labels, champion, champion, metric, margin=0.0)
    assert same.passed
    assert same.gain == same.bound == 0
    assert same.p_value == 1


def test_a_little_worse_passes_where_the_margin_allows_it(rng):
    labels = rng.integers(0, CLASSES, 2000)
    right = rng.random(2000) < 0.9
    champion = predictions(labels, right, rng)
    right[np.flatnonzero(right)[:8]] = False
    challenger = predictions(labels, right, rng)
    assert not compared(labels, challenger, champion, margin=0.0).passed
    found = compared(labels, challenger, champion, margin=0.01)
    assert found.passed
    assert found.gain == pytest.approx(-8 / 2000)
    assert (found.only_challenger, found.only_champion) == (0, 8)
    assert found.p_value == pytest.approx(2 * 0.5**8)
    assert "gain -0.0040" in found.text
    assert "0 against 8, McNemar p = 0.008" in found.text


@pytest.mark.parametrize("metric", ["accuracy", pytest.param("macro_f1", marks=pytest.mark.slow), "log_loss"])
def test_the_bound_is_that_of_a_bootstrap_image_by_image(rng, metric):
    labels = rng.integers(0, CLASSES, 120)
    one, other = (predictions(labels, rng.random(120) < share, rng) for share in (0.8, 0.7))
    found = compared(labels, one, other, metric)
    gains = []
    for _ in range(1500):
        rows = rng.integers(0, 120, 120)
        gains.append(compared_scores(labels[rows], one[rows], other[rows], metric))
    assert found.bound == pytest.approx(np.quantile(gains, 0.05), abs=0.012)


def compared_scores(labels, one, other, metric):
    from sklearn.metrics import accuracy_score, f1_score, log_loss

    if metric == "log_loss":
        return log_loss(labels, other, labels=range(CLASSES)) - log_loss(labels, one, labels=range(CLASSES))
    score = accuracy_score if metric == "accuracy" else lambda *each: f1_score(*each, average="macro")
    return score(labels, one.argmax(axis=1)) - score(labels, other.argmax(axis=1))


def test_the_refusals_keep_their_confidence(rng):
    """Of challengers that are truly worse by the margin, at most about 5% pass."""
    passed = 0
    for _ in range(200):
        labels = rng.integers(0, CLASSES, 300)
        champion = predictions(labels, rng.random(300) < 0.88, rng)
        challenger = predictions(labels, rng.random(300) < 0.83, rng)
        passed += compared(labels, challenger, champion, margin=0.05).passed
    assert passed / 200 < 0.1
