"""How well labels can be told from vectors: ridge regression and nearest neighbours, cross-validated.

Ridge is the closed form on one-hot labels; its penalty is chosen inside the training folds by generalised
cross-validation (Golub, Heath & Wahba, "Generalized Cross-Validation as a Method for Choosing a Good Ridge Parameter",
Technometrics 1979). Nearest neighbours are the second opinion: over 42,000 experiments they ranked models for transfer
better than 23 transferability metrics (Sorkhei et al., arXiv 2503.18528).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

FOLDS = 5
NEIGHBOURS = 10
PENALTIES = np.logspace(-4, 4, 17)  # of columns with variance 1; times the number of images
Z = 1.959964  # of a 95% interval
CHUNK = 1024  # rows of a matrix of similarities that are in memory at once

Vectors = NDArray[np.float32]
Doubles = NDArray[np.float64]
Numbers = NDArray[np.int64]  # of classes or folds, one for each image


@dataclass(frozen=True)
class Probe:
    """An accuracy in cross-validation.

    accuracy: in [0, 1]; images: that were predicted, each once by other folds; right: which of them were told, bool
    (images,), None if that is not known.
    """

    accuracy: float
    images: int
    right: NDArray[np.bool_] | None = field(default=None, compare=False, repr=False)

    @property
    def error(self) -> float:
        """The standard error of the accuracy."""
        return math.sqrt(max(self.accuracy * (1 - self.accuracy), 1e-9) / self.images)

    def error_of_difference(self, other: Probe) -> float:
        """The standard error of the difference to another accuracy: of the same images, where it is known which were
        told (McNemar, "Note on the Sampling Error of the Difference between Correlated Proportions", 1947)."""
        if self.right is None or other.right is None or len(self.right) != len(other.right):
            return self.error
        difference = self.right.astype(float) - other.right
        return float(difference.std() / math.sqrt(len(difference)))

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval (Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927)."""
        n, p = self.images, self.accuracy
        centre, spread = p + Z**2 / (2 * n), Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
        return (centre - spread) / (1 + Z**2 / n), (centre + spread) / (1 + Z**2 / n)


def folds(labels: Numbers, together: pd.Series, seed: int) -> Numbers:
    """The fold of each image, int64 (n,), in [0, FOLDS).

    together: the set of images that must lie on one side, empty for an image alone. Sets are dealt out in random order,
    class by class, so that each fold has about the same share of each class.
    """
    names = together.where(together != "", [f"alone {place}" for place in range(len(together))])
    sets = pd.factorize(names)[0]
    first = pd.Series(labels).groupby(sets).first()
    order = np.random.default_rng(seed).permutation(len(first))
    by_class = order[np.argsort(first.to_numpy()[order], kind="stable")]
    fold_of_set = np.empty(len(first), np.int64)
    fold_of_set[by_class] = np.arange(len(first)) % FOLDS
    return fold_of_set[sets]


def teachers(labels: Numbers, fold: Numbers, number: int, most: int | None) -> Numbers:
    """The rows that the images of a fold are predicted from: those of the other folds, and of these `most` at most,
    with the share of each class kept; None for all.

    A probe that learns from five times as many images as the training will have says what five times as many are worth.
    """
    inside = np.flatnonzero(fold != number)
    if most is None or len(inside) <= most:
        return inside
    drawn = np.random.default_rng(number).permutation(inside)
    by_class = pd.Series(labels[drawn]).groupby(labels[drawn])
    place = (by_class.cumcount() + 0.5) / by_class.transform("size")
    return np.sort(drawn[np.argsort(place.to_numpy(), kind="stable")[:most]])


def ridge(vectors: Vectors, labels: Numbers, fold: Numbers, most: int | None = None) -> Probe:
    """The accuracy of ridge regression. vectors: (n, width); labels: (n,), class numbers; most: see `teachers`."""
    targets = np.eye(labels.max() + 1)[labels]
    right = np.zeros(len(labels), bool)
    for number in np.unique(fold):
        inside, outside = teachers(labels, fold, number, most), fold == number
        mean, scale = vectors[inside].mean(axis=0), vectors[inside].std(axis=0) + 1e-6
        x, held_out = ((vectors[rows] - mean) / scale for rows in (inside, outside))
        scores = ridge_scores(x.astype(np.float64), targets[inside], held_out.astype(np.float64))
        right[outside] = scores.argmax(axis=1) == labels[outside]
    return Probe(float(right.mean()), len(labels), right)


def ridge_scores(x: Doubles, targets: Doubles, held_out: Doubles, penalties: Doubles = PENALTIES) -> Doubles:
    """The scores of ridge regression (m, classes) for vectors that were held out.

    x: (n, width), each column with mean 0; targets: (n, classes); held_out: (m, width); penalties: on the squared
    weights, times n. The one with the least generalised cross-validation error in x is taken.
    """
    count, width = x.shape
    mean = targets.mean(axis=0)
    y = targets - mean
    is_wide = width > count
    values, basis = np.linalg.eigh(x @ x.T if is_wide else x.T @ x)
    values = np.maximum(values, 0)
    turned = basis.T @ (y if is_wide else x.T @ y)
    best, least = turned, np.inf
    for penalty in penalties * count:
        shrunk = turned / (values + penalty)[:, None]
        if is_wide:  # residual = penalty * (K + penalty)^-1 y
            residual = float((penalty**2 * shrunk**2).sum())
        else:
            fitted = 2 * (turned * shrunk).sum() - (values[:, None] * shrunk**2).sum()
            residual = float((y**2).sum() - fitted)
        freedom = 1 + float((values / (values + penalty)).sum())  # 1 of the mean, without which wide x seem to fit
        score = max(residual, 0.0) / max(1 - freedom / count, 1e-9) ** 2
        if score < least:
            best, least = shrunk, score
    weights = x.T @ (basis @ best) if is_wide else basis @ best
    result: Doubles = held_out @ weights + mean
    return result


def nearest(vectors: Vectors, labels: Numbers, fold: Numbers, most: int | None = None) -> Probe:
    """The accuracy of the nearest neighbours in the other folds: the votes of the NEIGHBOURS most similar vectors by
    cosine, each weighted by its similarity. most: see `teachers`."""
    x = vectors - vectors.mean(axis=0)
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    votes_of = np.eye(labels.max() + 1, dtype=np.float32)[labels]
    right = np.zeros(len(labels), bool)
    for number in np.unique(fold):
        inside, outside = teachers(labels, fold, number, most), np.flatnonzero(fold == number)
        count = min(NEIGHBOURS, len(inside))
        for start in range(0, len(outside), CHUNK):
            rows = outside[start : start + CHUNK]
            similarity = x[rows] @ x[inside].T
            near = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
            weight = np.take_along_axis(similarity, near, axis=1) + 1.0
            votes = (votes_of[inside[near]] * weight[:, :, None]).sum(axis=1)
            right[rows] = votes.argmax(axis=1) == labels[rows]
    return Probe(float(right.mean()), len(labels), right)


def pixels(images: NDArray[np.uint8], side: int = 8) -> Vectors:
    """A floor: the images themselves, averaged over side x side places, float32 (n, side * side * 3)."""
    count, size = images.shape[:2]
    edges = np.linspace(0, size, side + 1).astype(int)
    sums = np.add.reduceat(np.add.reduceat(images.astype(np.float32), edges[:-1], axis=1), edges[:-1], axis=2)
    lengths = np.diff(edges).astype(np.float32)
    means = sums / np.multiply.outer(lengths, lengths)[:, :, None]
    return means.reshape(count, -1).astype(np.float32, copy=False)
