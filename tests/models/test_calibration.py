"""The temperature is the likeliest one, changes no answer, and is sane where data can't tell."""

import numpy as np
import pytest
from conftest import make_predictions

from frostline.evaluation import metrics
from frostline.models import calibration


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def drawn(n, classes, temperature, seed=0):
    """Logits, and labels drawn from the softmax of the logits over a temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (n, classes)).astype(np.float32)
    chances = softmax(logits / temperature).astype(float).cumsum(axis=1)
    return logits, (rng.random((n, 1)) * chances[:, -1:] > chances).sum(axis=1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_labels_were_drawn_with_is_found(temperature):
    logits, labels = drawn(5000, 5, temperature)
    found = calibration.fit_temperature(logits, labels)
    assert found == pytest.approx(temperature, rel=0.05)
    before, after = (metrics.losses(labels, softmax(logits / t)).mean() for t in (1.0, found))
    assert after <= before
    assert metrics.expected_calibration_error(labels, softmax(logits / found)) < 0.02


def test_a_sigmoid_is_two_classes_of_which_one_has_logit_0():
    logits, labels = drawn(300, 2, 1.7)
    ahead = logits[:, 1:] - logits[:, :1]
    assert calibration.fit_temperature(ahead, labels) == calibration.fit_temperature(logits, labels)


@pytest.mark.parametrize("n", [1, 100])
def test_all_right_does_not_make_everything_certain(n):
    labels = np.arange(n) % 3
    found = calibration.fit_temperature(4 * np.eye(3, dtype=np.float32)[labels], labels)
    assert 0.2 < found < 1


def test_all_wrong_stays_finite_and_no_images_change_nothing():
    assert 1 < calibration.fit_temperature(np.array([[90.0, -90.0]], np.float32), np.array([1])) < 25
    assert calibration.fit_temperature(np.zeros((0, 3), np.float32), np.zeros(0, int)) == 1


def test_a_thousand_classes_with_huge_logits():
    logits, labels = drawn(200, 1000, 1.0)
    assert np.isfinite(calibration.fit_temperature(logits * 1000, labels))


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_probabilities_before_it_can_be_had_back(temperature):
    _, probabilities = make_predictions(50)
    scaled = softmax(np.log(probabilities) / temperature)
    np.testing.assert_allclose(calibration.uncalibrated(scaled, temperature), probabilities, atol=1e-5)
    np.testing.assert_array_equal(scaled.argmax(axis=1), probabilities.argmax(axis=1))
