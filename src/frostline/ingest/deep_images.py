"""Images of a source with more than 8 bits a channel: the range that holds for all its grey ones, and a warning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from frostline.core.escaping import printable
from frostline.data import deep_grey
from frostline.data.deep_grey import GreyRange
from frostline.errors import DataError
from frostline.ingest.checks import Findings
from frostline.ingest.decoding import Decoder


class DeepGrey(NamedTuple):
    """The deep grey images of a source.

    images: how many there are; grey_range: see `deep_grey`; is_measured: whether it was measured and not given.
    """

    images: int = 0
    grey_range: GreyRange = None
    is_measured: bool = False

    def __str__(self) -> str:
        start = f"{self.images:,} grey images have more than 8 bits"
        if not isinstance(self.grey_range, tuple):
            return f"{start}; they show {'the range of their type' if self.grey_range else 'the windows in the files'}"
        low, high = self.grey_range
        origin = "measured over train; data.range: [low, high] sets it" if self.is_measured else "by data.range"
        return f"{start}; {low:g} is black and {high:g} is white, {origin}"


def settle(findings: Findings, decoder: Decoder, given: GreyRange) -> DeepGrey:
    """Find the range for the deep grey images of a source. If it is measured, they are decoded again with it.

    findings: the usable rows have a split; given: data.range. Raises DataError if a file changed meanwhile.
    """
    table = findings.usable
    _warn_of_deep_colour(findings)
    deep = table[table["low"].notna()]
    if deep.empty or given is not None:
        return DeepGrey(len(deep), given)
    if deep["is_windowed"].all():
        return DeepGrey(len(deep), None)
    train = deep[deep["split"] == "train"] if (deep["split"] == "train").any() else deep
    grey_range = deep_grey.measured(train["low"].to_numpy(), train["high"].to_numpy())
    _decode_again(decoder.with_range(grey_range), deep)
    return DeepGrey(len(deep), grey_range, True)


def _decode_again(decoder: Decoder, deep: pd.DataFrame) -> None:
    paths: Sequence[str] = deep["path"].tolist()
    for path, image in zip(paths, decoder.all(paths, deep.index.tolist()), strict=True):
        if image.kind:
            raise DataError(f"{path}: can't be read any more ({image.reason}); repeat `frostline prepare`")


def _warn_of_deep_colour(findings: Findings) -> None:
    rows = findings.usable[findings.usable["has_deep_colour"]]
    if len(rows):
        first = printable(rows["path"].min())
        findings.warn(
            "deep_colour",
            f"{len(rows):,} images have 16 bits for each colour, of which the upper 8 are used, such as {first}",
        )
