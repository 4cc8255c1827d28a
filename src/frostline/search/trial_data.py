"""The images of a trial, whose settings may ask for variants that params.yaml does not ask for."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from pathlib import Path

from frostline.core import atomic, digest
from frostline.data import variants
from frostline.params.schema import Params
from frostline.training.inputs import Inputs
from frostline.training.trainer import TrainingData

KEPT = 12  # augmented data sets, of as many trials as a bracket has


class TrialData:
    """Makes and keeps what trials train on, for all workers that share a folder."""

    def __init__(self, params: Params, given: Inputs, folder: Path) -> None:
        """given: what params.yaml itself trains on; folder: of the study."""
        self.params, self.given, self.folder = params, given, folder
        self._in_use = ExitStack()

    def of(self, trial: Params) -> TrainingData:
        """What a trial with these settings trains on, good until the next call."""
        self._in_use.close()
        stored = trial.augment.stored
        if stored == self.params.augment.stored:
            return self.given.data
        train = self.given.train
        if stored is None:
            return TrainingData([train], self.given.validation)
        place = self.folder / f"augmented-{digest.of_value(stored)[:24]}"
        with atomic.lock(self.folder / "augmented.lock"):
            self._in_use.enter_context(atomic.shared_lock(_lock(place)))
            if place.is_dir():
                os.utime(place)
            else:
                self._make_room()
                with atomic.folder(place) as temporary:
                    variants.write(trial.augment, train, trial.seed, temporary)
        return TrainingData([train, *variants.stored(place, trial.augment, train)], self.given.validation)

    def _make_room(self) -> None:
        """Remove the data sets that were used longest ago and that no worker reads now; a trial makes its own again."""
        there = [path for path in self.folder.glob("augmented-*") if path.is_dir()]
        oldest_first = sorted(there, key=lambda path: path.stat().st_mtime)
        for old in oldest_first[: max(0, len(there) - KEPT + 1)]:
            with atomic.try_lock(_lock(old)) as holder:
                if holder is None:
                    shutil.rmtree(old)


def _lock(place: Path) -> Path:
    return place.with_name(f"{place.name}.lock")
