"""The section `evaluate` of params.yaml: what is measured, and what a classifier says besides its probabilities."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from frostline.params.section import OwnFunction, Positive, Section


class SetsSection(Section):
    """Prediction sets: classes that hold the right one as often as promised.

    `coverage`: the promised share of images; `score`: `lac` for the smallest sets, which may be empty, `aps` and `raps`
    for sets that are larger for hard images, have at least one class, and cover more than is promised.
    """

    coverage: Annotated[float, Field(gt=0, lt=1)]
    score: Literal["lac", "aps", "raps"]


class UnknownSection(Section):
    """The answer "none of these".

    `false_alarms`: the share of images of the classes that may get it; `score`: what tells strangers, `auto` for the
    best one when each class is left out in turn.
    """

    false_alarms: Annotated[float, Field(gt=0, lt=1)]
    score: Literal["auto", "msp", "energy", "knn", "mahalanobis", "combined"]


class EvaluateSection(Section):
    """Evaluation and calibration.

    `metrics`: functions of one's own, whose values are in metrics.json beside the others;
    `top_k`: k of the top-k accuracy; `bootstrap`: number of resamples for the 95% intervals; `calibrate`, `sets`,
    `unknown`: what `finetune` fits on the calibration split, or without one on the validation split, and puts into the
    bundle; null for no sets, and for a class whatever an image shows.
    """

    top_k: Positive
    bootstrap: Annotated[int, Field(ge=100)]
    calibrate: Literal["none", "temperature"]
    metrics: list[OwnFunction] | None = None
    sets: SetsSection | None = None
    unknown: UnknownSection | None = None
