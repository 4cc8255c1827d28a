"""The report of `prepare`: the images of each split and the problems of the source.

reports/data.json is a summary of bounded size: all counts, and the first problems and near-copies. The tables
reports/problems.parquet and reports/near_copies.parquet have all of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from frostline.data import deep_grey
from frostline.data.deep_grey import GreyRange

MOST = 1000  # problems of a kind, sets of near-copies, and images of a set that data.json lists


class Problem(NamedTuple):
    """A file, folder or archive member that is left out. It is a plain tuple, since there may be a million of them.

    path: relative to the source; label: its class, if it has one; kind: a word for programs; reason: a text for people,
    without the path.
    """

    path: str
    label: str | None
    kind: str
    reason: str


class DataWarning(NamedTuple):
    """Something that is used, but that a person should check. kind: a word for programs; reason: a text for people."""

    kind: str
    reason: str


class NearCopyCounts(NamedTuple):
    """How many sets of near-copies there are, and how many images in them."""

    sets: int
    images: int


class SplitDigests(NamedTuple):
    """The digests of a split. source: of the images as they are in the source; shards: of the prepared images."""

    source: str
    shards: str


@dataclass(frozen=True)
class DataReport:
    """What was prepared.

    grey_range: see `deep_grey`, None if there are no grey images with more than 8 bits; images, images_per_class and
    digests are by split; left_out_by_train_per_class: the number of images that `data.train_per_class` left unused;
    problem_counts: of all problems, by kind, the most frequent first; problems: the first MOST of each kind;
    near_duplicates: the paths of the first MOST sets of near-copies, of each set at most MOST, None if they were not
    searched for; near_duplicate_counts: the number of all sets and images.
    """

    source: str
    classes: Sequence[str]
    image_size: int
    resize: str
    grey_range: GreyRange
    images: Mapping[str, int]
    images_per_class: Mapping[str, Mapping[str, int]]
    left_out_by_train_per_class: int
    on_problem: str
    problem_counts: Mapping[str, int]
    problems: Sequence[Problem]
    warnings: Sequence[DataWarning]
    near_duplicates: Sequence[Sequence[str]] | None
    near_duplicate_counts: NearCopyCounts
    digests: Mapping[str, SplitDigests]

    def as_json(self) -> dict[str, Any]:
        """The content of reports/data.json."""
        return {
            **vars(self),
            "problems": [problem._asdict() for problem in self.problems],
            "warnings": [warning._asdict() for warning in self.warnings],
            "near_duplicate_counts": self.near_duplicate_counts._asdict(),
            "digests": {name: digests._asdict() for name, digests in self.digests.items()},
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> DataReport:
        """The inverse of `as_json`. A report of an older version lists all near-copies, and has no counts of them."""
        sets = values["near_duplicates"] or []
        counts = values.get("near_duplicate_counts") or {"sets": len(sets), "images": sum(map(len, sets))}
        return cls(
            **{
                **values,
                "grey_range": deep_grey.recorded(values.get("grey_range")),
                "problems": [Problem(**problem) for problem in values["problems"]],
                "warnings": [DataWarning(**warning) for warning in values["warnings"]],
                "near_duplicate_counts": NearCopyCounts(**counts),
                "digests": {name: SplitDigests(**digests) for name, digests in values["digests"].items()},
            }
        )


def read(path: Path) -> DataReport:
    """Read reports/data.json."""
    return DataReport.from_json(json.loads(path.read_text(encoding="utf-8")))
