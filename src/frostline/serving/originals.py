"""The images of a split as their source has them: of any size, and as the bytes of their files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pandas as pd

from frostline.core.escaping import printable
from frostline.data import images
from frostline.data.deep_grey import GreyRange
from frostline.data.shards import Shards
from frostline.errors import DataError
from frostline.ingest import sources
from frostline.ingest.reading import ReadImage, SourceReader
from frostline.ingest.structures import Structure
from frostline.params.schema import DataSection

T = TypeVar("T")


@dataclass(frozen=True)
class Originals:
    """The images of the rows of a split. Its functions raise DataError, naming the image, if it is not there any more
    or can't be read. names: of the images, for the reader; split: its name, for messages."""

    source: str
    reader: SourceReader
    names: pd.Series
    split: str

    def read(self, row: int, least: int | None, grey_range: GreyRange) -> ReadImage:
        """Decode an image. least, grey_range: see `images.load`."""
        return self._tried(row, lambda name: self.reader.read(name, least, grey_range))

    def coded(self, row: int) -> bytes:
        """The bytes of its file."""
        return self._tried(row, self.reader.coded)

    def _tried(self, row: int, read: Callable[[str], T]) -> T:
        name = self.names[row]
        try:
            return read(name)
        except images.UnreadableImageError as reason:
            raise DataError(
                f"{self.source}/{printable(name)}: is in the {self.split} split, but {reason}; put it back, or run "
                "`dvc repro`"
            ) from None


def of_split(data: DataSection, split: Shards, scratch: Path) -> Originals:
    """Open the source of prepared images again. scratch: an existing folder, for an unpacked archive."""
    reader = sources.open_source(Path(data.source), scratch, Structure.of(data)).reader
    return Originals(data.source, reader, split.index["path"], split.folder.name)
