"""Transfer learning on a folder of images, with every run reproducible, tracked and honest.

In a notebook: `frostline.load(...)` gives a trained classifier, `frostline.train(...)` trains one without DVC.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from frostline.api.classifier import Classifier
    from frostline.api.training import Trained
    from frostline.params.schema import Params

__all__ = ["load", "train"]


def load(model: str | Path = "models/classifier") -> Classifier:
    """A trained classifier.

    model: a bundle's folder, or a registered model, `models:/NAME@ALIAS` or `models:/NAME/VERSION`, of the tracking
    server that params.yaml in the working directory names, or MLFLOW_TRACKING_URI. Raises UserError, which says the
    fix, if there is no such model.
    """
    from frostline.api import classifier

    return classifier.load(model)


def train(
    images: str | Path | pd.DataFrame,
    params: Params | Mapping[str, Any] | str | Path | None = None,
    folder: str | Path | None = None,
) -> Trained:
    """Train a classifier with the stages of the pipeline, in this process and without DVC or tracking.

    images: a folder of class folders or another source, as `data.source`, or a table with the columns `path` and
    `label`, and perhaps `split` and `group`; params: settings, a params.yaml, or values by dotted keys that change
    those of the template, such as `{"finetune.epochs": 5}`; folder: where the results are written, None for a temporary
    folder that goes with the process. Raises UserError, which says the fix, for bad settings and images.
    """
    from frostline.api import training

    return training.train(images, params, folder)
