"""Metrics of one's own, `evaluate.metrics: [package.module:function, ...]`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from frostline.core import own_code
from frostline.evaluation.metrics import Labels, Probabilities

KEY = "evaluate.metrics"


class OwnMetric(Protocol):
    """A metric of one's own. Its name in metrics.json is `own_` and that of the function."""

    def __call__(self, labels: Labels, probabilities: Probabilities) -> float:
        """A finite number. labels: int64 (n,), in the order of the class names; probabilities: float32 (n, classes)."""


def compute(references: Sequence[str], labels: Labels, probabilities: Probabilities) -> dict[str, float]:
    """The values by the functions' names. Raises ParamsError, one line, if one can't be imported or fails."""
    values = {}
    for reference in references:
        function: OwnMetric = own_code.function(reference, KEY)
        try:
            value = float(function(labels.copy(), probabilities.copy()))
            if not math.isfinite(value):
                raise ValueError(f"it gave {value}")
        except Exception as error:  # a user's own code may raise anything
            raise own_code.failed(reference, KEY, error) from error
        values[reference.partition(":")[2]] = value
    return values
