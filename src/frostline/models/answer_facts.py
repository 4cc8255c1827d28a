"""What a bundle's account says of `answer.keras`: the rules of its sets and of "none of these", and what they rest on.

`Answers` is what a classifier says of many images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from frostline.models import recorded


@dataclass(frozen=True)
class Answers:
    """What a classifier says of n images; None where its bundle says nothing.

    probabilities: float32 (n, classes); sets: bool (n, classes), whether a class is in the set; unknown: bool (n,);
    unknown_score: float32 (n,), higher for stranger images.
    """

    probabilities: NDArray[np.float32]
    sets: NDArray[np.bool_] | None = None
    unknown: NDArray[np.bool_] | None = None
    unknown_score: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class SetFacts:
    """The rule of prediction sets.

    score: `lac`, `aps` or `raps`; coverage: the promised share of images whose set has their class, in (0, 1);
    threshold: of lac the lowest probability of a class in a set, of the others the highest sum before the last class,
    inf if too few images were there, so that every set has all classes; free, penalty: of raps, the number of classes
    without a penalty, and the penalty of each further one.
    """

    score: str
    coverage: float
    threshold: float
    free: int = 0
    penalty: float = 0.0


@dataclass(frozen=True)
class LeftOut:
    """How well a score tells images of classes that were left out from those of the others: the mean area under the
    ROC curve, 0.5 for chance, 1 for a perfect score. layer: where its distances are taken, None for a score of the
    probabilities."""

    score: str
    layer: str | None
    auroc: float


@dataclass(frozen=True)
class UnknownFacts:
    """The rule of "none of these".

    score: see `uncertainty.evidence`; layer: of the body, None for a score of the probabilities; false_alarms: the
    promised largest share of images of the classes that are called unknown; threshold: the lowest score that is not
    unknown any more, inf if too few images were there, so that none is; bank: how many training images the network
    holds vectors of; left_out: all that were measured, the best first, empty if there are too few classes for it.
    """

    score: str
    layer: str | None
    false_alarms: float
    threshold: float
    bank: int
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True)
class AnswerFacts:
    """All about `answer.keras`. split: `calibration`, or `val` if there are no images for calibration alone; images:
    how many; digest: of them, see `Shards.source_digest`."""

    split: str
    images: int
    digest: str
    sets: SetFacts | None = None
    unknown: UnknownFacts | None = None

    @property
    def says(self) -> tuple[str, ...]:
        """What a prediction has besides label and probabilities: `set`, `unknown`, both or nothing."""
        return tuple(name for name, rule in (("set", self.sets), ("unknown", self.unknown)) if rule is not None)

    def recorded(self) -> dict[str, Any]:
        """The values for bundle.json, which has no number for inf."""
        values = asdict(self)
        for part in (values["sets"], values["unknown"]):
            if part is not None:
                part["threshold"] = None if math.isinf(part["threshold"]) else part["threshold"]
        if values["unknown"] is not None:
            values["unknown"]["left_out"] = list(values["unknown"]["left_out"])
        return values


def read(values: Any) -> AnswerFacts | None:
    """Check the values of bundle.json. Raises ValueError, one line that names the first wrong value."""
    if values is None:
        return None
    parts = dict(values) if isinstance(values, Mapping) else {}
    for name in ("sets", "unknown"):
        if isinstance(part := parts.get(name), Mapping) and part.get("threshold", 0) is None:
            parts[name] = {**part, "threshold": math.inf}
    return recorded.checked(_SCHEMA, parts, "answers")


_SCHEMA = TypeAdapter(AnswerFacts)
