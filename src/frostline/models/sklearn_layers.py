"""Convert a fitted scikit-learn classifier to plain Keras layers: pooled features (n, width) -> logits (n, classes).

scikit-learn trains and Keras serves. So every bundle is one `model.keras`, which loads without scikit-learn and without
pickles, and is exported like any other. If a classifier gives probabilities instead of margins, the logits are their
logarithms.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from frostline.errors import ParamsError
from frostline.models.sklearn_fit import Fitted

LEAST = 1e-7  # smallest probability, so that its logarithm is finite
NEVER = -30.0  # logit of a class without training images
EXACT = 2**24  # float32 can represent all integers up to this one
LARGEST = 250e6  # weights of a head: 1 GB


def convert(classifier: Fitted, width: int, classes: int) -> keras.Model:
    """The classifier as a model called `head`, in float32 whatever the precision of training.

    Up to rounding, its outputs are equal to scikit-learn's decision_function (for logistic_regression and linear_svm;
    0 and the margin if there are two classes) or to the logarithm of its predict_proba (for random_forest and knn).
    Raises ParamsError for a forest or neighbours of more than 1 GB.
    """
    pooled = keras.Input((width,), name="pooled")
    x = keras.ops.cast(pooled, "float32")
    make = {"random_forest": _forest, "knn": _neighbours}.get(classifier.kind, _linear)
    return keras.Model(pooled, make(classifier, x, classes), name="head")


def _linear(classifier: Fitted, x: Any, classes: int) -> Any:
    estimator = classifier.estimator
    weights, bias = np.atleast_2d(estimator.coef_), np.atleast_1d(estimator.intercept_)
    if len(weights) == 1:  # with two classes, the margin is that of the second class
        weights, bias = np.concatenate([0 * weights, weights]), np.concatenate([0 * bias, bias])
    kernel = np.zeros((weights.shape[1], classes))
    constant = np.full(classes, NEVER)
    kernel[:, estimator.classes_] = (weights * classifier.scale).T
    constant[estimator.classes_] = bias + weights @ classifier.offset
    return _dense(x, kernel, constant, "logits")


def _neighbours(classifier: Fitted, x: Any, classes: int) -> Any:
    ops = keras.ops
    estimator = classifier.estimator
    neighbours = np.asarray(estimator._fit_X, np.float64)
    _require_room(neighbours.size, "knn keeps every training image's features")
    labels = np.zeros((len(neighbours), classes))
    labels[np.arange(len(neighbours)), estimator.classes_[estimator._y]] = 1
    scaled = keras.layers.Rescaling(
        classifier.scale.tolist(), classifier.offset.tolist(), dtype="float32", name="scaled"
    )(x)
    # |q - x|^2 = |q|^2 - (2 q x - |x|^2). The first term is the same for all x.
    nearness = _dense(scaled, 2 * neighbours.T, -np.square(neighbours).sum(axis=1), "nearness")
    near, places = ops.top_k(nearness, estimator.n_neighbors)
    votes = _table(labels, "labels")(places)
    if estimator.weights == "distance":
        distance = ops.sum(ops.square(scaled), axis=-1, keepdims=True) - near
        weights = 1 / ops.sqrt(ops.maximum(distance, LEAST))
        votes = ops.sum(votes * ops.expand_dims(weights / ops.sum(weights, axis=-1, keepdims=True), -1), axis=1)
    else:
        votes = ops.mean(votes, axis=1)
    return ops.log(ops.maximum(votes, LEAST))


def _forest(classifier: Fitted, x: Any, classes: int) -> Any:
    """Walk down all trees at once, as many steps as the deepest tree has. The child of a leaf is the leaf itself."""
    ops = keras.ops
    trees = [member.tree_ for member in classifier.estimator.estimators_]
    starts = np.cumsum([0, *(tree.node_count for tree in trees)])
    nodes = int(starts[-1])
    _require_room(nodes * (classes + 4), "random_forest is large")
    if nodes >= EXACT:
        raise ParamsError(
            f"params.yaml: head.classifier_args: a forest of {nodes:,} nodes; set max_depth or n_estimators"
        )
    feature, threshold, left, right = (np.zeros((nodes, 1)) for _ in range(4))
    shares = np.zeros((nodes, classes))
    for tree, start in zip(trees, starts, strict=False):
        own = slice(start, start + tree.node_count)
        is_leaf = tree.children_left < 0
        here = np.arange(tree.node_count)
        feature[own, 0] = np.where(is_leaf, 0, tree.feature)
        threshold[own, 0] = _round_down(np.where(is_leaf, 0, tree.threshold))
        left[own, 0] = start + np.where(is_leaf, here, tree.children_left)
        right[own, 0] = start + np.where(is_leaf, here, tree.children_right)
        value = tree.value[:, 0]
        shares[own, classifier.estimator.classes_] = value / value.sum(axis=1, keepdims=True)
    tables = [_table(table, name) for table, name in
              ((feature, "feature"), (threshold, "threshold"), (left, "left"), (right, "right"))]  # fmt: skip
    place = _dense(x, np.zeros((x.shape[-1], len(trees))), starts[:-1], "roots")
    for _ in range(max(tree.max_depth for tree in trees)):
        number = ops.cast(place, "int32")
        column, bound, lower, upper = (ops.squeeze(table(number), axis=-1) for table in tables)
        value = ops.take_along_axis(x, ops.cast(column, "int32"), axis=1)
        place = ops.where(ops.less_equal(value, bound), lower, upper)
    probabilities = ops.mean(_table(shares, "shares")(ops.cast(place, "int32")), axis=1)
    return ops.log(ops.maximum(probabilities, LEAST))


def _round_down(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """The largest float32 numbers not above the thresholds. For any float32 x, `x <= threshold` stays the same."""
    near = thresholds.astype(np.float32)
    return np.where(near > thresholds, np.nextafter(near, np.float32(-np.inf)), near)


def _dense(x: Any, kernel: NDArray[Any], bias: NDArray[Any], name: str) -> Any:
    layer = keras.layers.Dense(len(bias), dtype="float32", name=name)
    output = layer(x)
    layer.set_weights([kernel.astype(np.float32), np.asarray(bias, np.float32)])
    return output


def _table(rows: NDArray[Any], name: str) -> keras.layers.Layer:
    """A layer that looks up rows by their numbers."""
    layer = keras.layers.Embedding(*rows.shape, dtype="float32", name=name)
    layer.build(())
    layer.set_weights([rows.astype(np.float32)])
    return layer


def _require_room(weights: int, reason: str) -> None:
    if weights > LARGEST:
        raise ParamsError(
            f"params.yaml: head.classifier: {reason}, here {4 * weights / 1e9:.1f} GB; lower augment.copies, or use "
            "logistic_regression"
        )
