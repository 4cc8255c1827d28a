"""The metrics of a classifier on images it has not seen, with their intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from frostline.evaluation.scores import Score, Scores

Z95 = 1.959964
ECE_BINS = 15

Labels = NDArray[np.int64]
Probabilities = NDArray[np.float32]
Counts = NDArray[Any]  # int for numbers of images, float for weights


def compute(labels: Labels, probabilities: Probabilities, top_k: int, resamples: int, seed: int) -> Scores:
    """The metrics of a test split.

    labels: int (n,); probabilities: float (n, classes), rows summing to 1. Ranges: log_loss [0, inf), all others
    [0, 1]. The interval of the accuracy is Wilson's (Wilson, JASA 1927): near 1 it keeps its coverage, while a
    bootstrap collapses to a point. Those of macro F1 and log loss are the percentile bootstrap's (Efron 1979). The
    calibration error has none: it is biased upwards, and resampling would add the bias a second time.
    """
    classes = probabilities.shape[1]
    intervals = _bootstrap(labels, probabilities, resamples, seed)
    predicted = probabilities.argmax(axis=1)
    k = min(top_k, classes)
    top = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    confusion = confusion_matrix(labels, predicted, classes)
    hits = predicted == labels
    return Scores(
        accuracy=Score.of(float(hits.mean()), wilson(int(hits.sum()), len(labels))),
        top_k=k,
        top_k_accuracy=float((top == labels[:, None]).any(axis=1).mean()),
        macro_f1=Score.of(macro_f1(*_margins(confusion)), intervals["macro_f1"]),
        weighted_f1=float(np.average(f1(*_margins(confusion)), weights=confusion.sum(axis=1))),
        log_loss=Score.of(float(losses(labels, probabilities).mean()), intervals["log_loss"]),
        ece=expected_calibration_error(labels, probabilities),
        n_test=len(labels),
        commonest_class=float(np.bincount(labels).max() / len(labels)),
    )


def confusion_matrix(labels: Labels, predicted: Labels, classes: int) -> NDArray[np.int64]:
    """Counts, int (classes, classes): rows are the true class, columns the predicted one."""
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def f1(hits: Counts, occurs: Counts) -> NDArray[np.float64]:
    """F1 of every class, float (classes,), 0 for a class that never occurs. hits: correct predictions of each class;
    occurs: how often it is the true class plus how often it is predicted."""
    return np.divide(2 * hits, occurs, out=np.zeros(hits.shape), where=occurs > 0)


def macro_f1(hits: Counts, occurs: Counts) -> float:
    """Mean F1 over the classes that occur, as true class or as prediction."""
    return float(f1(hits, occurs).sum() / max(1, np.count_nonzero(occurs)))


def weighted_macro_f1(labels: Labels, predicted: Labels, weights: NDArray[np.float64], classes: int) -> float:
    """Mean F1 of weighted images. weights: float (n,), how often each image counts, for example in a resample."""
    hits, truths, predictions = (
        np.bincount(of, weight, classes)
        for of, weight in ((labels, weights * (labels == predicted)), (labels, weights), (predicted, weights))
    )
    return macro_f1(hits, truths + predictions)


def losses(labels: Labels, probabilities: Probabilities) -> NDArray[np.float64]:
    """Negative log of the true class's probability, in nats, float (n,). Probabilities are raised to float32's epsilon
    if they are lower."""
    true = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return -np.log(np.clip(true, np.finfo(np.float32).eps, 1))


def hardest(labels: Labels, probabilities: Probabilities, limit: int) -> NDArray[np.int64]:
    """Rows of the mistakes, the most confident first; if there is no mistake, of the right answers, the least sure
    first."""
    confidence = probabilities.max(axis=1)
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    if len(wrong):
        return wrong[np.argsort(-confidence[wrong], kind="stable")[:limit]]
    return np.argsort(confidence, kind="stable")[:limit]


def confusions(confusion: NDArray[np.int64]) -> pd.DataFrame:
    """One row for each confused pair of classes, most frequent first: true and predicted (class numbers), count."""
    off = confusion - np.diag(np.diagonal(confusion))
    true, predicted = np.nonzero(off)
    table = pd.DataFrame({"true": true, "predicted": predicted, "count": off[true, predicted]})
    return table.sort_values("count", ascending=False, kind="stable", ignore_index=True)


def expected_calibration_error(labels: Labels, probabilities: Probabilities) -> float:
    """Mean gap between confidence and accuracy over 15 equal bins (Guo et al., ICML 2017)."""
    table = reliability(labels, probabilities)
    gap = (table["accuracy"] - table["confidence"]).abs()
    return float((gap * table["count"]).sum() / table["count"].sum())


def reliability(labels: Labels, probabilities: Probabilities) -> pd.DataFrame:
    """One row for each confidence bin that is not empty: confidence (mean), accuracy, count, and the 95% interval of
    the accuracy from low to high."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    table = pd.DataFrame({"bin": bins, "confidence": confidence, "accuracy": right.astype(float)})
    grouped = table.groupby("bin")
    bin_table = grouped.mean().assign(count=grouped.size()).reset_index(drop=True)
    ends = [wilson(hits, n) for hits, n in zip(grouped["accuracy"].sum(), bin_table["count"], strict=True)]
    return bin_table.assign(low=[low for low, _ in ends], high=[high for _, high in ends])


def per_class(labels: Labels, predicted: Labels, classes: tuple[str, ...]) -> pd.DataFrame:
    """One row for each class: class, precision, recall, f1, support."""
    confusion = confusion_matrix(labels, predicted, len(classes))
    hits, support, predictions = np.diagonal(confusion), confusion.sum(axis=1), confusion.sum(axis=0)

    def hit_rate(totals: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.divide(hits, totals, out=np.zeros(len(classes)), where=totals > 0)

    columns = {
        "precision": hit_rate(predictions),
        "recall": hit_rate(support),
        "f1": f1(*_margins(confusion)),
        "support": support,
    }
    return pd.DataFrame({"class": classes, **columns})


def wilson(hits: float, n: int) -> list[float]:
    """The 95% score interval of a proportion, [low, high]."""
    p = hits / n
    middle = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * np.sqrt(p * (1 - p) / n + Z95**2 / (4 * n**2))
    return [max(0.0, float(middle - half)), min(1.0, float(middle + half))]


def _margins(confusion: NDArray[np.int64]) -> tuple[Counts, Counts]:
    """The arguments of `f1`: the hits of each class, and how often it occurs."""
    return np.diagonal(confusion), confusion.sum(axis=0) + confusion.sum(axis=1)


def _bootstrap(labels: Labels, probabilities: Probabilities, resamples: int, seed: int) -> dict[str, list[float]]:
    """Percentile intervals. A resample is a weight for each image: how often it was drawn."""
    n, classes = probabilities.shape
    predicted, loss = probabilities.argmax(axis=1), losses(labels, probabilities)
    rng = np.random.default_rng(seed)
    scores = np.empty((resamples, 2))
    for score in scores:
        weights = np.bincount(rng.integers(0, n, n), minlength=n).astype(np.float64)
        score[:] = weighted_macro_f1(labels, predicted, weights, classes), weights @ loss / n
    low, high = np.quantile(scores, [0.025, 0.975], axis=0)
    return {name: [float(low[at]), float(high[at])] for at, name in enumerate(("macro_f1", "log_loss"))}
