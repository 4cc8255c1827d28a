"""The images of a trial, whose settings may ask for variants that params.yaml does not ask for."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from pathlib import Path

from frostline.core import atomic, digest
from frostline.data import variants
from frostline.params.schema import Params
from frostline.training.examples import TrainingData
from frostline.training.inputs import Inputs

MOST_DATA_SETS = 12  # about as many as a bracket has trials


class TrialData:
    """Creates and keeps the training data of trials, for all workers that share a folder."""

    def __init__(self, params: Params, inputs: Inputs, folder: Path) -> None:
        """inputs: the data that params.yaml itself asks for; folder: of the study."""
        self.params, self.inputs, self.folder = params, inputs, folder
        self._in_use = ExitStack()

    def of(self, trial: Params) -> TrainingData:
        """The training data of a trial with these settings, valid until the next call."""
        self._in_use.close()
        stored = trial.augment.stored
        if stored == self.params.augment.stored:
            return self.inputs.data
        train = self.inputs.train
        if stored is None:
            return TrainingData([train], self.inputs.validation)
        place = self.folder / f"augmented-{digest.of_value(stored)[:24]}"
        with atomic.lock(self.folder / "augmented.lock"):
            self._in_use.enter_context(atomic.shared_lock(_lock(place)))
            if place.is_dir():
                os.utime(place)
            else:
                self._make_room()
                with atomic.folder(place) as temporary:
                    variants.write(trial.augment, train, trial.seed, temporary)
        return TrainingData([train, *variants.stored(place, trial.augment, train)], self.inputs.validation)

    def _make_room(self) -> None:
        """Remove the data sets that were used longest ago and that no worker reads; a trial creates its own again."""
        folders = [path for path in self.folder.glob("augmented-*") if path.is_dir()]
        oldest_first = sorted(folders, key=lambda path: path.stat().st_mtime)
        for old in oldest_first[: max(0, len(folders) - MOST_DATA_SETS + 1)]:
            with atomic.try_lock(_lock(old)) as holder:
                if holder is None:
                    shutil.rmtree(old)


def _lock(place: Path) -> Path:
    return place.with_name(f"{place.name}.lock")
