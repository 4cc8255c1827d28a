"""The figures can be drawn for every test split: a thousand classes, one class, one image."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from conftest import make_bundle, make_predictions, make_shards
from PIL import Image

from frostline.core import fonts
from frostline.evaluation import gallery, metrics, plots, ranking, report
from frostline.models import bundles


def saved(figure, path):
    """The size of the figure as a PNG, in pixels. It is an error if a character has no glyph."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.save(figure, path)
    with Image.open(path) as image:
        return image.size


def texts(axes):
    return [text.get_text() for text in axes.texts]


@pytest.mark.parametrize(("n", "classes"), [(300, 5), (200, 1000), (1, 2)])
def test_all_figures_of_an_evaluation_can_be_drawn(n, classes, tmp_path):
    labels, probabilities = make_predictions(n, 0, classes)
    names = tuple(f"class {number} of $5^$ | {'long ' * 9}" for number in range(classes))
    predicted = probabilities.argmax(axis=1)
    rank_summary = ranking.summary(labels, probabilities)
    areas = rank_summary.areas
    ranked_names = [names[number] for number in areas["number"]]
    figures = [
        plots.confusion(metrics.confusion_matrix(labels, predicted, classes), names),
        plots.reliability(metrics.reliability(labels, probabilities), 0.1),
        plots.roc(rank_summary.roc, ranking.GRID, ranked_names, areas["roc_auc"].to_numpy()),
        plots.precision_recall(
            rank_summary.precision_recall, ranking.GRID, ranked_names, areas["average_precision"].to_numpy()
        ),
    ]
    assert all(min(saved(figure, tmp_path / "plot.png")) > 400 for figure in figures)


def test_of_many_classes_the_most_confused_are_shown():
    counts = np.diag(np.full(100, 5))
    counts[70, 90] = 2
    (axes,) = plots.confusion(counts, tuple(f"c{number}" for number in range(100))).axes
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert len(labels) == plots.NAMED_CLASSES
    assert {"c70", "c90"} <= set(labels)
    assert "40 of 100 classes" in axes.get_title()


@pytest.mark.parametrize("classes", [2, 10, 40])
def test_each_cell_of_the_confusion_has_count_and_share_within_its_square(classes):
    counts = np.diag(np.full(classes, 1234))
    counts[0, 1], counts[1, 0] = 1234, 3
    figure = plots.confusion(counts, tuple(f"class number {number}" for number in range(classes)))
    figure.canvas.draw()
    (axes,) = figure.axes
    assert texts(axes)[:4] == ["1234\n50%", "1234\n50%", "3\n<1%", "1234\n>99%"]
    assert texts(axes)[4:] == ["1234\n100%"] * (classes - 2)
    assert axes.get_title().startswith("Images, and their share of the true class")
    side = axes.bbox.width / classes
    for text in axes.texts:
        assert text.get_fontsize() >= 8
        box = text.get_window_extent()
        assert max(box.width, box.height) < side
    for ticks in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert all(min(label.get_window_extent().bounds[2:]) < side for label in ticks)
    assert axes.bbox.width > 0.4 * figure.bbox.width


def test_of_two_classes_the_curve_of_the_second_is_drawn_and_named():
    curve = np.linspace(0, 1, 101)[None]
    for draw, area in ((plots.roc, "ROC AUC"), (plots.precision_recall, "average precision")):
        figure = draw(curve, ranking.GRID, ["infected"], np.array([0.75]))
        (axes,) = figure.axes
        assert axes.get_title() == f"{area} 0.750, positive class: infected"
        assert len([line for line in axes.get_lines() if line.get_linestyle() == "-"]) == 1
        assert figure.legends == []


def test_the_positive_class_of_two_is_the_second_by_label_order():
    labels, probabilities = make_predictions(60, 0, 2)
    summary = ranking.summary(labels, probabilities)
    figures = report._ranking_figures(summary, ["ant", "bee"], is_binary=True)
    for name, curves in (("roc", summary.roc), ("precision_recall", summary.precision_recall)):
        (axes,) = figures[name].axes
        assert axes.get_title().endswith("positive class: bee")
        np.testing.assert_array_equal(axes.get_lines()[0].get_ydata(), curves[1])
    every = report._ranking_figures(summary, ["ant", "bee"], is_binary=False)
    assert len(every["roc"].legends[0].get_texts()) == 3  # two of many classes that occur in the test split


def test_of_more_classes_each_curve_has_its_area():
    curves = np.linspace(0, 1, 303).reshape(3, 101)
    figure = plots.roc(curves, ranking.GRID, ["cat", "dog", "a $5^$"], np.array([0.5, 0.75, 1.0]))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "cat 0.500",
        "dog 0.750",
        "a $5^$ 1.000",
        "macro average 0.750",
    ]


def test_characters_that_no_font_has_are_escaped_and_others_get_a_font_without_warnings(tmp_path):
    unknown = next(
        sign for sign in map(chr, range(0x17000, 0x32000)) if sign.isprintable() and not fonts.installed().face(sign)
    )
    names = (unknown, "\u2323", "猫", "हिन्दी", "עברית", "кошка")  # DejaVu Sans lacks the first four
    figures = [
        plots.confusion(np.ones((6, 6), int), names),
        plots.roc(np.ones((6, 101)), ranking.GRID, list(names), np.ones(6)),
        plots.roc(np.ones((1, 101)), ranking.GRID, [unknown], np.ones(1)),
    ]
    for figure in figures:
        saved(figure, tmp_path / "plot.png")
    shown = [text.get_text() for text in figures[0].axes[0].get_yticklabels()]
    assert shown[0] == f"\\U{ord(unknown):08x}"
    assert shown[1] == "\u2323"  # matplotlib brings a font that has it
    assert shown[5] == "кошка"


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_gallery_has_a_panel_for_each_mistake_from_left_to_right(count):
    images = np.zeros((count, 16, 16, 3), np.uint8)
    captions = [gallery.caption(f"cat/{number}.png", "cat", "dog", 0.5) for number in range(count)]
    figure = plots.mistakes(images, images, captions, f"{gallery.heading(count, 9)}\nColoured")
    figure.canvas.draw()
    panels = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title(loc="left") for axes in panels] == [
        f"cat/{number}.png\ntrue: cat\npredicted: dog (0.50)" for number in range(count)
    ]
    places = [(-round(axes.bbox.y0), axes.bbox.x0) for axes in panels]
    assert places == sorted(places)
    title = figure._suptitle.get_window_extent()
    assert title.x0 >= 0
    assert title.x1 <= figure.bbox.x1
    assert all(axes._left_title.get_window_extent().y1 <= title.y0 for axes in panels)


def test_the_gallery_names_files_and_begins_with_the_most_confident_mistake(tmp_path):
    bundle = bundles.load(make_bundle(tmp_path / "bundle", ("ant", "bee"), binary=True))
    test = make_shards(tmp_path / "test", 6, classes=2, names=("ant", "bee"))
    certainty = np.array([0.9, 0.6, 0.7, 0.8, 0.95, 0.99])
    right = np.array([False, False, True, False, True, True])
    of_second = np.where(right == (test.labels == 1), certainty, 1 - certainty)
    probabilities = np.stack([1 - of_second, of_second], axis=1).astype(np.float32)
    figure = gallery.figure(bundle, test, probabilities)
    captions = [axes.get_title(loc="left") for axes in figure.axes]
    assert captions == [
        "0/0.png\ntrue: ant\npredicted: bee (0.90)",
        "1/3.png\ntrue: bee\npredicted: ant (0.80)",
        "1/1.png\ntrue: bee\npredicted: ant (0.60)",
    ]
    assert figure._suptitle.get_text().startswith(
        "All 3 mistakes on 6 test images, the most confident first: left to right, row by row\nColoured"
    )


def test_the_heading_says_what_is_shown():
    assert gallery.heading(0, 50).startswith("No mistake on 50 test images. The right answers, the least sure first:")
    assert gallery.heading(1, 50) == "The only mistake on 50 test images"
    assert gallery.heading(1000, 5000).startswith(
        "24 of 1,000 mistakes on 5,000 test images, the most confident first:"
    )
