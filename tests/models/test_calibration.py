"""The temperature is the most likely one, changes no answer, and is sensible if the data can't tell."""

import numpy as np
import pytest
from conftest import make_predictions

from frostline.evaluation import metrics
from frostline.models import calibration


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def make_logits(n, classes, temperature, seed=0):
    """Logits, and labels sampled from the softmax of the logits over a temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (n, classes)).astype(np.float32)
    chances = softmax(logits / temperature).astype(float).cumsum(axis=1)
    return logits, (rng.random((n, 1)) * chances[:, -1:] > chances).sum(axis=1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_fit_gives_the_temperature_that_the_labels_were_sampled_with(temperature):
    logits, labels = make_logits(5000, 5, temperature)
    estimate = calibration.fit_temperature(logits, labels)
    assert estimate == pytest.approx(temperature, rel=0.05)
    before, after = (metrics.losses(labels, softmax(logits / t)).mean() for t in (1.0, estimate))
    assert after <= before
    assert metrics.expected_calibration_error(labels, softmax(logits / estimate)) < 0.02


def test_a_sigmoid_is_two_classes_of_which_one_has_logit_0():
    logits, labels = make_logits(300, 2, 1.7)
    ahead = logits[:, 1:] - logits[:, :1]
    assert calibration.fit_temperature(ahead, labels) == calibration.fit_temperature(logits, labels)


@pytest.mark.parametrize("n", [1, 100])
def test_if_all_answers_are_right_they_do_not_become_certain(n):
    labels = np.arange(n) % 3
    estimate = calibration.fit_temperature(4 * np.eye(3, dtype=np.float32)[labels], labels)
    assert 0.2 < estimate < 1


def test_if_all_answers_are_wrong_it_stays_finite_and_without_images_it_is_1():
    assert 1 < calibration.fit_temperature(np.array([[90.0, -90.0]], np.float32), np.array([1])) < 25
    assert calibration.fit_temperature(np.zeros((0, 3), np.float32), np.zeros(0, int)) == 1


def test_a_thousand_classes_with_huge_logits():
    logits, labels = make_logits(200, 1000, 1.0)
    assert calibration.fit_temperature(logits * 1000, labels) == pytest.approx(np.exp(3), rel=1e-3)  # the highest one


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_uncalibrated_gives_the_probabilities_without_the_temperature(temperature):
    _, probabilities = make_predictions(50)
    scaled = softmax(np.log(probabilities) / temperature)
    np.testing.assert_allclose(calibration.uncalibrated(scaled, temperature), probabilities, atol=1e-5)
    np.testing.assert_array_equal(scaled.argmax(axis=1), probabilities.argmax(axis=1))
