"""How well probabilities rank images, each class against the rest: ROC and precision-recall, their areas and curves.

Everything is computed from the ranks of the few positives of a class among all images, so a class costs one sort and
two binary searches, and 1,000 classes take seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from frostline.evaluation.metrics import Z95
from frostline.evaluation.scores import Score

GRID = np.linspace(0, 1, 101)  # of false positive rates, and of recalls
LISTED = 20  # classes, at most, whose curves are written to the tables

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ranking:
    """One class against the rest. scores: of all images, float (n,); is_positive: bool (n,), with True and False."""

    scores: NDArray[np.float32]
    is_positive: NDArray[np.bool_]

    @cached_property
    def _positive(self) -> NDArray[np.float32]:
        """The scores of the positives, ascending. The arrays of `_counts` are in this order."""
        return np.sort(self.scores[self.is_positive])

    @cached_property
    def _counts(self) -> tuple[Floats, Floats, Floats, Floats]:
        """For each positive: how many positives score at least as high, and higher; how many negatives do."""
        scores, positive = np.sort(self.scores), self._positive
        hits, hits_above = (len(positive) - np.searchsorted(positive, positive, side) for side in ("left", "right"))
        total, above = (len(scores) - np.searchsorted(scores, positive, side) for side in ("left", "right"))
        counts = np.stack([hits, hits_above, total - hits, above - hits_above]).astype(float)
        hits, hits_above, false, false_above = counts
        return hits, hits_above, false, false_above

    @property
    def _negatives(self) -> int:
        return len(self.scores) - len(self._positive)

    @property
    def roc_auc(self) -> float:
        """The probability that a positive scores higher than a negative, 0 to 1; a tie counts as half."""
        _, _, false, false_above = self._counts
        return float(1 - (false + false_above).mean() / (2 * self._negatives))

    @property
    def average_precision(self) -> float:
        """Mean over the positives of the precision at their score, in (0, 1], without interpolation."""
        hits, _, false, _ = self._counts
        return float((hits / (hits + false)).mean())

    def true_positive_rates(self) -> Floats:
        """The ROC curve at the false positive rates of GRID."""
        hits, hits_above, false, false_above = (counts[::-1] for counts in self._counts)
        corners = np.stack([false_above, false], axis=1).ravel() / self._negatives
        rates = np.stack([hits_above, hits], axis=1).ravel() / len(self._positive)
        return np.interp(GRID, [0, *corners, 1], [0, *rates, 1])

    def precisions(self) -> Floats:
        """The precision-recall curve at the recalls of GRID: the best precision at that recall or a higher one."""
        hits, _, false, _ = self._counts  # from the highest recall to the lowest
        best = np.maximum.accumulate(hits / (hits + false))[::-1]
        recalls = (hits / len(hits))[::-1]
        return best[np.searchsorted(recalls, GRID - 1e-9)]

    def influence(self) -> tuple[Floats, Floats]:
        """The empirical influence function of each of the two areas, two float (n,).

        It is the derivative of the area by the weight of an image, times n.
        """
        hits, _, false, false_above = self._counts
        positives, negatives, n = len(hits), self._negatives, len(self.scores)
        below_or_at = np.searchsorted(self._positive, self.scores, "right")
        below = np.searchsorted(self._positive, self.scores, "left")
        auc = (1 - (below_or_at + below) / (2 * positives) - self.roc_auc) / negatives
        total = hits + false
        # An image is counted in the precision of every positive that scores no higher.
        in_precisions = np.concatenate([[0], np.cumsum(hits / total**2)])
        ap = -in_precisions[below_or_at] / positives
        positive = self.is_positive
        at = below[positive]
        auc[positive] = (1 - (false + false_above)[at] / (2 * negatives) - self.roc_auc) / positives
        in_hits = np.concatenate([[0], np.cumsum(1 / total)])
        ap[positive] += (hits[at] / total[at] - self.average_precision + in_hits[below_or_at[positive]]) / positives
        return auc * n, ap * n


def rankings(labels: NDArray[np.int64], probabilities: NDArray[np.float32]) -> Iterator[tuple[int, Ranking]]:
    """Number and ranking of each class that can be ranked: it has both positives and negatives among the images."""
    counts = np.bincount(labels, minlength=probabilities.shape[1])
    for number in np.flatnonzero((counts > 0) & (counts < len(labels))):
        yield int(number), Ranking(np.ascontiguousarray(probabilities[:, number]), labels == number)


@dataclass(frozen=True)
class Summary:
    """The rankings of all classes that can be ranked.

    areas: one row for each class: number, roc_auc, average_precision; roc, precision_recall: float (rows, points of
    GRID). They are empty, and the macro averages of the areas are None, if no class can be ranked.
    """

    areas: pd.DataFrame
    roc: Floats
    precision_recall: Floats
    roc_auc: Score | None = None
    average_precision: Score | None = None


def summary(labels: NDArray[np.int64], probabilities: NDArray[np.float32]) -> Summary:
    """Rank the images by each class against the rest. labels: int (n,); probabilities: float (n, classes).

    The intervals are those of the infinitesimal jackknife (Efron, "The Jackknife, the Bootstrap and Other Resampling
    Plans", SIAM 1982, chapter 6): the limit of a bootstrap of the images with many resamples, without ranking every
    class again in thousands of resamples. An average of 0 or 1 has no interval.
    """
    areas, roc, curves = [], [], []
    influences = np.zeros((2, len(labels)))
    for number, ranking in rankings(labels, probabilities):
        areas.append((number, ranking.roc_auc, ranking.average_precision))
        roc.append(ranking.true_positive_rates())
        curves.append(ranking.precisions())
        influences += ranking.influence()
    table = pd.DataFrame(areas, columns=["number", "roc_auc", "average_precision"])
    averages = []
    for name, influence in zip(table.columns[1:], influences, strict=True) if areas else ():
        average = float(table[name].mean())
        error = float(np.sqrt((influence**2).sum())) / (len(areas) * len(labels))
        averages.append(Score.of(average, interval(average, error) if 0 < average < 1 else None))
    shape = (len(areas), len(GRID))
    return Summary(table, np.reshape(roc, shape), np.reshape(curves, shape), *averages)


def table(curves: Floats, x: str, names: list[str]) -> pd.DataFrame:
    """Curves on GRID as columns: x, their `macro` average, and each class if there are at most LISTED of them."""
    columns = {x: GRID, "macro": curves.mean(axis=0) if len(curves) else np.full(len(GRID), np.nan)}
    if len(names) <= LISTED:
        columns |= {f"class {name}": curve for name, curve in zip(names, curves, strict=True)}
    return pd.DataFrame(columns)


def interval(value: float, error: float) -> list[float]:
    """A 95% interval of an area in (0, 1). It is symmetric in the logit of the area, so it stays in (0, 1)."""
    middle, half = np.log(value / (1 - value)), Z95 * error / (value * (1 - value))
    return [float(1 / (1 + np.exp(-(middle + sign * half)))) for sign in (-1, 1)]
