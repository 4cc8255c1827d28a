"""The gallery of mistakes: each image beside its heat map, which shows what speaks for the predicted class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frostline.data import shards
from frostline.evaluation import metrics, plots
from frostline.evaluation.metrics import Probabilities

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from frostline.models.bundles import Bundle

GALLERY = 24  # images
GALLERY_SIDE = 256  # pixels, at most about twice as many


def figure(bundle: Bundle, test: shards.Shards, probabilities: Probabilities) -> Figure:
    """The worst mistakes, each beside its heat map; the least sure right answers if there is no mistake."""
    from frostline.evaluation import gradcam

    rows = metrics.hardest(test.labels, probabilities, GALLERY)
    predicted = probabilities.argmax(axis=1)
    wrong = int((predicted != test.labels).sum())
    images = test.take(rows)
    explainer = gradcam.GradCam(bundle)
    heat = explainer(images, predicted[rows])
    step = max(1, test.layout.image_size // GALLERY_SIDE)
    thumbnails = images[:, ::step, ::step]
    names = test.layout.classes
    captions = [plots.caption(names[test.labels[row]], names[predicted[row]], probabilities[row].max()) for row in rows]
    scope = f"{len(test):,} test images"
    which = (
        f"Worst mistakes, {len(rows)} of {wrong:,} on {scope}" if wrong else f"No mistake on {scope}; the least sure"
    )
    how = f"Coloured: what speaks for the predicted class ({explainer.method})"
    title = f"{which}. {how if explainer.method else 'Not coloured: this head has no gradient'}"
    return plots.mistakes(thumbnails, gradcam.overlay(thumbnails, heat[:, ::step, ::step]), captions, title)
