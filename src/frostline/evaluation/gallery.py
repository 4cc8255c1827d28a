"""The gallery of mistakes: each image beside its heat map, which shows what speaks for the predicted class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frostline.core import labels
from frostline.data import shards
from frostline.evaluation import metrics, plots
from frostline.evaluation.metrics import Probabilities

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from frostline.models.bundles import Bundle

GALLERY = 24  # images
GALLERY_SIDE = 256  # pixels, at most about twice as many
FILE_LETTERS = 38  # of a file's path, which is cut in the middle


def figure(bundle: Bundle, test: shards.Shards, probabilities: Probabilities) -> Figure:
    """The most confident mistakes, each beside its heat map; the least sure right answers if there is no mistake."""
    from frostline.evaluation import gradcam

    rows = metrics.hardest(test.labels, probabilities, GALLERY)
    predicted = probabilities.argmax(axis=1)
    images = test.take(rows)
    explainer = gradcam.GradCam(bundle)
    heat = explainer(images, predicted[rows])
    step = max(1, test.layout.image_size // GALLERY_SIDE)
    thumbnails = images[:, ::step, ::step]
    names = labels.labels(test.layout.classes)
    files = test.index["path"].iloc[rows]
    captions = [
        caption(file, names[test.labels[row]], names[predicted[row]], probabilities[row].max())
        for file, row in zip(files, rows, strict=True)
    ]
    how = f"Coloured: what speaks for the predicted class ({explainer.method})"
    how = how if explainer.method else "Not coloured: this head has no gradient"
    title = f"{heading(int((predicted != test.labels).sum()), len(test))}\n{how}"
    return plots.mistakes(thumbnails, gradcam.overlay(thumbnails, heat[:, ::step, ::step]), captions, title)


def caption(file: str, true: str, predicted: str, probability: float) -> str:
    """Three lines: the file of an image, its true class, and the predicted class with its probability."""
    return f"{labels.label(file, FILE_LETTERS)}\ntrue: {true}\npredicted: {predicted} ({probability:.2f})"


def heading(mistakes: int, images: int) -> str:
    """Which images of the test split the gallery shows, and in which order."""
    scope, order = f"on {images:,} test images", "left to right, row by row"
    if not mistakes:
        return f"No mistake {scope}. The right answers, the least sure first: {order}"
    if mistakes == 1:
        return f"The only mistake {scope}"
    which = f"All {mistakes}" if mistakes <= GALLERY else f"{GALLERY} of {mistakes:,}"
    return f"{which} mistakes {scope}, the most confident first: {order}"
