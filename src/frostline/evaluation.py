"""The numbers of a classifier on pictures it has not seen, each with how sure it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Z95 = 1.959964
ECE_BINS = 15

Labels = NDArray[np.int64]
Probabilities = NDArray[np.float32]


def metrics(labels: Labels, probabilities: Probabilities, top_k: int, resamples: int, seed: int) -> dict[str, Any]:
    """The metrics of a test split.

    labels: int (n,); probabilities: float (n, classes), rows summing to 1. Ranges: log_loss [0, inf), all others
    [0, 1]. The interval of the accuracy is Wilson's (Wilson, JASA 1927), which keeps its coverage near 1, where a
    bootstrap collapses to a point; that of the macro F1 is the percentile bootstrap's (Efron 1979).
    """
    classes = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1)
    k = min(top_k, classes)
    top = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    confusion = confusion_matrix(labels, predicted, classes)
    return {
        "accuracy": float((predicted == labels).mean()),
        "accuracy_ci95": wilson(int((predicted == labels).sum()), len(labels)),
        f"top_{k}_accuracy": float((top == labels[:, None]).any(axis=1).mean()),
        "macro_f1": float(macro_f1(confusion)),
        "macro_f1_ci95": _bootstrap_macro_f1(labels, predicted, classes, resamples, seed),
        "weighted_f1": float(np.average(f1(confusion), weights=confusion.sum(axis=1))),
        "log_loss": log_loss(labels, probabilities),
        "ece": expected_calibration_error(labels, probabilities),
        "n_test": len(labels),
    }


def confusion_matrix(labels: Labels, predicted: Labels, classes: int) -> NDArray[np.int64]:
    """Counts, int (classes, classes): rows are the true class, columns the predicted one."""
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def f1(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """F1 of every class, float (..., classes), for one confusion matrix or a stack; 0 where a class never occurs."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    occurs = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    return np.divide(2 * hits, occurs, out=np.zeros(hits.shape), where=occurs > 0)


def log_loss(labels: Labels, probabilities: Probabilities) -> float:
    """Mean negative log of the true class's probability, in nats; one below float32's epsilon counts as epsilon."""
    true = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.clip(true, np.finfo(np.float32).eps, 1)).mean())


def expected_calibration_error(labels: Labels, probabilities: Probabilities) -> float:
    """Mean gap between confidence and accuracy over 15 equal bins (Guo et al., ICML 2017)."""
    table = reliability(labels, probabilities)
    gap = (table["accuracy"] - table["confidence"]).abs()
    return float((gap * table["count"]).sum() / table["count"].sum())


def reliability(labels: Labels, probabilities: Probabilities) -> pd.DataFrame:
    """One row a confidence bin that is not empty: confidence (mean), accuracy, count."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    table = pd.DataFrame({"bin": bins, "confidence": confidence, "accuracy": right.astype(float)})
    grouped = table.groupby("bin")
    return grouped.mean().assign(count=grouped.size()).reset_index(drop=True)


def per_class(labels: Labels, predicted: Labels, classes: tuple[str, ...]) -> pd.DataFrame:
    """One row a class: class, precision, recall, f1, support."""
    confusion = confusion_matrix(labels, predicted, len(classes))
    hits, support, chosen = np.diagonal(confusion), confusion.sum(axis=1), confusion.sum(axis=0)

    def share(of: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.divide(hits, of, out=np.zeros(len(classes)), where=of > 0)

    columns = {"precision": share(chosen), "recall": share(support), "f1": f1(confusion), "support": support}
    return pd.DataFrame({"class": classes, **columns})


def wilson(hits: int, n: int) -> list[float]:
    """The 95% score interval of a proportion, [low, high]."""
    p = hits / n
    middle = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * np.sqrt(p * (1 - p) / n + Z95**2 / (4 * n**2))
    return [max(0.0, float(middle - half)), min(1.0, float(middle + half))]


def macro_f1(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean F1 over the classes that occur, as truth or as prediction; float (...)."""
    occurs = (confusion.sum(axis=-1) + confusion.sum(axis=-2)) > 0
    return (f1(confusion) * occurs).sum(axis=-1) / np.maximum(occurs.sum(axis=-1), 1)


def _bootstrap_macro_f1(labels: Labels, predicted: Labels, classes: int, resamples: int, seed: int) -> list[float]:
    """Percentile interval. Resampling pictures is drawing the cells of the confusion matrix from a multinomial."""
    cells = confusion_matrix(labels, predicted, classes).ravel()
    filled = np.flatnonzero(cells)
    rng = np.random.default_rng(seed)
    scores = np.empty(resamples)
    for number, counts in enumerate(rng.multinomial(len(labels), cells[filled] / len(labels), resamples)):
        drawn = np.zeros(classes * classes, np.int64)
        drawn[filled] = counts
        scores[number] = macro_f1(drawn.reshape(classes, classes))
    low, high = np.quantile(scores, [0.025, 0.975])
    return [float(low), float(high)]
