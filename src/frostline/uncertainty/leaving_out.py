"""Which score tells strangers best on these images: measured by leaving classes out.

One class, or a group of them if there are many, is left out of the training images; everything is fitted to the others;
and the validation images of the classes that were left out are the strangers. What is fitted is the space of each depth
and, for the probabilities, a logistic regression on the features at the end of the body, in place of the head. The
body itself is not trained again. If it was fine-tuned, it has seen the classes that are left out, so all areas are
higher than for true strangers; their order is what is used.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from frostline.models import sklearn_fit
from frostline.models.answer_facts import LeftOut
from frostline.uncertainty import evidence, space
from frostline.uncertainty.evidence import SCORES, Strangeness

GROUPS = 10  # of classes, at most; each is left out once
FEWEST = 3  # classes, so that two are left
STRENGTH = 0.05  # C of the logistic regression, on features of variance 1

ByDepth = Mapping[
    str, NDArray[np.float32]
]  # pooled features by the name of their layer; the last one is the body's end


@dataclass(frozen=True)
class Labelled:
    """Features of images, (n, width) for each depth, and their labels, int (n,)."""

    vectors: ByDepth
    labels: NDArray[np.int64]


def measure(train: Labelled, validation: Labelled, seed: int) -> list[LeftOut]:
    """All scores at all depths, the best first; empty for fewer than FEWEST classes.

    seed: of the groups of classes.
    """
    classes = np.intersect1d(train.labels, validation.labels)
    if len(np.unique(train.labels)) < FEWEST or len(classes) < FEWEST:
        return []
    order = np.random.default_rng(seed).permutation(classes)
    areas: dict[tuple[str, str | None], list[float]] = {}
    for group in np.array_split(order, min(GROUPS, len(order))):
        for key, area in _areas(train, validation, group, seed).items():
            areas.setdefault(key, []).append(area)
    found = [LeftOut(score, layer, round(float(np.mean(each)), 4)) for (score, layer), each in areas.items()]
    return sorted(found, key=lambda each: (-each.auroc, each.score, str(each.layer)))


def _areas(
    train: Labelled, validation: Labelled, group: NDArray[np.int64], seed: int
) -> dict[tuple[str, str | None], float]:
    """The areas under the ROC curves of the scores if these classes are left out."""
    rows = ~np.isin(train.labels, group)
    labels, is_stranger = train.labels[rows], np.isin(validation.labels, group)
    end = list(train.vectors)[-1]
    outputs = _outputs(train.vectors[end][rows], labels, validation.vectors[end], seed)
    areas: dict[tuple[str, str | None], float] = {}
    for name in itertools.filterfalse(evidence.needs_features, SCORES):
        areas[name, None] = _area(name, outputs, is_stranger)
    for layer, vectors in train.vectors.items():
        distances = space.fit(vectors[rows], labels).distances(validation.vectors[layer])
        for name in filter(evidence.needs_features, SCORES):
            areas[name, layer] = _area(name, outputs | distances, is_stranger)
    return areas


def _outputs(
    features: NDArray[np.float32], labels: NDArray[np.int64], asked: NDArray[np.float32], seed: int
) -> dict[str, NDArray[np.float32]]:
    """The evidence of the outputs of a logistic regression for the features of the images that are asked for."""
    settings = {"C": STRENGTH, "max_iter": 200, "tol": 1e-3}
    fitted = sklearn_fit.fit("logistic_regression", settings, features, labels, balanced=False, seed=seed)
    margins = fitted.estimator.decision_function(asked * fitted.scale + fitted.offset)
    logits = margins.reshape(len(asked), -1).astype(np.float32)
    probabilities = fitted.estimator.predict_proba(asked * fitted.scale + fitted.offset).astype(np.float32)
    return {name: np.asarray(each) for name, each in evidence.of_outputs(logits, probabilities).items()}


def _area(name: str, values: evidence.Evidence, is_stranger: NDArray[np.bool_]) -> float:
    """The area under the ROC curve: the probability that a stranger has a higher score, by the sum of the ranks (Mann &
    Whitney, 1947)."""
    from scipy.stats import rankdata

    known = {each: of[~is_stranger] for each, of in values.items()}
    ranks = rankdata(Strangeness.fit(name, known).of(values))[is_stranger]
    strangers = len(ranks)
    return float((ranks.sum() - strangers * (strangers + 1) / 2) / (strangers * (len(is_stranger) - strangers)))
