"""Predictions of a trained classifier for images in any form: files, encoded bytes, arrays.

This file and what it imports are copied into every registered model (see packaging.py). They import nothing else from
this package, and they decode and resize an image like `prepare`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data import deep_grey, images  # relative: inside a registered model the package has another name
from ..data.images import Pixels
from ..models import answers
from . import inputs
from .batching import Batcher, Row

BATCH = 32  # images that go through the network at once
UNKNOWN = "unknown"  # the label of an image that shows none of the classes


class StoppedError(Exception):
    """Nobody waits for the answers any more."""


@dataclass(frozen=True)
class Prediction:
    """The prediction for an image.

    label: the likeliest class, or UNKNOWN for an image that shows none of the classes; probability: of the likeliest
    class; probabilities: of all classes; set: the classes of the prediction set, the likeliest first; unknown: whether
    it shows none of the classes. The latter two are None if the bundle does not say it.
    """

    label: str
    probability: float
    probabilities: dict[str, float]
    set: list[str] | None = None
    unknown: bool | None = None

    def as_json(self) -> dict[str, Any]:
        """The fields, without those that the bundle does not say."""
        return {name: value for name, value in vars(self).items() if value is not None}


class Scorer:
    """A loaded bundle, which any number of threads can use.

    Images that several threads ask for at the same time go through the network in one batch. network: the classifier,
    uint8 (n, size, size, 3) -> softmax (n, classes) or sigmoid (n, 1); says: what a prediction has besides label and
    probabilities, `set`, `unknown`, both or nothing.
    """

    def __init__(self, bundle: Path, limits: inputs.Limits | None = None) -> None:
        """Load a bundle's folder in Keras's safe mode. Raises OSError or ValueError if it is not a bundle."""
        about = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
        self.classes: tuple[str, ...] = tuple(about["classes"])
        self.image_size: int = about["image_size"]
        self.resize: images.Resize = about["resize"]
        self.grey_range = deep_grey.recorded(about.get("grey_range"))
        self.limits = limits or inputs.Limits()
        self._reader = inputs.CellReader(self.image_size, self.resize, self.grey_range, self.limits.pixels)
        self.network, network = answers.networks(bundle)
        self.says = tuple(name for name in (answers.SET, answers.UNKNOWN) if name in network.output)
        self._batcher = Batcher(answers.joined(network), BATCH)
        self.probe().result()  # compile now, not at the first request

    def probe(self) -> Future[Row]:
        """The future answer of the network for a black image, which shows whether it still works."""
        return self._batcher.ask(np.zeros((self.image_size, self.image_size, 3), np.uint8))

    def waiting(self) -> int:
        """The number of images that wait for the network."""
        return self._batcher.waiting()

    def watch(self, observe: Callable[[int], None]) -> None:
        """Call a function with the number of images of each batch of the network."""
        self._batcher.watch(observe)

    def prepare(self, source: Path | bytes) -> Pixels:
        """Decode and resize the bytes of an image, or a regular file: uint8 (size, size, 3).

        Raises images.UnreadableImageError. It does not check `limits.paths`, which is for the tables of `rows`.
        """
        return self._reader.decode(source)

    def probabilities(self, pixels: Sequence[Pixels] | Pixels) -> NDArray[np.float32]:
        """Probabilities by class, float32 (n, classes), of uint8 (size, size, 3) each."""
        return self._outputs(pixels)[:, : len(self.classes)]

    def predictions(self, pixels: Sequence[Pixels]) -> list[Prediction]:
        """The predictions for images, uint8 (size, size, 3) each."""
        return [self._prediction(row) for row in self._outputs(pixels)]

    def _outputs(self, pixels: Sequence[Pixels] | Pixels) -> NDArray[np.float32]:
        """The columns of `answers.joined`, float32 (n, columns)."""
        if len(pixels) == 0:
            return np.empty((0, len(self.classes)), np.float32)
        return _results([self._batcher.ask(row) for row in pixels])

    def _prediction(self, row: NDArray[np.float32]) -> Prediction:
        """The prediction by a row of `answers.joined`."""
        count = len(self.classes)
        probabilities = row[:count]
        best = int(probabilities.argmax())
        by_class = dict(zip(self.classes, map(float, probabilities), strict=True))
        members, unknown = None, None
        if answers.SET in self.says:
            order = np.argsort(-probabilities, kind="stable")
            members = [self.classes[place] for place in order if row[count + place]]
        if answers.UNKNOWN in self.says:
            unknown = bool(row[-1])
        label = UNKNOWN if unknown else self.classes[best]
        return Prediction(label, float(probabilities[best]), by_class, members, unknown)

    def rows(self, column: str, values: Sequence[Any], stop: threading.Event | None = None) -> list[Prediction]:
        """The predictions for a table of one column, one of `inputs.COLUMNS`; a batch at a time, to limit the memory.

        stop: if it is set, StoppedError is raised after the current image. Raises inputs.UnusableInputError, which
        names the row.
        """
        self.limits.require(column, len(values))
        predictions: list[Prediction] = []
        for start in range(0, len(values), BATCH):
            futures: list[Future[Row]] = []
            try:
                for row, value in enumerate(values[start : start + BATCH], start):
                    if stop and stop.is_set():
                        raise StoppedError
                    with self._batcher.coming():
                        pixels = self._reader.cell(column, value, row)
                    futures.append(self._batcher.ask(pixels))
                predictions += map(self._prediction, _results(futures))
            finally:
                for each in futures:  # after an error, nobody waits for the images before it
                    each.cancel()
        return predictions


def _results(futures: Sequence[Future[Row]]) -> NDArray[np.float32]:
    """The rows of the network, float32 (n, columns); n is at least 1."""
    return np.array([each.result() for each in futures], np.float32)
