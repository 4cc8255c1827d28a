"""The space of features and the scores in it: arrays and layers of Keras agree, and strangers are told."""

import keras
import numpy as np
import pytest

from frostline.models.answer_facts import LeftOut
from frostline.uncertainty import evidence, leaving_out, space
from frostline.uncertainty.evidence import SCORES, Strangeness
from frostline.uncertainty.leaving_out import Labelled

WIDTH, CLASSES = 20, 5


def drawn(seed: int, count: int, classes=range(CLASSES)) -> tuple[np.ndarray, np.ndarray]:
    """Features of images of some classes, float32 (count, WIDTH), and labels. Each class has a place, and the spread
    along the first columns is large in all of them."""
    rng = np.random.default_rng(seed)
    places = np.random.default_rng(9).normal(size=(max(classes) + 1, WIDTH)) * 3
    labels = rng.choice(list(classes), count)
    noise = rng.normal(size=(count, WIDTH))
    noise[:, :3] *= 20
    return (places[labels] + noise).astype(np.float32), labels


def test_layers_give_the_same_distances():
    features, labels = drawn(0, 300)
    made = space.fit(features, labels)
    asked = np.concatenate([drawn(1, 50)[0], drawn(2, 50, [CLASSES])[0]])
    expected = made.distances(asked)
    assert (expected["neighbour"] >= -1e-6).all()
    inputs = keras.Input((WIDTH,))
    found = keras.Model(inputs, made.layers(inputs)).predict(asked, verbose=0)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-3, atol=1e-4)


def test_mahalanobis_distance_is_that_of_the_shrunk_covariance():
    """The definition, with the inverse of the covariance within the classes, where all directions are kept."""
    features, labels = drawn(0, 300)
    centred = np.concatenate([features[labels == each] - features[labels == each].mean(axis=0) for each in range(5)])
    covariance = centred.T.astype(float) @ centred / len(centred)
    covariance = (1 - space.SHRINKAGE) * covariance + space.SHRINKAGE * np.trace(covariance) / WIDTH * np.eye(WIDTH)
    asked = drawn(1, 40)[0]
    means = np.stack([features[labels == each].mean(axis=0) for each in range(CLASSES)])
    apart = asked[:, None] - means[None]
    squares = np.einsum("nci,ij,ncj->nc", apart, np.linalg.inv(covariance), apart)
    found = space.fit(features, labels).distances(asked)["mahalanobis"]
    np.testing.assert_allclose(found, np.sqrt(squares.min(axis=1)), rtol=1e-3)


def test_one_evidence_far_outside_outweighs_the_others():
    rng = np.random.default_rng(0)
    known = {name: rng.normal(size=200).astype(np.float32) for name in SCORES["combined"]}
    score = Strangeness.fit("combined", known)
    odd = {"msp": np.array([-2.0]), "neighbour": np.array([-2.0]), "mahalanobis": np.array([30.0])}
    assert score.of(odd)[0] > score.of(known).max()


@pytest.mark.parametrize("units", [1, 3])
def test_energy_and_probability_come_from_all_classes(units):
    logits = np.random.default_rng(0).normal(size=(10, units)).astype(np.float32)
    whole = np.concatenate([0 * logits, logits], axis=1) if units == 1 else logits
    powers = np.exp(whole)
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    found = evidence.of_outputs(logits, probabilities)
    np.testing.assert_allclose(np.asarray(found["energy"]), -np.log(powers.sum(axis=1)), rtol=1e-5)
    np.testing.assert_allclose(np.asarray(found["msp"]), -probabilities.max(axis=1))


def test_leaving_classes_out_finds_what_tells_strangers():
    """`shallow` features hold nothing, `deep` ones the classes; the best score is one of the deep ones."""

    def labelled(seed):
        features, labels = drawn(seed, 400)
        noise = np.random.default_rng(seed).normal(size=(400, 8)).astype(np.float32)
        return Labelled({"shallow": noise, "deep": features}, labels)

    measured = leaving_out.measure(labelled(0), labelled(1), seed=0)
    assert {(each.score, each.layer) for each in measured} == {
        *((name, None) for name in ("msp", "energy")),
        *((name, layer) for name in ("knn", "mahalanobis", "combined") for layer in ("shallow", "deep")),
    }
    assert [each.auroc for each in measured] == sorted((each.auroc for each in measured), reverse=True)
    assert measured[0].layer == "deep"
    areas = {(each.score, each.layer): each.auroc for each in measured}
    assert areas["mahalanobis", "deep"] > 0.9
    assert abs(areas["mahalanobis", "shallow"] - 0.5) < 0.1


def test_two_classes_are_too_few_to_leave_one_out():
    features, labels = drawn(0, 100, [0, 1])
    given = Labelled({"deep": features}, labels)
    none: list[LeftOut] = leaving_out.measure(given, given, seed=0)
    assert none == []


def test_the_area_is_that_of_scikit_learn():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    values = {"msp": rng.integers(0, 20, 300).astype(np.float32)}  # with ties
    is_stranger = rng.random(300) < 0.3
    found = leaving_out._area("msp", values, is_stranger)
    assert found == pytest.approx(roc_auc_score(is_stranger, values["msp"]))
