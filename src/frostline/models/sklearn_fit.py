"""Fit scikit-learn's classifiers to frozen features. No other module uses its estimators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frostline.core import suggest
from frostline.errors import ParamsError

# Settings whose defaults in scikit-learn are bad for features of a network, such as too few iterations to converge.
DEFAULTS: dict[str, dict[str, Any]] = {
    "logistic_regression": {"max_iter": 1000},
    "linear_svm": {"max_iter": 5000},
    "random_forest": {"n_jobs": -1},
    "knn": {"n_jobs": -1},
}

# The arguments of nearest neighbours that the Keras layers support.
NEIGHBOURS = ("n_neighbors", "weights")


@dataclass(frozen=True)
class Fitted:
    """A fitted classifier.

    estimator: scikit-learn's, fitted to x * scale + offset for features x; scale, offset: float64 (width,).
    """

    kind: str
    estimator: Any
    scale: NDArray[np.float64]
    offset: NDArray[np.float64]


def check(kind: str, arguments: Mapping[str, Any]) -> None:
    """Check the names of a classifier's arguments. Raises ParamsError for an unknown one, naming the most similar."""
    names = list(NEIGHBOURS) if kind == "knn" else list(signature(_estimator_class(kind)).parameters)
    for name in arguments:
        if name not in names:
            fix = suggest.hint(name, names, cutoff=0.0)
            raise ParamsError(f"params.yaml: head.classifier_args.{name} is not an argument of {kind} here; {fix}")


def fit(
    kind: str,
    arguments: Mapping[str, Any],
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    balanced: bool,
    seed: int,
) -> Fitted:
    """Fit a classifier to float32 features (n, width) and labels (n,).

    kind: a value of `head.classifier`; arguments: of scikit-learn's constructor; balanced: all classes have the same
    weight, if the classifier supports weights. All classifiers except the forest are fitted to features of mean 0 and
    variance 1. Raises ParamsError for arguments that the classifier does not accept.
    """
    check(kind, arguments)
    width = features.shape[1]
    scale, offset = np.ones(width), np.zeros(width)
    if kind != "random_forest":
        deviation = features.std(axis=0, dtype=np.float64)
        scale = 1 / np.where(deviation > 0, deviation, 1.0)
        offset = -features.mean(axis=0, dtype=np.float64) * scale
    estimator_class = _estimator_class(kind)
    settings = {**DEFAULTS[kind], **arguments}
    parameters = signature(estimator_class).parameters
    settings |= {"random_state": seed} if "random_state" in parameters else {}
    settings |= {"class_weight": "balanced"} if balanced and "class_weight" in parameters else {}
    x = features if kind == "random_forest" else (features * scale + offset).astype(np.float32)
    try:
        estimator = estimator_class(**settings).fit(x, labels)
    except (ValueError, TypeError) as error:  # scikit-learn checks the values of its arguments here
        raise ParamsError(f"params.yaml: head.classifier_args: {str(error).splitlines()[0]}; fix it") from error
    if kind == "knn" and estimator.n_neighbors > len(x):
        raise ParamsError(
            f"params.yaml: head.classifier_args.n_neighbors is {estimator.n_neighbors}, but there are {len(x)} "
            "training images; lower it"
        )
    return Fitted(kind, estimator, scale, offset)


def _estimator_class(kind: str) -> Any:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import LinearSVC

    return {
        "logistic_regression": LogisticRegression,
        "linear_svm": LinearSVC,
        "random_forest": RandomForestClassifier,
        "knn": KNeighborsClassifier,
    }[kind]
