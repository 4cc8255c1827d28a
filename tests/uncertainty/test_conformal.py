"""Prediction sets: equal to MAPIE's on the same probabilities, in arrays and in a network; they keep their promise."""

import keras
import numpy as np
import pytest
from scipy.stats import binom
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import StratifiedShuffleSplit

from frostline.models.answer_facts import SetFacts
from frostline.uncertainty import conformal

CLASSES, COVERAGE = 6, 0.8


def drawn(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of a mediocre classifier, float32 (count, CLASSES), and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    logits = rng.normal(size=(count, CLASSES)) * 1.5
    logits[np.arange(count), labels] += 1.5
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32), labels


def sets(facts: SetFacts, probabilities: np.ndarray) -> np.ndarray:
    return np.asarray(conformal.sets(facts, probabilities))


class Known(ClassifierMixin, BaseEstimator):
    """A classifier for MAPIE whose inputs are the probabilities themselves."""

    classes_ = np.arange(CLASSES)
    is_fitted_ = True

    def fit(self, x, y):
        return self

    def predict_proba(self, x):
        return np.asarray(x, np.float64)

    def predict(self, x):
        return np.asarray(x).argmax(axis=1)


def by_mapie(score: str, calibration: tuple, asked: np.ndarray):
    """MAPIE's sets, and its score function."""
    from mapie.classification import SplitConformalClassifier

    classifier = SplitConformalClassifier(
        Known(), confidence_level=COVERAGE, conformity_score=score, prefit=True, random_state=0
    )
    classifier.conformalize(*calibration)
    # Without the random part that MAPIE's scores have by default there is nothing to compare sets by but the rule.
    _, found = classifier.predict_set(asked, conformity_score_params={"include_last_label": True})
    return found[:, :, 0], classifier._mapie_classifier.conformity_score_function_


def test_sets_by_probability_are_those_of_mapie():
    calibration, (asked, _) = drawn(0, 300), drawn(1, 500)
    facts = conformal.fit("lac", *calibration, COVERAGE, seed=0)
    np.testing.assert_array_equal(sets(facts, asked), by_mapie("lac", calibration, asked)[0])


@pytest.mark.parametrize("score", ["aps", "raps"])
def test_sets_by_sums_are_those_of_mapie(score):
    """With its penalty of RAPS, and its random numbers, which each draws in its own way."""
    calibration, (asked, _) = drawn(0, 300), drawn(1, 500)
    expected, function = by_mapie(score, calibration, asked)
    given = {}
    if score == "raps":
        given = {"free": int(np.ravel(function.k_star)[0]), "penalty": float(np.ravel(function.lambda_star)[0])}
        kept = ~(calibration[0][:, None] == function.X_raps[None]).all(axis=2).any(axis=1)
        split = StratifiedShuffleSplit(1, test_size=function.size_raps, random_state=0)
        rows, _ = next(split.split(*calibration))
        assert sorted(rows) == np.flatnonzero(kept).tolist()
        calibration = calibration[0][rows], calibration[1][rows]
    noise = np.random.RandomState(0).uniform(size=len(calibration[1]))  # as MAPIE does
    limit = conformal.threshold(conformal.sums_to_class(*calibration, noise, **given), COVERAGE)
    assert limit == pytest.approx(float(np.ravel(function.quantiles_)[0]), abs=1e-6)
    np.testing.assert_array_equal(sets(SetFacts(score, COVERAGE, limit, **given), asked), expected)


def test_raps_chooses_its_penalty():
    facts = conformal.fit("raps", *drawn(0, 300), COVERAGE, seed=0)
    assert facts.penalty in conformal.PENALTIES
    assert 1 <= facts.free <= CLASSES


@pytest.mark.parametrize("score", ["lac", "aps", "raps"])
def test_a_network_gives_the_same_sets(score):
    facts = conformal.fit(score, *drawn(0, 300), COVERAGE, seed=0)
    asked, _ = drawn(2, 200)
    probabilities = keras.Input((CLASSES,))
    network = keras.Model(probabilities, conformal.sets(facts, probabilities))
    np.testing.assert_array_equal(network.predict(asked, verbose=0), sets(facts, asked))


@pytest.mark.parametrize("score", ["lac", "aps", "raps"])
def test_the_promise_holds(score):
    """Over many draws of the calibration images, the mean coverage is what split conformal prediction gives: at least
    the promise, and for lac at most 1 / (n + 1) more."""
    coverages = []
    for seed in range(40):
        facts = conformal.fit(score, *drawn(2 * seed, 200), COVERAGE, seed)
        asked, labels = drawn(2 * seed + 1, 400)
        coverages.append(sets(facts, asked)[np.arange(400), labels].mean())
    spread = 3 * np.sqrt(COVERAGE * (1 - COVERAGE) * (1 / 400 + 1 / 160) / 40)
    assert np.mean(coverages) > COVERAGE - spread
    if score == "lac":
        assert np.mean(coverages) < COVERAGE + 1 / 201 + spread
        low, high = binom.interval(0.9999, 400, COVERAGE)
        assert low / 400 - 0.12 < min(coverages)
        assert max(coverages) < high / 400 + 0.12
    else:
        assert all(sets(facts, asked).any(axis=1))


def test_too_few_images_promise_nothing_less_than_all_classes():
    probabilities, labels = drawn(0, 3)
    for score in ("lac", "aps"):
        facts = conformal.fit(score, probabilities, labels, 0.9, seed=0)
        assert sets(facts, drawn(1, 50)[0]).all()
    assert conformal.threshold(np.array([1.0, 2.0, 3.0]), 0.9) == np.inf
    assert conformal.threshold(np.array([3.0, 1.0, 2.0]), 0.75) == 3.0
    assert conformal.threshold(np.array([3.0, 1.0, 2.0]), 0.5) == 2.0
