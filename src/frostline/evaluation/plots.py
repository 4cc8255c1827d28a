"""The figures of a run: learning curves, confusion, reliability, ROC and precision-recall, the mistakes.

Functions take values and return figures, and `save` writes them. Class names are shown as `core.labels` has them, and
are never parsed as mathematics: a class may be called $5^$.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from frostline.core import fonts, labels
from frostline.data.images import Pixels

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curves = NDArray[np.float64]

INK, FROST, EARTH = "#1f2933", "#2878b5", "#c8651b"
NAMED_CLASSES = 40  # at most; more names on the axes are unreadable
DRAWN_CURVES = 20  # at most; for more classes, a band shows the range of their curves
FEW_CLASSES = 6  # whose confusion matrix has room for larger numbers
MISTAKES_A_ROW = 4


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
    """The confusion matrix: each cell has the count and the share of the true class, which is also its colour.

    Of more than 40 classes, it shows the 40 with the most frequent confusions.
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names, title = labels.labels(classes), "Images, and their share of the true class"
    if len(classes) > NAMED_CLASSES:
        numbers = _most_confused(counts)
        title = f"{title}: the {NAMED_CLASSES} of {len(classes):,} classes that are most often confused"
        counts, shares = counts[np.ix_(numbers, numbers)], shares[np.ix_(numbers, numbers)]
        names = [names[number] for number in numbers]
    side = max(4.4, 0.5 * len(names) + 2.2)
    fig = figure(side, side)
    axes = fig.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    turn = 90 if max(map(len, names)) > 2 else 0
    axes.set_xticks(range(len(names)), names, rotation=turn, parse_math=False)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    size = 11 if len(names) <= FEW_CLASSES else 8
    for row, column in zip(*np.nonzero(counts), strict=True):
        share = shares[row, column]
        text = f"{counts[row, column]}\n{_percent(share)}"
        color = "white" if share > 0.5 else INK
        axes.text(column, row, text, ha="center", va="center", color=color, fontsize=size)
    edges = np.arange(1, len(names)) - 0.5
    axes.hlines(edges, -0.5, len(names) - 0.5, color=INK, lw=0.3, alpha=0.2)
    axes.vlines(edges, -0.5, len(names) - 0.5, color=INK, lw=0.3, alpha=0.2)
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_title(title, fontsize=10, color=INK)
    return fig


def _most_confused(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers of the classes with the most frequent confusions, NAMED_CLASSES of them, in label order."""
    wrong = counts - np.diag(np.diagonal(counts))
    pairs = np.argwhere(wrong)
    pairs = pairs[np.argsort(-wrong[tuple(pairs.T)], kind="stable")]
    return np.sort(list(dict.fromkeys([*pairs.ravel(), *range(len(counts))]))[:NAMED_CLASSES])


def _percent(share: float) -> str:
    """A share above 0 in percent. It says 100% only of all, and 0% of nothing."""
    return "<1%" if share < 0.005 else ">99%" if 0.995 < share < 1 else f"{share:.0%}"


def reliability(table: pd.DataFrame, ece: float) -> Figure:
    """Accuracy and its interval against confidence. Each row of the table is a bin; the area of its dot is the share of
    images in it."""
    fig = figure(4.4, 4.8)
    axes = fig.add_subplot()
    axes.plot([0, 1], [0, 1], color=INK, lw=0.8, ls="--", label="perfect calibration")
    sizes = 20 + 300 * table["count"] / table["count"].sum()
    axes.vlines(
        table["confidence"],
        table["low"],
        table["high"],
        color=FROST,
        lw=1,
        alpha=0.6,
        label="95% interval of the accuracy",
    )
    axes.scatter(
        table["confidence"],
        table["accuracy"],
        sizes,
        color=FROST,
        alpha=0.8,
        edgecolor="white",
        label="images of like confidence; area: their share",
    )
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence", ylabel="accuracy")
    axes.set_title(f"expected calibration error {ece:.3f}")
    for handle in fig.legend(loc="outside lower center", frameon=False, fontsize=8).legend_handles:
        if handle is not None and hasattr(handle, "set_sizes"):
            handle.set_sizes([40])  # not the area of the first bin
    return fig


def roc(rates: Curves, grid: Curves, names: list[str], areas: NDArray[np.float64]) -> Figure:
    """ROC curves. rates: true positive rates, one row for each class that could be ranked; grid: false positive rates;
    areas: the area of each curve. One curve is that of the positive class of two."""
    fig, axes = _curves(rates, grid, names, "ROC AUC", areas)
    axes.plot([0, 1], [0, 1], color=INK, lw=0.8, ls="--")
    axes.set(xlabel="false positive rate", ylabel="true positive rate")
    return fig


def precision_recall(precisions: Curves, grid: Curves, names: list[str], areas: NDArray[np.float64]) -> Figure:
    """Precision-recall curves. precisions: one row for each class that could be ranked; grid: recalls; areas: the
    average precision of each curve. One curve is that of the positive class of two."""
    fig, axes = _curves(precisions, grid, names, "average precision", areas)
    axes.set(xlabel="recall", ylabel="precision")
    return fig


def risk_coverage(curve: pd.DataFrame, area: float) -> Figure:
    """The error among the surest answers. curve: coverage and risk, see `promises.risk_coverage`; area: under it."""
    fig = figure(5, 4)
    axes = fig.add_subplot()
    axes.plot(curve["coverage"], curve["risk"], color=FROST, lw=1.8, label=f"area {area:.4f}")
    axes.axhline(curve["risk"].iat[-1], color=INK, lw=0.8, ls="--", label="all images answered")
    axes.set(xlabel="share of images that are answered, the surest first", ylabel="share of wrong answers")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, max(0.02, 1.15 * curve["risk"].max()))
    axes.legend(frameon=False)
    return fig


def mistakes(images: Pixels, overlays: Pixels, captions: list[str], title: str) -> Figure:
    """Images, each beside its overlay, from left to right, row by row.

    Both: uint8 (n, size, size, 3), n at least 1; captions: three short lines each.
    """
    columns = min(MISTAKES_A_ROW, len(images))
    rows = -(-len(images) // columns)
    width = max(2.75, 7 / columns)  # of a panel
    fig = figure(width * columns, (width / 2 + 0.55) * rows + 0.6)
    fig.set_layout_engine("constrained", wspace=0.06, hspace=0.03)
    fig.suptitle(title, fontsize=10, color=INK)
    gap = np.full((images.shape[1], max(1, images.shape[2] // 32), 3), 255, np.uint8)
    panels = fig.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.set_axis_off()
    for axes, image, overlay, caption in zip(panels, images, overlays, captions, strict=False):
        axes.imshow(np.concatenate([image, gap, overlay], axis=1), interpolation="nearest")
        axes.set_title(caption, fontsize=8, color=INK, loc="left", parse_math=False)
    return fig


def _curves(
    curves: Curves, grid: Curves, names: list[str], area: str, areas: NDArray[np.float64]
) -> tuple[Figure, Axes]:
    """One line for each class, and their mean; for more than DRAWN_CURVES classes, the range of 90% of the curves
    instead of the lines."""
    fig = figure(6.4, 4.2)
    axes = fig.add_subplot()
    axes.set(xlim=(-0.01, 1.01), ylim=(0, 1.02))
    texts = labels.labels(names)
    if not texts:
        axes.text(0.5, 0.8, "needs two classes in the test split", ha="center", color=INK)
        return fig, axes
    if len(texts) == 1:
        axes.plot(grid, curves[0], color=FROST, lw=2)
        axes.set_title(f"{area} {areas[0]:.3f}, positive class: {texts[0]}", parse_math=False)
        return fig, axes
    if len(texts) <= DRAWN_CURVES:
        from matplotlib import colormaps

        colors = colormaps["tab10" if len(texts) <= 10 else "tab20"]

        for number, (curve, text) in enumerate(zip(curves, texts, strict=True)):
            axes.plot(grid, curve, color=colors(number), lw=1.2, label=f"{text} {areas[number]:.3f}")
    else:
        low, high = np.quantile(curves, [0.05, 0.95], axis=0)
        axes.fill_between(grid, low, high, color=FROST, alpha=0.25, lw=0, label="nine in ten classes")
    axes.plot(grid, curves.mean(axis=0), color=INK, lw=2, label=f"macro average {areas.mean():.3f}")
    axes.set_title(f"{area} {areas.mean():.3f} (macro average)")
    legend = fig.legend(loc="outside right upper", frameon=False, fontsize=8)
    for line in legend.get_texts():
        line.set_parse_math(False)
    return fig, axes


def figure(width: float, height: float) -> Figure:
    """A figure that needs no display and no global state. width, height: in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure((width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(fig)
    return fig


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG, with fonts that have all its characters."""
    from matplotlib.text import Text

    texts = [text for text in figure.findobj(Text) if isinstance(text, Text)]
    families = fonts.installed().families("".join(text.get_text() for text in texts))
    for text in texts if len(families) > 1 else ():
        text.set_fontfamily(families)
    figure.savefig(path)
