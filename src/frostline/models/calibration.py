"""Temperature scaling: one number by which logits are divided, so that confidence becomes the share of right answers.

Guo et al., "On Calibration of Modern Neural Networks", ICML 2017. Dividing all logits alike leaves their order, and so
every answer, as it was.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Of the logarithm of the temperature, around 0. It decides where data can't: with every validation image right, the
# likelihood alone would have the temperature fall to 0 and every answer be certain. So narrow that ten images do no
# harm, so wide that a hundred find what they would find without it (docs/decisions/0011-calibration.md).
PRIOR_DEVIATION = 0.25

WIDEST = 3.0  # of the logarithm, either way: a factor of 20
DIGITS = 3  # more than the data tell, and few enough that rounding of the logits does not show


def fit_temperature(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The temperature, in (0, inf), that makes the labels of images the model was not trained on most likely.

    logits: float (n, classes), or (n, 1) of a sigmoid; labels: int (n,). Maximum a posteriori under a log-normal
    prior around 1, which is what no images at all give.
    """
    from scipy.optimize import minimize_scalar

    scores = logits.astype(np.float64)
    if scores.shape[1] == 1:
        scores = np.concatenate([np.zeros_like(scores), scores], axis=1)
    # By how much each class is ahead of the true one; the loss is the logarithm of the sum of their exponentials.
    ahead = scores - scores[np.arange(len(labels)), labels][:, None]

    def loss(log_temperature: float) -> float:
        scaled = ahead / np.exp(log_temperature)
        highest = scaled.max(axis=1)
        nats = highest + np.log(np.exp(scaled - highest[:, None]).sum(axis=1))
        return float(nats.sum() + (log_temperature / PRIOR_DEVIATION) ** 2 / 2)

    found = minimize_scalar(loss, bounds=(-WIDEST, WIDEST), method="bounded", options={"xatol": 1e-6})
    return round(float(np.exp(found.x)), DIGITS)


def uncalibrated(probabilities: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """What the probabilities were before the temperature: p^T, scaled to a sum of 1; float32 (n, classes)."""
    powers = (probabilities.astype(np.float64) / probabilities.max(axis=1, keepdims=True)) ** temperature
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
