"""The pictures of a run: learning curves, confusion, reliability. Values in, figures out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, FROST, EARTH = "#1f2933", "#2878b5", "#c8651b"
NAMED_CLASSES = 40  # beyond it, names on the axes can't be read


def learning_curves(history: pd.DataFrame) -> Figure:
    """Loss and accuracy by step, training and validation, with the start of each later phase marked."""
    from matplotlib.ticker import MaxNLocator

    fig = figure(9, 3.6)
    for place, name in enumerate(("loss", "accuracy"), 1):
        axes = fig.add_subplot(1, 2, place)
        axes.plot(history["step"], history[name], color=EARTH, label="train", marker=".", lw=1.2)
        axes.plot(history["step"], history[f"val_{name}"], color=FROST, label="validation", marker=".", lw=1.6)
        for _, rows in history.groupby("phase", sort=False):
            start = rows["step"].iat[0]
            axes.axvline(start - 0.5, color=INK, lw=0.6, ls=":")
            axes.annotate(
                rows["phase"].iat[0], (start - 0.5, 1.01), xycoords=("data", "axes fraction"), fontsize=8, color=INK
            )
        axes.set_xlabel("step (epochs over both phases)")
        axes.set_ylabel(name)
        axes.legend(frameon=False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return fig


def confusion(counts: NDArray[np.int64], classes: tuple[str, ...]) -> Figure:
    """Shares of each true class by predicted class, with the counts written in where they can be read."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(0.42 * len(classes) + 2, 4, 16))
    fig = figure(side, side)
    axes = fig.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(classes) <= NAMED_CLASSES:
        turn = 90 if max(map(len, classes)) > 2 else 0
        axes.set_xticks(range(len(classes)), classes, rotation=turn, parse_math=False)  # a class may be called $5^$
        axes.set_yticks(range(len(classes)), classes, parse_math=False)
        for row, column in zip(*np.nonzero(counts), strict=True):
            color = "white" if shares[row, column] > 0.5 else INK
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=color, fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    return fig


def reliability(table: pd.DataFrame, ece: float) -> Figure:
    """Accuracy against confidence; area of a dot: pictures in its bin."""
    fig = figure(4.4, 4.2)
    axes = fig.add_subplot()
    axes.plot([0, 1], [0, 1], color=INK, lw=0.8, ls="--")
    sizes = 20 + 300 * table["count"] / table["count"].sum()
    axes.plot(table["confidence"], table["accuracy"], color=FROST, lw=1)
    axes.scatter(table["confidence"], table["accuracy"], sizes, color=FROST, alpha=0.8, edgecolor="white")
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence", ylabel="accuracy", title=f"ECE {ece:.3f}")
    return fig


def figure(width: float, height: float) -> Figure:
    """A figure in inches that needs no display and no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure((width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(fig)
    return fig
