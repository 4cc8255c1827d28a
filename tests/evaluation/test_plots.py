"""The figures can be drawn for every test split: a thousand classes, one class, one image."""

from io import BytesIO

import numpy as np
import pytest
from conftest import make_predictions

from frostline.evaluation import metrics, plots, ranking


def png_size(figure):
    """The size of the figure as a PNG, in bytes."""
    file = BytesIO()
    figure.savefig(file)
    return len(file.getvalue())


@pytest.mark.parametrize(("n", "classes"), [(300, 5), (200, 1000), (1, 2)])
def test_all_figures_of_an_evaluation_can_be_drawn(n, classes):
    labels, probabilities = make_predictions(n, 0, classes)
    names = tuple(f"class {number} of $5^$ | {'long ' * 9}" for number in range(classes))
    predicted = probabilities.argmax(axis=1)
    rank_summary = ranking.summary(labels, probabilities)
    ranked_names = [names[number] for number in rank_summary.areas["number"]]
    assert png_size(plots.confusion(metrics.confusion_matrix(labels, predicted, classes), names)) > 0
    assert png_size(plots.reliability(metrics.reliability(labels, probabilities), 0.1)) > 0
    area = rank_summary.roc_auc and rank_summary.roc_auc.value
    assert png_size(plots.roc(rank_summary.roc, ranking.GRID, ranked_names, area)) > 0
    assert png_size(plots.precision_recall(rank_summary.precision_recall, ranking.GRID, ranked_names, area)) > 0


def test_of_many_classes_the_most_confused_are_shown():
    counts = np.diag(np.full(100, 5))
    counts[70, 90] = 2
    (axes,) = plots.confusion(counts, tuple(f"c{number}" for number in range(100))).axes
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert len(labels) == plots.NAMED_CLASSES
    assert {"c70", "c90"} <= set(labels)
    assert "40 of 100 classes" in axes.get_title()


def test_the_gallery_has_a_panel_for_each_mistake():
    images = np.zeros((5, 16, 16, 3), np.uint8)
    captions = [plots.caption("cat", "a very long name of a dog indeed", 0.5)] * 5
    figure = plots.mistakes(images, images, captions, "title")
    panels = [axes for axes in figure.axes if axes.images]
    assert len(panels) == 5
    assert panels[0].get_title(loc="left") == "true: cat\npredicted: a very long name of a d… (0.50)"
