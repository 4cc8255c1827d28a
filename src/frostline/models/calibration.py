"""Temperature scaling: divide logits by one number, so that confidence becomes the share of right answers.

Guo et al., "On Calibration of Modern Neural Networks", ICML 2017. All logits are divided by the same number, so their
order, and with it every answer, stays the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Standard deviation of the prior of log(temperature), around 0. The prior decides if the data can't: if every
# validation image is right, the likelihood alone would make the temperature 0 and every answer certain. It is so narrow
# that ten images do no harm, and so wide that a hundred give the same result as without it
# (docs/decisions/0011-calibration.md).
PRIOR_DEVIATION = 0.25

WIDEST = 3.0  # largest absolute value of log(temperature): a factor of 20
DIGITS = 3  # more than the data can tell, and few enough that rounding of the logits has no effect


def fit_temperature(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The temperature, in (0, inf), that makes the labels most likely. The model must not be trained on these images.

    logits: float (n, classes), or (n, 1) of a sigmoid; labels: int (n,). It is the maximum a posteriori under a
    log-normal prior around 1, so it is 1 without images.
    """
    from scipy.optimize import minimize_scalar

    scores = logits.astype(np.float64)
    if scores.shape[1] == 1:
        scores = np.concatenate([np.zeros_like(scores), scores], axis=1)
    # The lead of each class over the true class. The loss is the logarithm of the sum of the leads' exponentials.
    ahead = scores - scores[np.arange(len(labels)), labels][:, None]

    def loss(log_temperature: float) -> float:
        scaled = ahead / np.exp(log_temperature)
        highest = scaled.max(axis=1)
        nats = highest + np.log(np.exp(scaled - highest[:, None]).sum(axis=1))
        return float(nats.sum() + (log_temperature / PRIOR_DEVIATION) ** 2 / 2)

    optimum = minimize_scalar(loss, bounds=(-WIDEST, WIDEST), method="bounded", options={"xatol": 1e-6})
    return round(float(np.exp(optimum.x)), DIGITS)


def uncalibrated(probabilities: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """The probabilities without the temperature: p^T, scaled to a sum of 1; float32 (n, classes)."""
    powers = (probabilities.astype(np.float64) / probabilities.max(axis=1, keepdims=True)) ** temperature
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
