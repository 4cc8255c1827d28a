"""scikit-learn's classifiers on frozen features: the one room that knows its estimators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frostline.core import suggest
from frostline.errors import ParamsError

# Where scikit-learn's own default is bad for features of a network: too few iterations to converge.
DEFAULTS: dict[str, dict[str, Any]] = {
    "logistic_regression": {"max_iter": 1000},
    "linear_svm": {"max_iter": 5000},
    "random_forest": {"n_jobs": -1},
    "knn": {"n_jobs": -1},
}

# Which arguments of the nearest neighbours are known where they are computed as layers.
NEIGHBOURS = ("n_neighbors", "weights")


@dataclass(frozen=True)
class Fitted:
    """A fitted classifier. estimator: scikit-learn's, of features that are x * scale + offset of the given ones, both
    float64 (width,)."""

    kind: str
    estimator: Any
    scale: NDArray[np.float64]
    offset: NDArray[np.float64]


def check(kind: str, arguments: Mapping[str, Any]) -> None:
    """Raises ParamsError for an argument that the classifier does not have, naming the nearest."""
    known = list(NEIGHBOURS) if kind == "knn" else list(signature(_estimator_class(kind)).parameters)
    for name in arguments:
        if name not in known:
            fix = suggest.hint(name, known, cutoff=0.0)
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

    kind: as `head.classifier` has it; arguments: of scikit-learn's constructor; balanced: classes weigh alike, where
    the classifier has weights. All but the forest see features of mean 0 and variance 1. Raises ParamsError for
    arguments that it does not take.
    """
    check(kind, arguments)
    width = features.shape[1]
    scale, offset = np.ones(width), np.zeros(width)
    if kind != "random_forest":
        deviation = features.std(axis=0, dtype=np.float64)
        scale = 1 / np.where(deviation > 0, deviation, 1.0)
        offset = -features.mean(axis=0, dtype=np.float64) * scale
    made = _estimator_class(kind)
    given = {**DEFAULTS[kind], **arguments}
    taken = signature(made).parameters
    given |= {"random_state": seed} if "random_state" in taken else {}
    given |= {"class_weight": "balanced"} if balanced and "class_weight" in taken else {}
    x = features if kind == "random_forest" else (features * scale + offset).astype(np.float32)
    try:
        estimator = made(**given).fit(x, labels)
    except (ValueError, TypeError) as error:  # scikit-learn checks its arguments' values here
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
