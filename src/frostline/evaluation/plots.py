"""The figures of a run: learning curves, confusion, reliability, ROC and precision-recall, the worst mistakes.

Functions take values and return figures. Class names are never parsed as mathematics: a class may be called $5^$.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from frostline.core.escaping import printable
from frostline.data.images import Pixels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curves = NDArray[np.float64]

INK, FROST, EARTH = "#1f2933", "#2878b5", "#c8651b"
NAMED_CLASSES = 40  # at most; more names on the axes are unreadable
DRAWN_CURVES = 20  # at most; for more classes, a band shows the range of their curves
MISTAKES_A_ROW = 4
LONGEST_NAME = 24


def learning_curves(history: pd.DataFrame) -> Figure:
    """Loss and accuracy by step, for training and validation. Dotted lines mark the start of each phase and, in blue,
    the steps at which more of the backbone thaws."""
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
            if "frozen_layers" in rows:
                for step in rows["step"][rows["frozen_layers"].diff() < 0]:
                    axes.axvline(step - 0.5, color=FROST, lw=0.6, ls=":", label=None)
        axes.set_xlabel("step (epochs over both phases)")
        axes.set_ylabel(name)
        axes.legend(frameon=False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return fig


def confusion(counts: NDArray[np.int64], classes: tuple[str, ...]) -> Figure:
    """The confusion matrix: the colour is the share of the true class, the text the count.

    Of more than 40 classes, it shows the 40 with the most frequent confusions.
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    title = None
    if len(classes) > NAMED_CLASSES:
        wrong = counts - np.diag(np.diagonal(counts))
        pairs = np.argwhere(wrong)
        pairs = pairs[np.argsort(-wrong[tuple(pairs.T)], kind="stable")]
        numbers = np.sort(list(dict.fromkeys([*pairs.ravel(), *range(len(classes))]))[:NAMED_CLASSES])
        title = f"The {NAMED_CLASSES} of {len(classes):,} classes that are most often confused with one another"
        counts, shares = counts[np.ix_(numbers, numbers)], shares[np.ix_(numbers, numbers)]
        classes = tuple(classes[number] for number in numbers)
    names = [_short(name) for name in classes]
    side = float(np.clip(0.42 * len(names) + 2, 4, 16))
    fig = figure(side, side)
    axes = fig.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    turn = 90 if max(map(len, names)) > 2 else 0
    axes.set_xticks(range(len(names)), names, rotation=turn, parse_math=False)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    for row, column in zip(*np.nonzero(counts), strict=True):
        color = "white" if shares[row, column] > 0.5 else INK
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=color, fontsize=8)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    return fig


def reliability(table: pd.DataFrame, ece: float) -> Figure:
    """Accuracy and its interval against confidence. Each row of the table is a bin; the area of its dot is the share of
    images in it."""
    fig = figure(4.4, 4.2)
    axes = fig.add_subplot()
    axes.plot([0, 1], [0, 1], color=INK, lw=0.8, ls="--")
    sizes = 20 + 300 * table["count"] / table["count"].sum()
    axes.vlines(table["confidence"], table["low"], table["high"], color=FROST, lw=1, alpha=0.6)
    axes.scatter(table["confidence"], table["accuracy"], sizes, color=FROST, alpha=0.8, edgecolor="white")
    axes.set(
        xlim=(0, 1.02),
        ylim=(0, 1.02),
        xlabel="confidence",
        ylabel="accuracy",
        title=f"expected calibration error {ece:.3f}",
    )
    return fig


def roc(rates: Curves, grid: Curves, names: list[str], macro: float | None) -> Figure:
    """ROC curves. rates: true positive rates, one row for each class that could be ranked; grid: false positive rates;
    macro: the mean area, None if no class could be ranked."""
    fig, axes = _curves(rates, grid, names, "ROC AUC", macro)
    axes.plot([0, 1], [0, 1], color=INK, lw=0.8, ls="--")
    axes.set(xlabel="false positive rate", ylabel="true positive rate")
    return fig


def precision_recall(precisions: Curves, grid: Curves, names: list[str], macro: float | None) -> Figure:
    """Precision-recall curves. precisions: one row for each class that could be ranked; grid: recalls; macro: the mean
    average precision, None if no class could be ranked."""
    fig, axes = _curves(precisions, grid, names, "average precision", macro)
    axes.set(xlabel="recall", ylabel="precision")
    return fig


def mistakes(images: Pixels, overlays: Pixels, captions: list[str], title: str) -> Figure:
    """Images, each beside its overlay. Both: uint8 (n, size, size, 3), n at least 1; captions: two short lines each."""
    rows = -(-len(images) // MISTAKES_A_ROW)
    fig = figure(11, 1.7 * rows + 0.5)
    fig.set_layout_engine("constrained", wspace=0.06, hspace=0.03)
    fig.suptitle(title, fontsize=11, color=INK)
    gap = np.full((images.shape[1], max(1, images.shape[2] // 32), 3), 255, np.uint8)
    panels = fig.subplots(rows, MISTAKES_A_ROW, squeeze=False).ravel()
    for axes in panels:
        axes.set_axis_off()
    for axes, image, overlay, caption in zip(panels, images, overlays, captions, strict=False):
        axes.imshow(np.concatenate([image, gap, overlay], axis=1), interpolation="nearest")
        axes.set_title(caption, fontsize=8, color=INK, loc="left", parse_math=False)
    return fig


def caption(true: str, predicted: str, probability: float) -> str:
    """Two lines: the true class of an image, and the predicted class with its probability."""
    return f"true: {_short(true)}\npredicted: {_short(predicted)} ({probability:.2f})"


def _curves(curves: Curves, grid: Curves, names: list[str], area: str, macro: float | None) -> tuple[Figure, Axes]:
    """The mean of the curves, and one line for each class; for more than DRAWN_CURVES classes, the range of 90% of
    the curves instead of the lines."""
    fig = figure(6.4, 4.2)
    axes = fig.add_subplot()
    axes.set(xlim=(-0.01, 1.01), ylim=(0, 1.02))
    if macro is None:
        axes.text(0.5, 0.8, "needs two classes in the test split", ha="center", color=INK)
        return fig, axes
    if len(names) <= DRAWN_CURVES:
        from matplotlib import colormaps

        for number, (curve, name) in enumerate(zip(curves, names, strict=True)):
            axes.plot(grid, curve, color=colormaps["tab20"](number), lw=0.9, label=_short(name))
    else:
        low, high = np.quantile(curves, [0.05, 0.95], axis=0)
        axes.fill_between(grid, low, high, color=FROST, alpha=0.25, lw=0, label="nine in ten classes")
    axes.plot(grid, curves.mean(axis=0), color=INK, lw=2, label="macro average")
    axes.set_title(f"{area} {macro:.3f} (macro)")
    legend = fig.legend(loc="outside right upper", frameon=False, fontsize=8)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return fig, axes


def _short(name: str) -> str:
    name = printable(name)
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def figure(width: float, height: float) -> Figure:
    """A figure that needs no display and no global state. width, height: in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure((width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(fig)
    return fig
