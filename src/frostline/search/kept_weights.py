"""The weights of the best trials of a study, until it is known whether their average is better than each of them."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from frostline.core import atomic
from frostline.training.networks import Changed

SUFFIX = ".weights.npz"


@dataclass(frozen=True)
class KeptWeights:
    """One file a trial with the weights that its training changed. folder: of the study; study: names its files."""

    folder: Path
    study: str

    def save(self, number: int, weights: Changed) -> None:
        """Keep the weights of a trial. A full disk is only a warning: what is missing can be trained again."""
        try:
            with atomic.file(self._path(number)) as temporary:
                np.savez(temporary, allow_pickle=False, **{str(place): value for place, value in weights.items()})
        except OSError as error:
            print(f"warning: {self.folder}: the weights of trial {number} can't be kept ({error})", file=sys.stderr)

    def load(self, number: int) -> Changed | None:
        """The weights of a trial; None if they are not there, or damaged."""
        try:
            with np.load(self._path(number)) as file:
                return {int(place): file[place] for place in file.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None

    def remove_all_but(self, numbers: Collection[int]) -> None:
        """Remove the weights of all other trials."""
        stay = {self._path(number) for number in numbers}
        for path in self.folder.glob(f"{self.study}-*{SUFFIX}"):
            if path not in stay:
                path.unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{self.study}-{number:05d}{SUFFIX}"
