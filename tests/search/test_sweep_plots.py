"""The images of a sweep say what its trials say, also when trials collapse, fail or are many."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest

from frostline.search import plots

FREEZE, RATE, BATCH = "finetune.freeze", "finetune.learning_rate", "finetune.batch_size"
CUTS = [("none", 0.0), ("block_3", 0.1), ("block_$6$", 0.4), ("all", 1.0)]
ORDERED: dict[str, list[Any]] = {FREEZE: [label for label, _ in CUTS], BATCH: [16, 32, 64]}
UNFINISHED = "no finished trial"


def make_trials(values, states="complete", depths=None, **columns):
    """Trials 0, 1, ... with these values, over the depths in turn."""
    count = len(values)
    depths = [CUTS[i % len(CUTS)][0] for i in range(count)] if depths is None else depths
    trials = {"number": range(count), "state": states, "value": values, "epochs": 3.0, "seconds": 9.0, FREEZE: depths}
    rest = {RATE: 10.0 ** -(1 + np.arange(count) % 5), BATCH: [16 * 2 ** (i % 3) for i in range(count)]}
    return pd.DataFrame({**trials, **rest, **columns})


def many(count, cuts, collapsed=0.1, seed=0):
    """Trials around 0.9, some pruned or failed; trial 3 has completed and collapsed."""
    rng = np.random.default_rng(seed)
    values, states = (
        rng.normal(0.9, 0.01, count),
        rng.choice(["complete", "pruned", "failed"], count, p=[0.6, 0.3, 0.1]),
    )
    states[:4] = "complete"
    values[states == "failed"], values[3] = np.nan, collapsed
    return make_trials(values, states, [cuts[i % len(cuts)][0] for i in range(count)])


def dots(axes, label):
    """Places of the marks with that label, as far as they are drawn."""
    (marks,) = [marks for marks in axes.collections if marks.get_label() == label]
    return np.ma.filled(np.ma.masked_invalid(marks.get_offsets()), np.nan)


def at_edge(axes):
    """How many triangles lie at the edge."""
    unnamed = [marks for marks in axes.collections if marks.get_label().startswith("_")]
    return sum(len(marks.get_offsets()) for marks in unnamed)


def line(axes, label):
    (drawn,) = [line for line in axes.get_lines() if line.get_label() == label]
    return drawn


def texts(axes):
    return [text.get_text() for text in axes.texts]


def ticks(axes):
    return [text.get_text() for text in axes.get_xticklabels()]


def note(figure):
    return figure.legends[0].get_title().get_text()


def every(trials, cuts, metric="val_accuracy", maximize=True):
    """All figures of trials, drawn in full."""
    ordered = {**ORDERED, FREEZE: [label for label, _ in cuts]}
    figures = [
        plots.history(trials, metric, maximize),
        plots.slices(trials, [FREEZE, RATE, BATCH], {RATE}, ordered, metric, maximize),
        plots.frost_line(trials, FREEZE, cuts, metric, maximize),
    ]
    for figure in figures:
        figure.canvas.draw()
    return figures


def boxes(figure, artists):
    return [artist.get_window_extent(figure.canvas.get_renderer()) for artist in artists]


def test_history_draws_each_state_and_the_best_completed_so_far():
    states = ["complete", "pruned", "complete", "failed", "complete", "running"]
    trials = make_trials([0.80, 0.95, 0.85, np.nan, 0.83, 0.99], states)
    (axes,) = plots.history(trials, "val_accuracy", maximize=True).axes
    assert dots(axes, "completed").tolist() == [[0, 0.80], [2, 0.85], [4, 0.83]]
    assert dots(axes, "pruned").tolist() == [[1, 0.95]]
    assert dots(axes, "failed")[:, 0].tolist() == [3]
    assert line(axes, "best so far").get_ydata().tolist() == [0.80, 0.80, 0.85, 0.85, 0.85]  # none of pruned, running
    assert axes.get_ylabel() == "val_accuracy"


def test_the_best_loss_is_the_least():
    trials = make_trials([0.5, 0.3, 0.4])
    (axes,) = plots.history(trials, "val_loss", maximize=False).axes
    assert line(axes, "best so far").get_ydata().tolist() == [0.5, 0.3, 0.3]
    trials[FREEZE] = ["none", "all", "all"]
    axes = plots.frost_line(trials, FREEZE, CUTS, "val_loss", maximize=False).axes[0]
    assert line(axes, "best completed").get_ydata().tolist() == [0.5, 0.3]
    assert texts(axes) == ["best 0.3"]
    assert axes.texts[0].xy == (3, 0.3)


def test_trials_at_other_depths_are_left_out():
    trials = make_trials([0.99, 0.8, 0.7], depths=["block_9", "all", np.nan])
    axes = plots.frost_line(trials, FREEZE, CUTS, "val_accuracy", maximize=True).axes[0]
    assert [name.split("=")[1] for name in ticks(axes)] == ["0", "0", "0", "1"]
    assert texts(axes) == ["best 0.8"]


def test_trials_that_failed_at_the_end_are_within_the_axis():
    trials = make_trials([0.8, 0.9, np.nan, np.nan], ["complete", "complete", "failed", "failed"])
    history, slices, _ = every(trials, CUTS)
    assert history.axes[0].get_xlim()[1] > 3
    assert slices.axes[1].get_xlim()[0] < 1e-4  # where the last one failed


def test_the_most_important_is_on_top_with_its_share():
    figure = plots.importance({"a_$x$": 0.1, "b": 0.7, "c": 0.2})
    figure.canvas.draw()
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a_$x$", "c", "b"]  # from below
    assert not any(text.get_parse_math() for text in axes.get_yticklabels())
    assert [bar.get_width() for bar in axes.patches] == [0.1, 0.2, 0.7]
    assert texts(axes) == ["0.10", "0.20", "0.70"]
    assert boxes(figure, axes.texts)[-1].x1 <= axes.bbox.x1


def test_without_importance_it_says_why():
    assert texts(plots.importance({}).axes[0]) == [UNFINISHED]


def test_slices_have_one_axes_a_key_three_in_a_row_and_a_colour_bar():
    trials = make_trials([0.8, 0.9, 0.85], dropout=[0.1, 0.2, 0.3])
    figure = plots.slices(trials, [FREEZE, RATE, BATCH, "dropout"], {RATE}, ORDERED, "val_accuracy", True)
    *axes, bar = figure.axes
    assert [each.get_xlabel() for each in axes] == [FREEZE, RATE, BATCH, "dropout"]
    assert bar.get_ylabel() == "trial"
    assert [each.get_xscale() for each in axes] == ["linear", "log", "linear", "linear"]
    assert axes[0].get_gridspec().get_geometry() == (2, 3)
    assert ticks(axes[0]) == ORDERED[FREEZE]
    assert ticks(axes[2]) == ["16", "32", "64"]
    assert dots(axes[2], "completed").tolist() == [[0, 0.8], [1, 0.9], [2, 0.85]]
    assert dots(axes[3], "completed").tolist() == [[0.1, 0.8], [0.2, 0.9], [0.3, 0.85]]


def test_slices_colour_by_number_and_leave_pruned_trials_hollow():
    trials = make_trials([0.8, 0.9, 0.85, 0.7], ["complete", "complete", "pruned", "pruned"])
    axes = plots.slices(trials, [RATE], {RATE}, {}, "val_accuracy", True).axes[0]
    completed, pruned = axes.collections[:2]
    brightness = [*completed.get_facecolors()[:, :3].sum(1), *pruned.get_edgecolors()[:, :3].sum(1)]
    assert brightness == sorted(brightness, reverse=True)
    assert len(set(brightness)) == 4
    assert len(pruned.get_facecolors()) == 0


def test_choices_of_a_key_are_found_whatever_the_column_made_of_them():
    trials = make_trials([0.8, 0.9, 0.85], choice=pd.Series([64.0, np.nan, 16.0]))
    figure = plots.slices(trials, ["choice"], (), {"choice": [16, 32, 64]}, "val_accuracy", True)
    np.testing.assert_array_equal(dots(figure.axes[0], "completed")[:, 0], [2, np.nan, 0])  # 1 wasn't searched there


def test_the_frost_line_goes_through_the_best_completed_of_each_depth():
    depths = ["none", "none", "block_$6$", "block_$6$", "all", "block_3"]
    states = ["complete", "complete", "complete", "pruned", "complete", "pruned"]
    trials = make_trials([0.80, 0.82, 0.90, 0.95, 0.85, 0.84], states, depths)
    figure = plots.frost_line(trials, FREEZE, CUTS, "val_accuracy", maximize=True)
    axes, frozen = figure.axes
    best = line(axes, "best completed")
    assert best.get_xdata().tolist() == [0, 2, 3]  # nothing has completed at block_3
    assert best.get_ydata().tolist() == [0.82, 0.90, 0.85]
    assert ticks(axes) == ["none\nn=2", "block_3\nn=1", "block_$6$\nn=2", "all\nn=1"]
    assert not any(text.get_parse_math() for text in axes.get_xticklabels())
    assert texts(axes) == ["best 0.9"]
    assert axes.texts[0].xy == (2, 0.90)
    assert frozen.patches[0].get_data().values.tolist() == [0, 0.1, 0.4, 1]
    assert frozen.get_ylim() == (0, 1)
    assert axes.get_zorder() > frozen.get_zorder()


def test_depths_that_are_numbers_are_found_by_their_text():
    trials = make_trials([0.8, 0.9], depths=[0, -15])
    axes = plots.frost_line(trials, FREEZE, [("0", 0.0), ("-15", 0.5)], "val_accuracy", maximize=True).axes[0]
    assert ticks(axes) == ["0\nn=1", "-15\nn=1"]
    assert line(axes, "best completed").get_ydata().tolist() == [0.8, 0.9]


@pytest.mark.parametrize("count", [4, 8, 300])
def test_one_collapsed_trial_does_not_squash_the_others(count):
    trials = many(count, CUTS)
    for figure in every(trials, CUTS):
        axes = figure.axes[0]
        low, high = axes.get_ylim()
        assert low > 0.7
        assert low < trials["value"].drop(3).min()
        assert trials["value"].max() < high < 1.1
        assert at_edge(axes) == 1
        assert np.isnan(dots(axes, "completed")[3, 1])  # a triangle instead
        assert note(figure) == f"▼ below the axis: 1 of {count} trials, the farthest at 0.1"


def test_nor_does_one_diverged_loss():
    trials = many(20, CUTS, collapsed=1e6).assign(
        value=lambda trials: trials["value"].where(trials["number"] != 5, np.inf)
    )
    trials.loc[5, "state"] = "complete"
    for figure in every(trials, CUTS, "val_loss", maximize=False):
        low, high = figure.axes[0].get_ylim()
        assert 0.8 < low < high < 1.1
        assert at_edge(figure.axes[0]) == 2
        assert note(figure) == "▲ above the axis: 2 of 20 trials, the farthest at inf"


def test_an_infinite_loss_among_few_trials_leaves_a_finite_axis():
    for figure in every(make_trials([np.inf, 0.8]), CUTS, "val_loss", maximize=False):
        low, high = figure.axes[0].get_ylim()
        assert 0.6 < low < 0.8 < high < 1


def test_values_that_only_spread_are_all_held():
    trials = make_trials(np.linspace(0.2, 0.9, 20))
    for figure in every(trials, CUTS):
        low, high = figure.axes[0].get_ylim()
        assert low < 0.2 < 0.9 < high
        assert note(figure) == ""


@pytest.mark.parametrize("state", ["complete", "pruned", "failed"])
def test_a_single_trial(state):
    trials = make_trials([np.nan if state == "failed" else 0.8], state)
    for figure in every(trials, CUTS, "val_loss", maximize=False):
        axes = figure.axes[0]
        assert (UNFINISHED in texts(axes)) == (state != "complete")
        if state != "failed":
            low, high = axes.get_ylim()
            assert 0.6 < low < 0.8 < high < 1


def test_a_sweep_in_which_nothing_has_completed_says_so():
    pruned_or_failed = make_trials([0.8, np.nan, 0.7], ["pruned", "failed", "pruned"])
    failed = make_trials([np.nan] * 3, "failed")
    running = make_trials([0.8], "running")
    for trials in (pruned_or_failed, failed, running):
        history, slices, frost_line = every(trials, CUTS)
        for axes in (history.axes[0], *slices.axes[:3], frost_line.axes[0]):
            assert texts(axes) == [UNFINISHED]
            assert not axes.get_lines()


@pytest.mark.parametrize(("depths", "count"), [(8, 20), (40, 300), (64, 300)])
def test_long_names_are_turned_and_do_not_touch(depths, count):
    cuts = [(f"block_{i}_depthwise_relu", i / depths) for i in range(depths)]
    history, slices, frost_line = every(many(count, cuts), cuts)
    named = frost_line.axes[0].get_xticklabels()
    assert [text.get_text().split()[0] for text in named] == [label for label, _ in cuts]  # none is left out here
    for figure, labels in ((frost_line, named), (slices, slices.axes[0].get_xticklabels())):
        assert {text.get_rotation() for text in labels} == {90}
        places = boxes(figure, labels)
        assert all(left.x1 <= right.x0 for left, right in pairwise(places))
    for figure in (history, slices, frost_line):
        (legend,) = boxes(figure, figure.legends)
        assert legend.x0 >= 0
        assert legend.x1 <= figure.bbox.x1
        assert all(legend.y0 >= axes.bbox.y1 for axes in figure.axes)


@pytest.mark.parametrize("rates", [[2e-4, 4e-3], [1e-3, 1e-3], [1e-9, 1.0]])
def test_the_names_of_a_logarithmic_axis_do_not_touch(rates):
    figure = plots.slices(make_trials([0.8, 0.9], rate=rates), ["rate"], {"rate"}, {}, "val_accuracy", True)
    figure.canvas.draw()
    axes = figure.axes[0]
    low, high = axes.get_xlim()
    named = [*axes.get_xticklabels(), *axes.get_xticklabels(minor=True)]
    shown = [text for text in named if text.get_text() and low <= text.get_position()[0] <= high]
    assert len(shown) >= 2
    places = sorted(boxes(figure, shown), key=lambda box: box.x0)
    assert all(left.x1 < right.x0 for left, right in pairwise(places))
    assert low < min(rates) <= max(rates) < high


@pytest.mark.parametrize("depths", [4, 40])
@pytest.mark.filterwarnings("error")  # matplotlib's, that the axes collapsed
def test_long_names_leave_the_axes_their_height(depths):
    long_key = "finetune.callbacks.ReduceLROnPlateau.a_long_argument_of_it"
    cuts = [
        (f"expanded_conv_{i}_squeeze_excite_and_a_very_long_tail_of_conv_{i % 3}", i / depths) for i in range(depths)
    ]
    schedules = [f"{{'CosineDecay': {{'warmup_epochs': {i}, 'alpha': 0.1}}}}" for i in range(4)]
    ordered = {FREEZE: [label for label, _ in cuts], BATCH: [16, 32, 64], long_key: schedules}
    trials = many(20, cuts).assign(**{long_key: [schedules[i % 4] for i in range(20)]})
    slices = plots.slices(trials, [FREEZE, RATE, BATCH, long_key], {RATE}, ordered, "val_accuracy", True)
    frost_line = plots.frost_line(trials, FREEZE, cuts, "val_accuracy", True)
    importance = plots.importance({FREEZE: 0.6, long_key: 0.4})
    for figure, named in ((slices, slices.axes[:4]), (frost_line, frost_line.axes[:1]), (importance, importance.axes)):
        figure.canvas.draw()
        for axes in named:
            assert axes.bbox.width > 2 * figure.dpi
            assert axes.bbox.height > (2 if figure is not importance else 0.5) * figure.dpi
            whole = axes.get_tightbbox(figure.canvas.get_renderer())  # with its names
            assert figure.bbox.x0 <= whole.x0
            assert whole.x1 <= figure.bbox.x1
            assert figure.bbox.y0 <= whole.y0
    for axes in (slices.axes[0], slices.axes[3], frost_line.axes[0]):
        assert len(set(ticks(axes))) == len(ticks(axes))  # shortened names still differ


def test_the_best_value_is_written_within_the_axes():
    for maximize in (True, False):
        trials = make_trials([0.9, 0.8, 0.85, 0.9])
        figure = plots.frost_line(trials, FREEZE, CUTS, "val_accuracy", maximize)
        figure.canvas.draw()
        (text,) = boxes(figure, figure.axes[0].texts)
        frame = figure.axes[0].bbox
        assert frame.y0 <= text.y0
        assert text.y1 <= frame.y1
