"""The learning-rate range test: train a batch at each of rising rates; see where the loss falls and where it diverges.

Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017, section 3.3; the rates rise exponentially,
as in fastai's `lr_find`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SMOOTHING = 3.0  # standard deviation in steps
BROKEN = 4.0  # times the best loss so far end the test
NOISE = 0.1  # nats; losses below it differ by more than BROKEN from batch to batch
BEGUN = 0.1  # of the whole fall: the loss has begun to fall
LEAST_FALL = 0.03  # as a share of the loss before it
MARGIN = 3.0  # between the highest rate of the range and that of the lowest loss


@dataclass(frozen=True)
class RateRange:
    """Learning rates worth searching; steepest: where in the range the loss fell fastest over the rate's logarithm."""

    low: float
    high: float
    steepest: float


def rates(low: float, high: float, steps: int) -> NDArray[np.float64]:
    """`steps` learning rates from low to high, evenly in their logarithm."""
    return np.geomspace(low, high, steps)


def smoothed(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian means of each loss and its neighbours on both sides; a mean of past losses would lag behind."""
    from scipy.ndimage import gaussian_filter1d

    return np.asarray(gaussian_filter1d(losses, SMOOTHING, mode="nearest"))


def is_over(losses: list[float]) -> bool:
    """Whether the last loss ends the test, because it is not finite or far above the lowest."""
    if not np.isfinite(losses[-1]):
        return True
    curve = smoothed(np.asarray(losses))
    return bool(len(losses) > 10 and curve[-1] > BROKEN * max(curve.min(), NOISE))


def find(rates: NDArray[np.float64], losses: NDArray[np.float64]) -> RateRange | None:
    """The range of useful learning rates; None if the loss never fell.

    The range begins where a tenth of the fall is done, counted back from the lowest loss, because batches differ by
    chance before the fall. It ends at a third of the rate of the lowest loss, since training diverges at higher rates.
    """
    curve = smoothed(losses[np.isfinite(losses)])
    best = int(curve.argmin())
    if best == 0:
        return None
    slopes = np.gradient(curve[: best + 1])
    start = float(np.median(curve[: slopes.argmin() + 1]))
    fall = start - curve[best]
    if fall < LEAST_FALL * start:
        return None
    begun = int(np.flatnonzero(curve[:best] > start - BEGUN * fall).max(initial=0))
    high = rates[best] / MARGIN
    low = min(rates[begun], high / 10)
    is_inside = (rates[: best + 1] >= low) & (rates[: best + 1] <= high)
    steepest = int(np.where(is_inside, slopes, np.inf).argmin())
    return RateRange(float(low), float(high), float(np.clip(rates[steepest], low, high)))
