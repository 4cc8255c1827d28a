"""Evidence that an image shows none of the classes, and the scores that are made of it.

No single one is the best for all images (in our measurements, docs/decisions/0029, each loses somewhere to chance), so
`combined` adds three of different kinds. Each is first scaled to mean 0 and variance 1 over images of the classes, so
one that is far outside of what they show outweighs the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

# The evidence that each score adds. `msp`: the probability of the likeliest class, lower for strangers (Hendrycks &
# Gimpel, "A Baseline for Detecting Misclassified and Out-of-Distribution Examples in Neural Networks", ICLR 2017);
# `energy`: of the logits (Liu et al., "Energy-based Out-of-distribution Detection", NeurIPS 2020); the others: see
# `space.Space.distances`.
SCORES: dict[str, tuple[str, ...]] = {
    "msp": ("msp",),
    "energy": ("energy",),
    "knn": ("neighbour",),
    "mahalanobis": ("mahalanobis",),
    "combined": ("msp", "neighbour", "mahalanobis"),
}
FLOOR = 1e-3  # smallest deviation, so that no evidence that is always the same outweighs the others by its rounding
OF_OUTPUTS = ("msp", "energy")  # evidence that needs no features

Evidence = Mapping[str, NDArray[np.float32]]


def needs_features(score: str) -> bool:
    """Whether a score has distances of features."""
    return not set(SCORES[score]) <= set(OF_OUTPUTS)


def of_outputs(logits: Any, probabilities: Any) -> dict[str, Any]:
    """`msp` and `energy`, (n,) each, higher for strangers, by operations of Keras.

    logits: (n, classes), or (n, 1) of a sigmoid; probabilities: (n, classes).
    """
    ops = keras.ops
    if logits.shape[-1] == 1:
        logits = ops.concatenate([ops.zeros_like(logits), logits], axis=-1)
    return {"msp": -ops.max(probabilities, axis=-1), "energy": -ops.logsumexp(logits, axis=-1)}


@dataclass(frozen=True)
class Strangeness:
    """A score, higher for strangers. scales: mean and deviation of each evidence over images of the classes."""

    scales: Mapping[str, tuple[float, float]]

    @classmethod
    def fit(cls, name: str, known: Evidence) -> Strangeness:
        """name: one of SCORES; known: the evidence of images of the classes that the classifier was not trained on."""
        values = {each: known[each].astype(np.float64) for each in SCORES[name]}
        return cls({each: (float(of.mean()), max(float(of.std()), FLOOR)) for each, of in values.items()})

    def of(self, evidence: Mapping[str, Any]) -> Any:
        """The score, (n,), of arrays or of tensors."""
        parts = [(evidence[name] - mean) * (1 / deviation) for name, (mean, deviation) in self.scales.items()]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total
