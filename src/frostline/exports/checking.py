"""Compare an exported file, in its own runtime, with `predict` on the same images."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frostline.core import progress
from frostline.exports.formats import Runs
from frostline.exports.graph import Outputs
from frostline.exports.samples import TrialImage, TrialImages
from frostline.serving import loading
from frostline.serving.scoring import BATCH, Prediction

FLAGS = ("set", "unknown")  # answers of yes and no


@dataclass(frozen=True)
class Answered:
    """What was answered for n images.

    probabilities: float32 (n, classes); flags: `set`, bool (n, classes), and `unknown`, bool (n,), where there are any;
    milliseconds: the median of one image.
    """

    probabilities: NDArray[np.float32]
    flags: Mapping[str, NDArray[np.bool_]]
    milliseconds: float


@dataclass(frozen=True)
class Agreement:
    """How far a file answers as `predict`.

    images: their number; labels: the share with the same label; largest: the largest difference of probabilities;
    flags: the share of images with the same set, and with the same unknown; reduced, reduced_labels: the number of
    JPEGs that `predict` decodes at a fraction of their size, and the share of them that get the same label when they
    are decoded at their own size, as other programs do (1 if there are none).
    """

    images: int
    labels: float
    largest: float
    flags: Mapping[str, float]
    reduced: int
    reduced_labels: float


@dataclass(frozen=True)
class Trial:
    """All that was answered for the same images: labels int (n,), by `predict`, by the files, by these for the JPEGs at
    their own size (rows: their numbers)."""

    labels: NDArray[np.int64]
    predicted: Answered
    answered: Mapping[str, Answered]
    whole: Mapping[str, Answered]
    rows: NDArray[np.int64]

    def agreement(self, name: str) -> Agreement:
        """How far the file with this name answers as `predict`."""
        ours, theirs = self.answered[name], self.predicted
        same = ours.probabilities.argmax(1) == theirs.probabilities.argmax(1)
        whole = [
            theirs.probabilities[row].argmax() == found.argmax()
            for row, found in zip(self.rows, self.whole[name].probabilities, strict=True)
        ]
        flags = {
            key: float((values == theirs.flags[key]).reshape(len(values), -1).all(1).mean())
            for key, values in ours.flags.items()
        }
        largest = float(np.abs(ours.probabilities - theirs.probabilities).max())
        return Agreement(
            len(same), float(same.mean()), largest, flags, len(whole), float(np.mean(whole)) if whole else 1.0
        )


def tried(files: Mapping[str, Runs], takes: str, folder: Path, samples: TrialImages) -> Trial:
    """Give the same images to `predict` with a bundle, and to files, which take `takes`.

    files: functions that run them, by name.
    """
    scorer = loading.scorer_of(folder)
    answers: dict[str, list[Outputs]] = {name: [] for name in files}
    whole: dict[str, list[Outputs]] = {name: [] for name in files}
    seconds: dict[str, list[float]] = {name: [] for name in files}
    predicted: list[Outputs] = []
    prepared, rows = [], []
    for number in progress.track(range(len(samples.labels)), len(samples.labels), "check"):
        sample = samples.read(number)
        prepared.append(sample.prepared)
        if takes == "image" and sample.whole is not None:
            rows.append(number)
        for name, run in files.items():
            if not answers[name]:
                run(_given(sample, takes))  # the first call compiles
            start = time.perf_counter()
            answers[name].append(run(_given(sample, takes)))
            seconds[name].append(time.perf_counter() - start)
            if rows[-1:] == [number]:
                whole[name].append(run(sample.whole))
        if len(prepared) == BATCH or number == len(samples.labels) - 1:
            predicted += map(_as_answers, scorer.predictions(prepared))
            prepared = []
    return Trial(
        samples.labels,
        _stacked(predicted),
        {name: _stacked(each, seconds[name]) for name, each in answers.items()},
        {name: _stacked(each) for name, each in whole.items()},
        np.array(rows, np.int64),
    )


def _as_answers(prediction: Prediction) -> Outputs:
    """A prediction of `predict` as the arrays that a file gives."""
    found: Outputs = {"probabilities": np.array(list(prediction.probabilities.values()), np.float32)}
    if prediction.set is not None:
        found["set"] = np.array([name in prediction.set for name in prediction.probabilities])
    if prediction.unknown is not None:
        found["unknown"] = np.array(prediction.unknown)
    return found


def _given(sample: TrialImage, takes: str) -> Any:
    return sample.coded if takes == "bytes" else sample.image


def _stacked(answers: list[Outputs], seconds: Sequence[float] = ()) -> Answered:
    flags = {name: np.array([each[name] for each in answers]) for name in FLAGS if answers and name in answers[0]}
    probabilities = np.array([each["probabilities"] for each in answers], np.float32)
    return Answered(probabilities, flags, 1000 * float(np.median(seconds)) if seconds else 0.0)
