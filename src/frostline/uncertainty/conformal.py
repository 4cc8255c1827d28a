"""Prediction sets with a promise: split conformal prediction.

Of all images like those that the sets were fitted on, at least the promised share has its class in its set, whatever
the classifier is worth (Vovk et al., "Algorithmic Learning in a Random World", 2005; the sets of a bad classifier are
just larger). The promise is for all images together, not for each class.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from frostline.models.answer_facts import SetFacts

PENALTIES = (0.001, 0.01, 0.1, 0.2, 0.5)  # of RAPS, from which the one with the smallest sets is taken
TUNED_ON = 0.2  # the share of the images that only chooses the penalty of RAPS


def fit(
    score: str, probabilities: NDArray[np.float32], labels: NDArray[np.int64], coverage: float, seed: int
) -> SetFacts:
    """The rule of the sets.

    score: `lac`, by the probability of a class (Sadinle, Lei & Wasserman, "Least Ambiguous Set-Valued Classifiers with
    Bounded Error Levels", JASA 2019), which gives the smallest sets, and empty ones where no class is likely enough;
    `aps`, by the sum of the probabilities down to a class (Romano, Sesia & Candes, "Classification with Valid and
    Adaptive Coverage", NeurIPS 2020), or `raps`, the same with a penalty on long sets (Angelopoulos et al.,
    "Uncertainty Sets for Image Classifiers using Conformal Prediction", ICLR 2021). The sets of the latter two are not
    random and have at least one class each, so they cover more than is promised. probabilities: float32 (n, classes);
    labels: int (n,), of images that the classifier was not trained on; coverage: the promise, in (0, 1); seed: of the
    part of the images that chooses the penalty of RAPS, and of the random part of the scores.
    """
    free, penalty, rng = 0, 0.0, np.random.default_rng(seed)
    if score == "raps":
        order = rng.permutation(len(labels))
        tuning, rest = np.split(order, [round(TUNED_ON * len(labels))])
        free, penalty = _penalty(probabilities[tuning], labels[tuning], coverage, rng)
        probabilities, labels = probabilities[rest], labels[rest]
    if score == "lac":
        return SetFacts(score, coverage, max(0.0, -threshold(-probabilities[np.arange(len(labels)), labels], coverage)))
    noise = rng.uniform(size=len(labels))
    limit = threshold(sums_to_class(probabilities, labels, noise, free, penalty), coverage)
    return SetFacts(score, coverage, limit, free, penalty)


def sums_to_class(
    probabilities: NDArray[np.float32],
    labels: NDArray[np.int64],
    noise: NDArray[np.float64],
    free: int = 0,
    penalty: float = 0.0,
) -> NDArray[np.float64]:
    """The scores of APS and RAPS, float (n,): the sum of the probabilities down to the class of the label, without a
    random share of its own, in `noise`, float (n,) in [0, 1); with the penalty of its rank."""
    rows = np.arange(len(labels))
    true = probabilities[rows, labels]
    rank = (probabilities > true[:, None]).sum(axis=1)
    scores: NDArray[np.float64] = np.asarray(_sums(probabilities, free, penalty)[1])[rows, rank] - noise * true
    return scores


def threshold(scores: NDArray[np.floating[Any]], share: float) -> float:
    """The value that a new score exceeds with a probability of at most 1 - share; inf if there are too few scores.

    It is the ceil((n + 1) share)-th smallest of n scores, which must be exchangeable with the new one.
    """
    place = math.ceil((len(scores) + 1) * share - 1e-9)
    return float(np.sort(scores)[place - 1]) if place <= len(scores) else math.inf


def sets(facts: SetFacts, probabilities: Any) -> Any:
    """Whether each class is in the set, bool (n, classes), by operations of Keras.

    probabilities: float32 (n, classes), an array or a tensor of a network.
    """
    ops = keras.ops
    if facts.score == "lac":
        return ops.greater_equal(probabilities, facts.threshold)
    ordered, scores = _sums(probabilities, facts.free, facts.penalty)
    # All classes down to the threshold, and the one that crosses it, so no set is empty.
    before = ops.concatenate([ops.zeros_like(scores[:, :1]) - 1.0, scores[:, :-1]], axis=-1)
    is_inside = ops.less(before, min(facts.threshold, 1e9))
    lowest = ops.min(ops.where(is_inside, ordered, ops.ones_like(ordered) * 2.0), axis=-1, keepdims=True)
    return ops.greater_equal(probabilities, lowest)


def _sums(probabilities: Any, free: int, penalty: float) -> tuple[Any, Any]:
    """The probabilities in descending order, and the scores of their classes, both (n, classes)."""
    classes = probabilities.shape[-1]
    ordered, _ = keras.ops.top_k(probabilities, classes)
    scores = keras.ops.cumsum(ordered, axis=-1)
    if penalty:
        ranks = keras.ops.cumsum(keras.ops.ones_like(ordered), axis=-1)
        scores = scores + penalty * keras.ops.maximum(ranks - float(free), 0.0)
    return ordered, scores


def _penalty(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], coverage: float, rng: np.random.Generator
) -> tuple[int, float]:
    """The rank from which RAPS adds a penalty, and the penalty, as the paper chooses them for small sets."""
    ranks = (probabilities > probabilities[np.arange(len(labels)), labels][:, None]).sum(axis=1) + 1
    free = int(min(threshold(ranks.astype(float), coverage), probabilities.shape[1]))
    noise, sizes = rng.uniform(size=len(labels)), {}
    for penalty in PENALTIES:
        limit = threshold(sums_to_class(probabilities, labels, noise, free, penalty), coverage)
        facts = SetFacts("raps", coverage, limit, free, penalty)
        sizes[penalty] = float(np.asarray(sets(facts, probabilities)).sum()) if len(labels) else 0.0
    return free, min(sizes, key=lambda penalty: sizes[penalty])
