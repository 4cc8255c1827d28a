"""The numbers of an evaluation, as reports/metrics.json holds them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from frostline.core.history import DIGITS
from frostline.errors import DataError

OWN = "own_"  # begins the key of a metric of one's own
CI95 = "_ci95"  # the suffix of an interval's key in metrics.json


@dataclass(frozen=True)
class Score:
    """A metric. interval: its lower and upper bound with 95% confidence, None if it has none."""

    value: float
    interval: tuple[float, float] | None = None

    @classmethod
    def of(cls, value: float, bounds: Sequence[float] | None) -> Score:
        """A score whose bounds may come from a JSON file."""
        return cls(value, (bounds[0], bounds[1]) if bounds else None)


@dataclass(frozen=True)
class Scores:
    """The metrics of a test split; see `metrics.compute` for their ranges.

    roc_auc and average_precision are None if no class can be ranked. temperature, ece_uncalibrated and
    log_loss_uncalibrated are None without calibration. commonest_class: the accuracy of always answering the class
    that is the most frequent in the test split; aurc: the area under the risk-coverage curve; set_promise to
    accuracy_known: see `promises.Promises`; test_digest: the start of `Shards.source_digest` of the test images. own:
    metrics of one's own, by their functions' names.
    """

    accuracy: Score
    top_k: int
    top_k_accuracy: float
    macro_f1: Score
    weighted_f1: float
    log_loss: Score
    ece: float
    n_test: int
    commonest_class: float
    roc_auc: Score | None = None
    average_precision: Score | None = None
    temperature: float | None = None
    ece_uncalibrated: float | None = None
    log_loss_uncalibrated: float | None = None
    aurc: float | None = None
    set_promise: float | None = None
    set_coverage: Score | None = None
    set_size: float | None = None
    unknown_promise: float | None = None
    unknown_rate: Score | None = None
    accuracy_known: Score | None = None
    test_digest: str = ""
    own: Mapping[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The content of metrics.json. `top_k_accuracy` has the number in its key, and an interval a key of its own.

        Numbers have DIGITS significant digits: the others differ from one kind of processor to another.
        """
        values: dict[str, Any] = {}
        for name in (each.name for each in fields(self) if each.name not in ("top_k", "own")):
            value = _rounded(getattr(self, name))
            key = f"top_{self.top_k}_accuracy" if name == "top_k_accuracy" else name
            if isinstance(value, Score):
                values[key] = value.value
                if value.interval is not None:
                    values[key + CI95] = list(value.interval)
            elif value is not None:
                values[key] = value
        return values | {OWN + name: _rounded(value) for name, value in self.own.items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Scores:
        """The inverse of `as_json`. Raises TypeError if a value is missing or unknown."""
        types = {each.name: each.type for each in fields(cls)}
        own = {key.removeprefix(OWN): value for key, value in values.items() if key.startswith(OWN)}
        arguments: dict[str, Any] = {"own": own}
        for key, value in values.items():
            if top := re.fullmatch(r"top_(\d+)_accuracy", key):
                arguments |= {"top_k": int(top[1]), "top_k_accuracy": value}
            elif types.get(key, "").startswith("Score"):
                arguments[key] = Score.of(value, values.get(key + CI95))
            elif not key.endswith(CI95) and not key.startswith(OWN):
                arguments[key] = value
        return cls(**arguments)


def _rounded(value: Any) -> Any:
    if isinstance(value, Score):
        ends = value.interval and (_rounded(value.interval[0]), _rounded(value.interval[1]))
        return Score(_rounded(value.value), ends)
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def read(path: Path) -> Scores:
    """Read metrics.json. Raises DataError if it is missing or damaged."""
    try:
        return Scores.from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise DataError(f"{path}: not found; run `dvc repro` first") from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: does not hold the numbers of an evaluation; remove it and run `dvc repro`") from error
