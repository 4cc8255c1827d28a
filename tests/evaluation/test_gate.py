"""The gate compares two classifiers, on random predictions."""

import numpy as np
import pytest
from conftest import in_process_tier

from frostline.evaluation import gate

CLASSES = 4


def predictions(labels, right, rng):
    """Probabilities that predict the true class if `right`, bool (n,), is true for an image, else another class."""
    classes = np.where(right, labels, (labels + 1) % CLASSES)
    probabilities = rng.uniform(0.0, 0.1, (len(labels), CLASSES)).astype(np.float32)
    probabilities[np.arange(len(labels)), classes] += 1
    return probabilities / probabilities.sum(axis=1, keepdims=True)


@pytest.fixture
def rng():
    return np.random.default_rng(4)


def compare(labels, challenger, champion, metric="accuracy", margin=0.01):
    return gate.compare(labels, challenger, champion, metric, margin, confidence=0.95, seed=0)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "log_loss"])
def test_worse_equal_and_better(rng, metric):
    labels = rng.integers(0, CLASSES, 400)
    champion = predictions(labels, rng.random(400) < 0.85, rng)
    for share, passes in ((0.75, False), (0.95, True)):
        comparison = compare(labels, predictions(labels, rng.random(400) < share, rng), champion, metric)
        assert comparison.passed == passes
        assert (comparison.gain > 0) == passes
        assert comparison.bound < comparison.gain
    no_change = compare(labels, champion, champion, metric, margin=0.0)
    assert no_change.passed
    assert no_change.gain == no_change.bound == 0
    assert no_change.p_value == 1


def test_a_little_worse_passes_if_the_margin_allows_it(rng):
    labels = rng.integers(0, CLASSES, 2000)
    right = rng.random(2000) < 0.9
    champion = predictions(labels, right, rng)
    right[np.flatnonzero(right)[:8]] = False
    challenger = predictions(labels, right, rng)
    assert not compare(labels, challenger, champion, margin=0.0).passed
    comparison = compare(labels, challenger, champion, margin=0.01)
    assert comparison.passed
    assert comparison.gain == pytest.approx(-8 / 2000)
    assert (comparison.only_challenger, comparison.only_champion) == (0, 8)
    assert comparison.p_value == pytest.approx(2 * 0.5**8)
    assert "gain -0.0040" in comparison.text
    assert "0 against 8, McNemar p = 0.008" in comparison.text


@pytest.mark.parametrize("metric", ["accuracy", in_process_tier("macro_f1"), in_process_tier("log_loss")])
def test_the_bound_is_that_of_a_bootstrap_image_by_image(rng, metric):
    labels = rng.integers(0, CLASSES, 120)
    challenger, champion = (predictions(labels, rng.random(120) < share, rng) for share in (0.8, 0.7))
    comparison = compare(labels, challenger, champion, metric)
    gains = []
    for _ in range(1500):
        rows = rng.integers(0, 120, 120)
        gains.append(gain(labels[rows], challenger[rows], champion[rows], metric))
    assert comparison.bound == pytest.approx(np.quantile(gains, 0.05), abs=0.012)


def gain(labels, challenger, champion, metric):
    from sklearn.metrics import accuracy_score, f1_score, log_loss

    if metric == "log_loss":
        return log_loss(labels, champion, labels=range(CLASSES)) - log_loss(labels, challenger, labels=range(CLASSES))
    score = accuracy_score if metric == "accuracy" else lambda *each: f1_score(*each, average="macro")
    return score(labels, challenger.argmax(axis=1)) - score(labels, champion.argmax(axis=1))


def test_challengers_that_are_too_bad_pass_as_rarely_as_the_confidence_says(rng):
    """Of challengers that are truly worse by the margin, at most about 5% pass."""
    passes = 0
    for _ in range(200):
        labels = rng.integers(0, CLASSES, 300)
        champion = predictions(labels, rng.random(300) < 0.88, rng)
        challenger = predictions(labels, rng.random(300) < 0.83, rng)
        passes += compare(labels, challenger, champion, margin=0.05).passed
    assert passes / 200 < 0.1
