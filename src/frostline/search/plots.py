"""The plots of a sweep: its history, what mattered, and the metric against every key and the freeze depth.

`trials` has one row a trial in order of `number` (int), with `state` (complete, pruned, failed or running), `value`
(the metric of a completed trial, the last one seen of a pruned trial, NaN of a failed one) and one column for each
searched key under its dotted name. Running trials are not drawn.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from frostline.core import labels
from frostline.evaluation.plots import EARTH, FROST, INK, figure
from frostline.search import lr_range

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EARLY = "#b5d3ea"  # of the first trial, where colour tells the number; the last is INK
DOT = 18  # points², the area of a trial's mark
BOX = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1}  # of a text over marks
LEGEND: dict[str, Any] = {"loc": "outside upper center", "ncols": 4, "frameon": False, "fontsize": 8}
FLAT = 0.05  # of the highest loss: a curve that falls by less is shown from 0 on
FENCE = 4  # see `_fence`
LETTER = 4.9  # points, the width of a letter of a tick's name
SLICE = 2.6  # inches, the width of the axes of a key
LONGEST_KEY = 40  # letters, of the name of a key


def history(trials: pd.DataFrame, metric: str, maximize: bool) -> Figure:
    """The metric by trial number, and the best completed so far."""
    from matplotlib.ticker import MaxNLocator

    trials = trials[trials["state"] != "running"]
    numbers = trials["number"].to_numpy()
    fig = figure(7.6, 4)
    axes = fig.add_subplot()
    note = _draw(axes, numbers, trials, maximize, FROST)
    values = trials["value"].where(trials["state"] == "complete")
    if values.notna().any():
        best = (values.cummax() if maximize else values.cummin()).ffill()
        axes.step(numbers, best, where="post", color=INK, lw=1.2, label="best so far")
    axes.set_xlabel("trial")
    axes.set_ylabel(metric, parse_math=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    fig.legend(*axes.get_legend_handles_labels(), title=note, title_fontsize=8, **LEGEND)
    return fig


def importance(shares: Mapping[str, float]) -> Figure:
    """Each key's share (0 to 1) of the importance, the most important on top."""
    keys = sorted(shares, key=lambda key: shares[key])
    names = labels.labels(keys, LONGEST_KEY)
    fig = figure(4.4 + 0.09 * max(map(len, names), default=0), 1 + 0.34 * max(len(shares), 3))
    axes = fig.add_subplot()
    bars = axes.barh(range(len(keys)), [shares[key] for key in keys], color=FROST, height=0.65)
    axes.bar_label(bars, fmt="{:.2f}", padding=4, fontsize=9, color=INK)
    axes.set_yticks(range(len(keys)), names, parse_math=False)
    axes.margins(x=0.12)  # room for the labels
    axes.set(xlim=(0, None), xlabel="importance (share)")
    axes.spines[["top", "right"]].set_visible(False)
    if not keys:
        _say_unfinished(axes)
    return fig


def slices(
    trials: pd.DataFrame,
    keys: Sequence[str],
    logarithmic: Collection[str],
    ordered: Mapping[str, Sequence[Any]],
    metric: str,
    maximize: bool,
) -> Figure:
    """The metric against each of `keys`, later trials darker.

    logarithmic: keys with a logarithmic axis; ordered: the choices of keys that have some, in the order of the axis.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize
    from matplotlib.ticker import MaxNLocator

    trials = trials[trials["state"] != "running"]
    columns, rows = min(len(keys), 3), -(-len(keys) // 3)
    names = {key: labels.labels([str(choice) for choice in choices]) for key, choices in ordered.items()}
    below = [_turned_inches(names[key], SLICE) for key in keys if key in ordered]
    fig = figure((SLICE + 0.5) * columns + 1.2, (2.9 + max(below, default=0)) * rows)
    grid = fig.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    numbers = trials["number"].to_numpy()
    shading = LinearSegmentedColormap.from_list("trials", [EARLY, FROST, INK])
    colors = ScalarMappable(Normalize(0, numbers.max(initial=1)), shading)
    for axes, key in zip(grid, keys, strict=False):
        x = _places(ordered[key], trials[key]) if key in ordered else trials[key].to_numpy(float)
        if key in ordered:
            _name_ticks(axes, names[key], SLICE)
        elif key in logarithmic:
            _use_decades(axes, x)
        note = _draw(axes, x, trials, maximize, colors.to_rgba(numbers))
        axes.set_xlabel(labels.label(key, LONGEST_KEY), parse_math=False)
    for axes in grid[::columns]:
        axes.set_ylabel(metric, parse_math=False)
    for axes in grid[len(keys) :]:
        axes.remove()
    fig.colorbar(colors, ax=grid[: len(keys)], ticks=MaxNLocator(integer=True, min_n_ticks=1), label="trial", aspect=30)
    fig.legend(*grid[0].get_legend_handles_labels(), title=note, title_fontsize=8, **LEGEND)
    return fig


def frost_line(
    trials: pd.DataFrame, key: str, cuts: Sequence[tuple[str, float]], metric: str, maximize: bool
) -> Figure:
    """The best metric at each freeze depth over the share of parameters that stands still there.

    key: the column of the depth; cuts: its values as text and the share frozen (0 to 1), from shallow to deep. Trials
    at other depths are left out.
    """
    trials = trials[trials["state"] != "running"]
    shares = [share for _, share in cuts]
    depths = _places([cut for cut, _ in cuts], trials[key].map(str))
    trials, depths = trials[~np.isnan(depths)], depths[~np.isnan(depths)]
    width = min(0.26 * len(cuts) + 5, 18)
    counts = np.bincount(depths.astype(int), minlength=len(cuts))
    names = [f"{name}\nn={n}" for name, n in zip(labels.labels([cut for cut, _ in cuts]), counts, strict=True)]
    fig = figure(width, 4 + _turned_inches(names, width - 1.6))
    axes = fig.add_subplot()
    frozen = axes.twinx()
    frozen.stairs(shares, np.arange(len(cuts) + 1) - 0.5, fill=True, color=EARTH, alpha=0.13)
    frozen.set_ylim(0, 1)
    frozen.yaxis.set_major_formatter("{x:.0%}")
    frozen.set_ylabel("parameters frozen", color=EARTH)
    frozen.tick_params(axis="y", colors=EARTH)
    axes.set_zorder(frozen.get_zorder() + 1)  # the trials before the area; a twin lies on top otherwise
    axes.patch.set_visible(False)
    note = _draw(axes, depths, trials, maximize, (FROST, 0.5))
    completed = (trials["state"] == "complete").to_numpy() & np.isfinite(trials["value"])
    if completed.any():
        groups = trials["value"][completed].groupby(depths[completed])
        best = groups.max() if maximize else groups.min()
        depth = best.idxmax() if maximize else best.idxmin()
        axes.plot(best.index, best, color=FROST, lw=2, marker="o", ms=5, label="best completed")
        axes.axvline(depth, color=INK, lw=0.8, ls=":", zorder=1)
        axes.plot(depth, best[depth], marker="o", ms=10, mfc="none", mec=INK, mew=1.6, ls="none")
        shift, va = (9, "bottom") if maximize else (-9, "top")
        text = axes.annotate(f"best {best[depth]:.4g}", (depth, best[depth]), (0, shift), textcoords="offset points")
        text.set(ha="center", va=va, color=INK, fontweight="bold", bbox=BOX)
    _name_ticks(axes, names, width - 1.6)
    axes.set_xlabel(key, parse_math=False)
    axes.set_ylabel(metric, parse_math=False)
    fig.legend(*axes.get_legend_handles_labels(), title=note, title_fontsize=8, **LEGEND)
    return fig


def learning_rates(rates: NDArray[np.float64], losses: NDArray[np.float64], span: lr_range.RateRange | None) -> Figure:
    """Loss against learning rate, with the range that is worth searching. rates, losses: float (steps,)."""
    fig = figure(7, 4)
    axes = fig.add_subplot()
    many = int(np.isfinite(losses).sum())
    curve = lr_range.smoothed(losses[:many])
    axes.plot(rates[:many], losses[:many], color=EARTH, lw=0.6, alpha=0.5, label="each batch")
    axes.plot(rates[:many], curve, color=EARTH, lw=1.8, label="smoothed")
    axes.set_xscale("log")
    spread = max(curve[0], np.median(losses[:many])) - curve.min()
    if spread > FLAT * curve.max():
        axes.set_ylim(max(0.0, curve.min() - 0.3 * spread), curve.min() + 2.5 * spread)
    else:
        axes.set_ylim(0.0, 1.1 * losses[:many].max())
    if span is not None:
        label = f"worth searching: {span.low:.1e} to {span.high:.1e}"
        axes.axvspan(span.low, span.high, color=FROST, alpha=0.15, lw=0, label=label)
        axes.axvline(span.steepest, color=FROST, lw=1, ls="--", label=f"falls fastest: {span.steepest:.1e}")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    axes.legend(frameon=False)
    return fig


def _fence(trials: pd.DataFrame, maximize: bool) -> float:
    """The worst value that the axis has to hold, so that one collapsed or diverged trial can't squash the others.

    It is FENCE times as far from the best as the worse quartile of the completed trials, so that a quarter of them at
    most lies beyond. Without a spread to go by there is no fence.
    """
    seen = np.isfinite(trials["value"])
    completed = seen & (trials["state"] == "complete")
    gains = trials["value"][completed if completed.any() else seen] * (1 if maximize else -1)
    best, quartile = (gains.max(), np.quantile(gains, 0.25, method="higher")) if len(gains) else (0, 0)
    fence = best - FENCE * (best - quartile) if quartile < best else -np.inf
    return float(fence if maximize else -fence)


def _draw(axes: Axes, x: NDArray[Any], trials: pd.DataFrame, maximize: bool, colors: Any) -> str:
    """A dot for each trial with a value, a triangle at the edge for one beyond the fence, a cross for a failed one.

    colors: one for all trials or one each. Returns a note on the trials beyond the fence, empty if there are none.
    """
    from matplotlib.colors import to_rgba_array

    y, state, fence = trials["value"].to_numpy(float), trials["state"].to_numpy(), _fence(trials, maximize)
    shades = np.broadcast_to(to_rgba_array(colors), (len(y), 4))
    beyond = np.isin(state, ("complete", "pruned")) & (y < fence if maximize else y > fence)
    at_edge, marker, edge = axes.get_xaxis_transform(), *(("v", 0.08) if maximize else ("^", 0.955))
    axes.update_datalim(np.column_stack([x, np.zeros(len(x))]), updatey=False)  # marks at the edge count for x too
    for name, label in (("complete", "completed"), ("pruned", "pruned")):
        for these, heights, style in (
            (state == name, np.where(beyond, np.nan, y), {"label": label}),
            ((state == name) & beyond, np.full(len(y), edge), {"marker": marker, "transform": at_edge}),
        ):
            if these.any():
                face = shades[these] if name == "complete" else "none"
                axes.scatter(x[these], heights[these], DOT, facecolors=face, edgecolors=shades[these], lw=0.9, **style)
    if (failed := state == "failed").any():
        crosses = np.full(failed.sum(), 0.03)
        axes.scatter(x[failed], crosses, DOT, INK, marker="x", lw=0.9, transform=at_edge, label="failed")
    held = y[np.isfinite(y) & ~beyond]
    if len(held):
        room = 0.18 * (np.ptp(held) or 0.1 * abs(held[0]) or 1)
        axes.set_ylim(held.min() - room, held.max() + room)
        axes.ticklabel_format(axis="y", useOffset=False)
    else:
        axes.set_yticks([])
    if not (state == "complete").any():
        _say_unfinished(axes)
    if not beyond.any():
        return ""
    where, worst = ("▼ below", y[beyond].min()) if maximize else ("▲ above", y[beyond].max())
    return f"{where} the axis: {beyond.sum()} of {len(y)} trials, the farthest at {worst:.3g}"


def _places(choices: Sequence[Any], column: pd.Series) -> NDArray[np.float64]:
    """Where in `choices` each value stands; NaN for one that is none of them."""
    places = pd.Index(list(choices), dtype=object).get_indexer(column)
    return np.where(places < 0, np.nan, places)


def _use_decades(axes: Axes, values: NDArray[np.float64]) -> None:
    """A logarithmic axis over whole decades, because names between the decades would touch."""
    from matplotlib.ticker import NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter(NullFormatter())
    if len(values):
        low, high = np.floor(np.log10(values.min())), np.ceil(np.log10(values.max()))
        axes.set_xlim(0.8 * 10**low, 1.25 * 10 ** max(high, low + 1))


def _turned_inches(names: Sequence[str], inches: float) -> float:
    """How far down the names of ticks reach if they are turned, 0 if they fit on an axis of so many inches as they are.

    Turned ones are in one line, because two would touch a neighbour's.
    """
    room = 72 * inches / len(names) - 6
    if max(len(line) for name in names for line in name.split("\n")) * LETTER <= room:
        return 0
    return max(map(len, names)) * LETTER / 72


def _name_ticks(axes: Axes, names: Sequence[str], inches: float) -> None:
    """Ticks at 0, 1, ... on an axis of about so many inches, turned if they would touch."""
    turned = _turned_inches(names, inches) > 0
    texts = [name.replace("\n", "  ") for name in names] if turned else names
    step = int(np.ceil(11 * len(names) / (72 * inches)))  # where even turned ones would touch, some are left out
    axes.set_xticks(range(0, len(names), step), texts[::step], rotation=90 * turned, fontsize=8, parse_math=False)
    axes.set_xlim(-0.5, len(names) - 0.5)


def _say_unfinished(axes: Axes) -> None:
    axes.text(0.5, 0.5, "no finished trial", transform=axes.transAxes, ha="center", va="center", color=INK, bbox=BOX)
