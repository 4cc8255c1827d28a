"""scikit-learn trains and Keras serves: both give the same answers."""

import keras
import numpy as np
import pytest

from frostline.errors import ParamsError
from frostline.models import sklearn_fit, sklearn_layers

WIDTH = 12


def blobs(classes, count=240, seed=0):
    """Overlapping clouds with columns of very different sizes, one of them constant."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    x = np.random.default_rng(7).normal(size=(classes, WIDTH))[labels] + rng.normal(0, 1.2, (count, WIDTH))
    x = x * np.geomspace(0.01, 50, WIDTH) + 3
    x[:, 4] = 1.5
    return x.astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("logistic_regression", {"C": 0.5}),
        ("linear_svm", {}),
        ("random_forest", {"n_estimators": 20}),
        ("random_forest", {"n_estimators": 5, "max_depth": 3}),
        ("knn", {"n_neighbors": 7}),
        ("knn", {"n_neighbors": 4, "weights": "distance"}),
    ],
    ids=str,
)
def test_the_head_gives_the_same_as_scikit_learn(tmp_path, kind, arguments, classes):
    x, labels = blobs(classes)
    classifier = sklearn_fit.fit(kind, arguments, x, labels, balanced=False, seed=3)
    head = sklearn_layers.convert(classifier, WIDTH, classes)
    head.save(tmp_path / "head.keras")
    loaded_head = keras.saving.load_model(tmp_path / "head.keras", compile=False, safe_mode=True)
    features, _ = blobs(classes, 200, seed=1)
    logits = loaded_head.predict(features, verbose=0)
    scaled = features * classifier.scale + classifier.offset if kind != "random_forest" else features
    if kind in {"logistic_regression", "linear_svm"}:
        margins = classifier.estimator.decision_function(scaled)
        theirs = np.stack([0 * margins, margins], axis=1) if classes == 2 else margins
        np.testing.assert_allclose(logits, theirs, atol=2e-3)
    else:
        theirs = classifier.estimator.predict_proba(scaled.astype(np.float32))
        np.testing.assert_allclose(np.exp(logits), theirs, atol=1e-5 if kind == "random_forest" else 2e-3)
    assert (logits.argmax(axis=1) == theirs.argmax(axis=1)).mean() > 0.99
    assert (logits.argmax(axis=1) == np.arange(200) % classes).mean() > 0.7


def test_a_float32_threshold_decides_like_the_float64_threshold():
    rng = np.random.default_rng(0)
    x = rng.normal(size=10_000).astype(np.float32)
    thresholds = np.where(rng.random(10_000) < 0.5, x, x.astype(np.float64) + rng.normal(0, 1e-9, 10_000))
    np.testing.assert_array_equal(x <= sklearn_layers._round_down(thresholds), x.astype(np.float64) <= thresholds)


def test_a_class_without_images_is_never_the_answer():
    x, labels = blobs(3)
    classifier = sklearn_fit.fit("logistic_regression", {}, x[labels != 1], labels[labels != 1], balanced=True, seed=0)
    head = sklearn_layers.convert(classifier, WIDTH, 3)
    assert set(head.predict(x, verbose=0).argmax(axis=1)) == {0, 2}


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("logistic_regression", {"Cc": 1.0}, r"head\.classifier_args\.Cc is not an argument .* did you mean C\?"),
        ("knn", {"neighbours": 3}, r"did you mean n_neighbors\?"),
        ("random_forest", {"n_estimators": -3}, r"head\.classifier_args: .*n_estimators"),
        ("knn", {"n_neighbors": 100_000}, r"head\.classifier_args"),
    ],
    ids=str,
)
def test_wrong_arguments_are_reported_in_one_line(kind, arguments, message):
    x, labels = blobs(2)
    with pytest.raises(ParamsError, match=message):
        sklearn_fit.fit(kind, arguments, x, labels, balanced=False, seed=0)
