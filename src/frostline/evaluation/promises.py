"""Whether a classifier keeps what it promises, on the test split: the coverage of its sets, and its false alarms.

Also how its errors fall if the least sure answers are left to people: the risk-coverage curve (Geifman & El-Yaniv,
"Selective Classification for Deep Neural Networks", NeurIPS 2017).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from frostline.evaluation.metrics import Labels, Probabilities, wilson
from frostline.evaluation.scores import Score
from frostline.models.answer_facts import AnswerFacts, Answers

GRID = np.linspace(0.01, 1, 100)  # of coverages


@dataclass(frozen=True)
class Promises:
    """What was promised and measured; None where the bundle promises nothing.

    set_promise: the coverage that is promised; set_coverage: the share of images whose set has their class; set_size:
    classes in a set, on average; unknown_promise: the largest rate that is promised; unknown_rate: the share of these
    images, which all show a class, that is called unknown; accuracy_known: of the other images. The intervals are
    Wilson's, of a binomial proportion.
    """

    set_promise: float | None = None
    set_coverage: Score | None = None
    set_size: float | None = None
    unknown_promise: float | None = None
    unknown_rate: Score | None = None
    accuracy_known: Score | None = None


def measure(labels: Labels, answers: Answers, facts: AnswerFacts | None) -> Promises:
    """labels: int (n,), of images that nothing was fitted to; facts: of the bundle that gave the answers."""
    found: dict[str, Any] = {}
    if facts is not None and facts.sets is not None and answers.sets is not None:
        found["set_promise"] = facts.sets.coverage
        found["set_coverage"] = _share(answers.sets[np.arange(len(labels)), labels])
        found["set_size"] = float(answers.sets.sum(axis=1).mean())
    if facts is not None and facts.unknown is not None and answers.unknown is not None:
        found["unknown_promise"] = facts.unknown.false_alarms
        found["unknown_rate"] = _share(answers.unknown)
        known = ~answers.unknown
        if known.any():
            found["accuracy_known"] = _share((answers.probabilities.argmax(axis=1) == labels)[known])
    return Promises(**found)


def by_class(labels: Labels, answers: Answers, classes: int) -> pd.DataFrame:
    """One row for each class, with those columns that the bundle has: set_coverage, set_size, unknown_rate; not a
    number for a class without images."""
    columns: dict[str, NDArray[np.float64]] = {}
    if answers.sets is not None:
        columns["set_coverage"] = answers.sets[np.arange(len(labels)), labels].astype(float)
        columns["set_size"] = answers.sets.sum(axis=1).astype(float)
    if answers.unknown is not None:
        columns["unknown_rate"] = answers.unknown.astype(float)
    return pd.DataFrame(columns, index=range(len(labels))).groupby(labels).mean().reindex(range(classes))


def aurc(labels: Labels, probabilities: Probabilities) -> float:
    """The area under the risk-coverage curve, 0 to 1: the mean error over all numbers of the surest answers."""
    return float(_risks(labels, probabilities).mean())


def risk_coverage(labels: Labels, probabilities: Probabilities) -> pd.DataFrame:
    """The curve at the coverages of GRID: coverage, the share of images that are answered, the surest first, and risk,
    the share of wrong answers among them."""
    risks = _risks(labels, probabilities)
    places = np.maximum(np.ceil(GRID * len(risks) - 1e-9).astype(int), 1) - 1
    return pd.DataFrame({"coverage": GRID, "risk": risks[places]})


def _risks(labels: Labels, probabilities: Probabilities) -> NDArray[np.float64]:
    """The error among the k surest answers, for k from 1 to n. Answers that are as sure are taken in any order."""
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    wrong = (probabilities.argmax(axis=1) != labels)[order]
    risks: NDArray[np.float64] = np.cumsum(wrong) / np.arange(1, len(wrong) + 1)
    return risks


def _share(hits: NDArray[np.bool_]) -> Score:
    return Score.of(float(hits.mean()), wilson(int(hits.sum()), len(hits)))
