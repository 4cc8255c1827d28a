"""From a source to its usable images: decoded, without copies, and enough of them to train on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from frostline.data.data_report import Problem
from frostline.errors import DataError
from frostline.ingest import checks, listing, near_copies, splits, thumbnails
from frostline.ingest.checks import Findings
from frostline.ingest.decoding import DIGEST, Decoder
from frostline.ingest.sources import Source
from frostline.params.schema import DataSection

# Columns of an image that was decoded, as narrow as the greatest values allow: see `decoded` and `decoding.Decoded`.
FACTS = {
    "prepared": np.int64,
    "width": np.int32,
    "height": np.int32,
    "is_coded": np.bool_,
    "is_windowed": np.bool_,
    "has_deep_colour": np.bool_,
    "low": np.float64,
    "high": np.float64,
}


def usable(
    readable: pd.DataFrame, problems: list[Problem], source_splits: set[str], decoder: Decoder, data: DataSection
) -> Findings:
    """The images that can be used, and what is wrong with the others.

    readable, problems: the result of `decoded`; source_splits: the splits that the source names. Raises DataError if
    the usable images are not enough to train on, and for any problem if `data.on_problem` is error.
    """
    pairs = _near_copies(readable, decoder)
    findings = checks.copies(readable, problems, pairs, data.near_duplicates, decoder.pixel_digests)
    require_classes(findings, source_splits, data)
    return findings


def decoded(source: Source, decoder: Decoder) -> tuple[pd.DataFrame, list[Problem]]:
    """The readable images and all problems.

    The new columns are sha256, prepared, is_coded, width and height, of deep grey images low, high and is_windowed (see
    `deep_grey.Tones`; NaN and False for others), and has_deep_colour.
    """
    table, problems = source.table, list(source.problems)
    is_readable = np.zeros(len(table), np.bool_)
    digests = np.zeros((len(table), DIGEST), np.uint8)
    facts: dict[str, NDArray[Any]] = {name: np.zeros(len(table), dtype) for name, dtype in FACTS.items()}
    for row, image in enumerate(decoder.all(table["path"].array)):
        if image.kind:
            problems.append(Problem(table["path"].iat[row], table["label"].iat[row], image.kind, image.reason))
            continue
        is_readable[row] = True
        is_windowed = image.tones is not None and image.tones.is_windowed
        tones = (image.tones.low, image.tones.high) if image.tones is not None else (np.nan, np.nan)
        digests[row] = np.frombuffer(image.sha256, np.uint8)
        values = image.prepared, *image.size, image.is_coded, is_windowed, image.has_deep_colour, *tones
        for column, value in zip(facts.values(), values, strict=True):
            column[row] = value
    table = table.assign(sha256=listing.hexadecimal(digests), **facts)
    return table if is_readable.all() else table[is_readable], problems


def _near_copies(readable: pd.DataFrame, decoder: Decoder) -> NDArray[np.int64]:
    """Pairs of near-copies by the number of their row. Images smaller than a thumbnail can't be compared."""
    places = np.flatnonzero(readable[["width", "height"]].min(axis=1) >= thumbnails.SIDE)
    records = readable.index.to_numpy()[places]

    def thumbnails_of(numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.stack(list(decoder.thumbnails(records[numbers].tolist())))

    return places[near_copies.find(len(places), thumbnails_of)]


def require_classes(findings: Findings, source_splits: set[str], data: DataSection) -> None:
    """Raise DataError if the images are not enough to train on, or for any problem if `data.on_problem` is error."""
    problems = checks.in_order(findings.problems)
    if problems and data.on_problem == "error":
        first, more = problems[0], f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        path = " ".join(first.path.split())
        raise DataError(f"{data.source}/{path}: {first.reason}{more}; fix or remove it, or set data.on_problem to drop")
    why = _commonest(problems)
    if findings.usable.empty:
        raise DataError(f"{data.source}: holds no usable image{why}; add class folders with images")
    if findings.usable["split"].notna().all() and "train" not in set(findings.usable["split"]):
        raise DataError(f"{data.source}: no image is in train{why}; add some, or leave all splits to data.split")
    lost = sorted(source_splits - set(findings.usable["split"].dropna()))
    if lost:
        raise DataError(
            f"{data.source}: no image of the given split {lost[0]!r} is usable; fix its files or remove the split"
        )
    if findings.usable["label"].nunique() < 2:
        raise DataError(
            f"{data.source}: holds the single class {findings.usable['label'].iat[0]!r}{why}, but a classifier needs "
            "at least two; add another class folder"
        )


def require_splits(findings: Findings, data: DataSection, names: Collection[str] = splits.SPLITS) -> None:
    """Raise DataError if one of these splits is empty or has a single class: nothing could be learned or measured with
    it."""
    counts = findings.counts
    for name in names:
        classes = counts.columns[(counts.loc[name] > 0).to_numpy()]
        if len(classes) < 2:
            images = f"only images of {classes[0]!r}" if len(classes) else "no image"
            raise DataError(
                f"{data.source}: the split {name} gets {images}; add images (each class needs at least three), or fix "
                "the splits of the source or data.split"
            )


def _commonest(problems: Sequence[Problem]) -> str:
    """The most frequent reason why files were left out, with an example, in brackets; empty without problems."""
    causes = [problem for problem in problems if problem.kind != "empty_class"] or problems
    if not causes:
        return ""
    kind, count = Counter(problem.kind for problem in causes).most_common(1)[0]
    example = next(problem for problem in causes if problem.kind == kind)
    files = f"{count:,} files, the first is " if count > 1 else ""
    return f" ({files}{example.path}: {example.reason})"
