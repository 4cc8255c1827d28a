"""What a training works on, opened and checked: the store, the prepared images, their variants."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from frostline import paths
from frostline.core import atomic
from frostline.data import shards, variants
from frostline.errors import DataError
from frostline.features import store
from frostline.models import backbones, sklearn_fit, weights
from frostline.params.schema import Params

if TYPE_CHECKING:
    from frostline.training.trainer import TrainingData


@dataclass(frozen=True)
class Inputs:
    """features: the activation store; train, validation: the prepared splits; variants: the training split first, then
    its stored variants."""

    features: store.Store
    train: shards.Shards
    validation: shards.Shards
    variants: list[shards.Shards]

    @property
    def data(self) -> TrainingData:
        """The same for `Trainer`."""
        from frostline.training.trainer import TrainingData

        return TrainingData(self.variants, self.validation)


def check(params: Params, locate: weights.Locate) -> None:
    """What can be checked before Keras is loaded, so that a mistake in params.yaml shows at once and not after seconds.

    locate: where `backbone.weights` lies on this machine. Raises UserError.
    """
    backbone = params.backbone
    backbones.check(backbone.name, locate(backbone.weights), params.data.image_size, backbone.alpha)
    if not params.head.is_dense:
        sklearn_fit.check(params.head.classifier, params.head.classifier_args)


def bring_up_to_date() -> None:
    """Let DVC run `prepare` and `augment` where they are out of date, in a project that has them."""
    if not Path("dvc.yaml").is_file():
        return
    atomic.require_writable(paths.state())
    with atomic.lock(paths.state() / "sweep-data.lock"):
        done = subprocess.run([sys.executable, "-m", "dvc", "repro", "--quiet", "augment"], check=False)
    if done.returncode:
        raise DataError("dvc.yaml: `dvc repro augment` failed; fix what it says above")


def opened(params: Params) -> Inputs:
    """Open all of it. Raises DataError where `prepare` or `augment` has not run for it."""
    features = store.opened(params.cache)
    train, validation = (shards.open_folder(paths.PREPARED / name, features.memory) for name in ("train", "val"))
    params.head.require_fit(len(train.layout.classes))
    return Inputs(features, train, validation, [train, *variants.stored(paths.AUGMENTED, params.augment, train)])
