"""The picture of `frostline choose`: what each depth of each body is worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from frostline.choice.verdict import BodyProbe, Verdict
from frostline.core import labels
from frostline.evaluation.plots import EARTH, FROST, INK, figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OTHERS = ("#5b8c5a", "#8d6cab", "#b0528c", "#4a9ca6", "#a08040", "#7f7f7f")
MOST = 8  # bodies that are drawn


def curves(bodies: Sequence[BodyProbe], floors: Sequence[tuple[str, float]], verdict: Verdict) -> Figure:
    """The cross-validated accuracy of ridge regression over the share of a body's compute, with 95% intervals for the
    recommended body, floors as dashed lines and a star on each body's best depth."""
    ranked = sorted(bodies, key=lambda each: -each.best.ridge.accuracy)[:MOST]
    colors = iter(OTHERS * 2)
    fig = figure(7.6, 4.6)
    axes = fig.add_subplot()
    for body in ranked:
        is_picked = body is verdict.body
        color = FROST if is_picked else next(colors)
        shares = [depth.share for depth in body.depths]
        values = [depth.ridge.accuracy for depth in body.depths]
        label = labels.label(body.candidate.name, 40) + (" (recommended)" if is_picked else "")
        axes.plot(shares, values, color=color, lw=2.2 if is_picked else 1.2, marker=".", label=label)
        if is_picked:
            bounds = [depth.ridge.interval for depth in body.depths]
            axes.fill_between(shares, [low for low, _ in bounds], [high for _, high in bounds], color=color, alpha=0.15)
        axes.plot([body.best.share], [body.best.ridge.accuracy], marker="*", ms=12, color=color, mec="white")
    for (name, value), style in zip(floors, ("--", ":", "-."), strict=False):
        axes.axhline(value, color=EARTH, lw=1, ls=style, label=name)
    best = verdict.body.best
    axes.annotate(
        best.layer, (best.share, best.ridge.accuracy), (0, 9), textcoords="offset points", ha="right", color=INK
    )
    axes.set_xlabel("depth, as the share of the body's compute below it")
    axes.set_ylabel("accuracy of a linear probe, cross-validated")
    axes.set_xlim(0, 1.02)
    fig.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=8)
    return fig
