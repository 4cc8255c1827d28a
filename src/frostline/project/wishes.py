"""What somebody asks of `frostline init`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DEFAULT_SOURCE = Path("data/digits.yaml")  # a card in the template


@dataclass(frozen=True)
class Wish:
    """`frostline init FOLDER --data DATA --recipe RECIPE --body BODY`; None: not given."""

    folder: Path
    data: Path | None = None
    recipe: str | None = None
    body: str | None = None

    @property
    def source(self) -> str:
        """`data.source` of the project: relative for what lies in its folder, otherwise absolute."""
        if self.data is None:
            return DEFAULT_SOURCE.as_posix()
        place, folder = self.data.resolve(), self.folder.resolve()
        return place.relative_to(folder).as_posix() if place.is_relative_to(folder) else str(self.data.absolute())
