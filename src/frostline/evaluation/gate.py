"""Whether a challenger may take the champion's place: a paired test on the images that both were tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from frostline.errors import StateError
from frostline.evaluation import metrics
from frostline.evaluation.metrics import Labels, Probabilities

if TYPE_CHECKING:
    import pandas as pd

RESAMPLES = 10_000
CHUNK = 2**24  # random numbers in memory at a time


@dataclass(frozen=True)
class Comparison:
    """Two classifiers on the same n images.

    challenger, champion: their scores. gain: how much better the challenger is, negative if it is worse (for log_loss:
    how much lower). bound: the gain that is exceeded with probability `confidence`, by the paired bootstrap.
    only_challenger, only_champion: the number of images that only this one classifies correctly; p_value: of McNemar's
    exact test of those two counts, two-sided.
    """

    metric: str
    n: int
    challenger: float
    champion: float
    gain: float
    bound: float
    only_challenger: int
    only_champion: int
    p_value: float
    margin: float
    confidence: float

    @property
    def passed(self) -> bool:
        """Whether the challenger is, with this confidence, at most `margin` worse than the champion."""
        return self.bound >= -self.margin - 1e-12

    @property
    def text(self) -> str:
        """The numbers in one line."""
        return (
            f"{self.metric} {self.challenger:.4f} against {self.champion:.4f} on the same {self.n} images: gain "
            f"{self.gain:+.4f}, with {self.confidence:.0%} confidence at least {self.bound:+.4f} (allowed: "
            f"{-self.margin:+.4f}); right where the other is wrong: {self.only_challenger} against "
            f"{self.only_champion}, McNemar p = {self.p_value:.3f}"
        )


def compare(
    labels: Labels,
    challenger: Probabilities,
    champion: Probabilities,
    metric: str,
    margin: float,
    confidence: float,
    seed: int,
) -> Comparison:
    """Compare two classifiers image by image: a one-sided test of non-inferiority.

    labels: int (n,); challenger, champion: probabilities (n, classes); metric: accuracy, macro_f1 or log_loss; margin:
    in the metric's units, at least 0; confidence: in (0, 1). The bound is the percentile of the paired bootstrap (Efron
    & Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13). McNemar's exact test (Psychometrika 1947) is
    reported with it; Dietterich (Neural Computation 1998) recommends it for two classifiers on one test set.
    """
    from scipy.stats import binomtest

    rng = np.random.default_rng(seed)
    hits = _hits(labels, challenger), _hits(labels, champion)
    if metric == "macro_f1":
        classes, weights = challenger.shape[1], np.ones(len(labels))
        predictions = challenger.argmax(axis=1), champion.argmax(axis=1)
        scores = tuple(metrics.weighted_macro_f1(labels, each, weights, classes) for each in predictions)
        gain, gain_samples = scores[0] - scores[1], _macro_f1_differences(labels, *predictions, classes, rng)
    else:
        values = hits if metric == "accuracy" else tuple(metrics.losses(labels, by) for by in (challenger, champion))
        scores = float(values[0].mean()), float(values[1].mean())
        gains = values[0] - values[1] if metric == "accuracy" else values[1] - values[0]
        gain, gain_samples = float(gains.mean()), _mean_differences(gains, rng)
    only_right = int((hits[0] > hits[1]).sum()), int((hits[1] > hits[0]).sum())
    return Comparison(
        metric=metric,
        n=len(labels),
        challenger=scores[0],
        champion=scores[1],
        gain=gain,
        bound=float(np.quantile(gain_samples, 1 - confidence)),
        only_challenger=only_right[0],
        only_champion=only_right[1],
        p_value=float(binomtest(only_right[0], sum(only_right)).pvalue) if sum(only_right) else 1.0,
        margin=margin,
        confidence=confidence,
    )


def aligned(tables: Sequence[pd.DataFrame]) -> tuple[NDArray[np.int64], list[NDArray[np.float32]]]:
    """The labels (n,), and the probabilities (n, classes) of two versions in one order of images and classes.

    tables: like reports/predictions.parquet, of the same images. Raises StateError if their classes differ.
    """
    classes = sorted(tables[0].attrs["classes"])
    if sorted(tables[1].attrs["classes"]) != classes:
        raise StateError("promote: challenger and champion know different classes; they can't be compared")
    numbers = {name: number for number, name in enumerate(classes)}
    probabilities = []
    for table in tables:
        ordered = table.sort_values("sha256")
        columns = np.argsort([numbers[name] for name in table.attrs["classes"]])
        probabilities.append(np.stack(ordered["probabilities"].to_list()).astype(np.float32)[:, columns])
    labels = tables[0].sort_values("sha256")["label"].map(numbers).to_numpy(np.int64)
    return labels, probabilities


def _hits(labels: Labels, probabilities: Probabilities) -> NDArray[np.float64]:
    return (probabilities.argmax(axis=1) == labels).astype(np.float64)


def _mean_differences(differences: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Means of resampled differences, float (RESAMPLES,). Images with the same difference are drawn together."""
    values, counts = np.unique(differences, return_counts=True)
    n = len(differences)
    step = max(1, CHUNK // len(values))
    means = [
        rng.multinomial(n, counts / n, min(step, RESAMPLES - start)) @ values / n for start in range(0, RESAMPLES, step)
    ]
    return np.concatenate(means)


def _macro_f1_differences(
    labels: Labels, one: Labels, other: Labels, classes: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Differences of macro F1 in resamples, float (RESAMPLES,).

    Images with the same label and the same two predictions are drawn together.
    """
    cells, counts = np.unique(np.stack([labels, one, other], axis=1), axis=0, return_counts=True)
    n = len(labels)
    truths, *predictions = cells.T
    differences = np.empty(RESAMPLES)
    for number in range(RESAMPLES):
        weights = rng.multinomial(n, counts / n).astype(np.float64)
        scores = [metrics.weighted_macro_f1(truths, each, weights, classes) for each in predictions]
        differences[number] = scores[0] - scores[1]
    return differences
