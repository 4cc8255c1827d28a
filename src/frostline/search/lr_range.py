"""The learning-rate range test: train a batch at each of rising rates; see where the loss falls and where it breaks.

Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017, section 3.3; the rates rise exponentially,
as in fastai's `lr_find`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from frostline.evaluation import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMOOTHING = 3.0  # standard deviation in steps
BROKEN = 4.0  # times the best loss so far end the test
BEGUN = 0.1  # of the whole fall: the loss has begun to fall
LEAST_FALL = 0.03  # as a share of the loss before it
MARGIN = 3.0  # between the highest rate of the range and that of the lowest loss


@dataclass(frozen=True)
class RateRange:
    """Learning rates worth searching; steepest: where the loss fell fastest over the rate's logarithm."""

    low: float
    high: float
    steepest: float


def rates(low: float, high: float, steps: int) -> NDArray[np.float64]:
    """`steps` learning rates from low to high, evenly in their logarithm."""
    return np.geomspace(low, high, steps)


def smoothed(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of each loss and its neighbours on both sides, by a Gaussian: one of those so far would lag behind."""
    from scipy.ndimage import gaussian_filter1d

    return np.asarray(gaussian_filter1d(losses, SMOOTHING, mode="nearest"))


def is_over(losses: list[float]) -> bool:
    """Whether the last loss ends the test: no number, or far from the best."""
    if not np.isfinite(losses[-1]):
        return True
    curve = smoothed(np.asarray(losses))
    return bool(len(losses) > 10 and curve[-1] > BROKEN * curve.min())


def find(tried: NDArray[np.float64], losses: NDArray[np.float64]) -> RateRange | None:
    """The range in which training pays; None where the loss never fell.

    It begins where a tenth of the fall is done, seen from the lowest loss back, for before the fall batches differ by
    chance; and it ends at a third of the rate of the lowest loss, behind which training breaks.
    """
    curve = smoothed(losses[np.isfinite(losses)])
    best = int(curve.argmin())
    if best == 0:
        return None
    steepest = int(np.gradient(curve[: best + 1]).argmin())
    start = float(np.median(curve[: steepest + 1]))
    fall = start - curve[best]
    if fall < LEAST_FALL * start:
        return None
    begun = int(np.flatnonzero(curve[:best] > start - BEGUN * fall).max(initial=0))
    high = tried[best] / MARGIN
    return RateRange(float(min(tried[begun], high / 10)), float(high), float(tried[steepest]))


def figure(tried: NDArray[np.float64], losses: NDArray[np.float64], found: RateRange | None) -> Figure:
    """Loss against learning rate, with the range."""
    fig = plots.figure(7, 4)
    axes = fig.add_subplot()
    many = int(np.isfinite(losses).sum())
    curve = smoothed(losses[:many])
    axes.plot(tried[:many], losses[:many], color=plots.EARTH, lw=0.6, alpha=0.5, label="each batch")
    axes.plot(tried[:many], curve, color=plots.EARTH, lw=1.8, label="smoothed")
    axes.set_xscale("log")
    spread = max(curve[0], np.median(losses[:many])) - curve.min()
    axes.set_ylim(max(0.0, curve.min() - 0.3 * spread), curve.min() + 2.5 * max(spread, 1e-6))
    if found is not None:
        label = f"worth searching: {found.low:.1e} to {found.high:.1e}"
        axes.axvspan(found.low, found.high, color=plots.FROST, alpha=0.15, lw=0, label=label)
        axes.axvline(found.steepest, color=plots.FROST, lw=1, ls="--", label=f"falls fastest: {found.steepest:.1e}")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    axes.legend(frameon=False)
    return fig
