"""The inputs of a training: the activation store, the prepared images and their stored variants."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from frostline import paths
from frostline.core import atomic, own_code
from frostline.core.executors import Executor
from frostline.data import shards, variants
from frostline.errors import DataError
from frostline.features import store
from frostline.models import backbones, sklearn_fit, weights
from frostline.params.schema import Params

if TYPE_CHECKING:
    from frostline.training.examples import TrainingData


@dataclass(frozen=True)
class Inputs:
    """features: the activation store; train, validation, calibration: the prepared splits, the last one often without
    images, None if an older version prepared the data; variants: the training split first, then its stored variants."""

    features: store.Store
    train: shards.Shards
    validation: shards.Shards
    calibration: shards.Shards | None
    variants: list[shards.Shards]

    @property
    def data(self) -> TrainingData:
        """The images, as `Trainer` takes them."""
        from frostline.training.examples import TrainingData

        return TrainingData(self.variants, self.validation)


def check(params: Params, locate: weights.Locate) -> None:
    """Check the settings without loading Keras, which takes seconds, so that a mistake in params.yaml shows at once.

    locate: gives the place of `backbone.weights` on this machine. Raises UserError.
    """
    for key, value in (("head.layers", params.head.layers), ("finetune.loss", params.finetune.loss)):
        if value and own_code.is_reference(value):
            own_code.check(value, key)
    backbone = params.backbone
    backbones.check(backbone.name, locate(backbone.weights), params.data.image_size, backbone.alpha)
    if not params.head.is_dense:
        sklearn_fit.check(params.head.classifier, params.head.classifier_args)


def bring_up_to_date() -> None:
    """Let DVC run `prepare` and `augment` if they are out of date; do nothing without a dvc.yaml."""
    if not Path("dvc.yaml").is_file():
        return
    atomic.require_writable(paths.state())
    with atomic.lock(paths.state() / "sweep-data.lock"):
        process = subprocess.run([sys.executable, "-m", "dvc", "repro", "--quiet", "augment"], check=False)
    if process.returncode:
        raise DataError("dvc.yaml: `dvc repro augment` failed; fix the error above")


def open_all(params: Params, executor: Executor | None = None) -> Inputs:
    """Open all inputs of a training. executor: where stored features are computed, None for this process.

    Raises DataError if `prepare` or `augment` has not run with these settings.
    """
    features = store.opened(params.cache, executor)
    train, validation = (shards.open_folder(paths.PREPARED / name, features.memory) for name in ("train", "val"))
    place = paths.PREPARED / "calibration"
    calibration = shards.open_folder(place, features.memory) if place.is_dir() else None
    params.head.require_fit(len(train.layout.classes))
    return Inputs(
        features, train, validation, calibration, [train, *variants.stored(paths.AUGMENTED, params.augment, train)]
    )
