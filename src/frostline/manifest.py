"""What a data source holds: a table of pictures with their labels, and how to read each.

A source is a folder of class folders, such a folder already split into train/val/test, or a *card*: a small YAML file
that says what is built in or generated. More kinds are more rows in `CARDS`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from frostline import images, synthetic
from frostline.errors import DataError

Pixels = NDArray[np.uint8]

SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


class Source(Protocol):
    """Pictures with labels. Objects travel to worker processes, so they hold no open file."""

    @property
    def table(self) -> pd.DataFrame:
        """One row a picture: path (unique, relative to the source), label (class name), split (name or None)."""
        ...

    def read(self, row: int) -> Pixels:
        """The picture of one row, uint8 (height, width, 3). Raises images.UnreadableImageError."""
        ...


@dataclass(frozen=True)
class FolderSource:
    """Picture files below a folder."""

    root: Path
    table: pd.DataFrame

    def read(self, row: int) -> Pixels:
        path = self.root / self.table["path"].iat[row]
        try:
            is_file = path.is_file()  # a named pipe would be waited on for ever
        except OSError as error:
            raise images.UnreadableImageError(error.strerror) from None
        if not is_file:
            raise images.UnreadableImageError("not a regular file")
        return images.decode(path)


@dataclass(frozen=True)
class ArraySource:
    """Pictures that are already an array, uint8 (n, height, width, 3)."""

    pixels: Pixels
    table: pd.DataFrame

    def read(self, row: int) -> Pixels:
        return self.pixels[row]


@dataclass(frozen=True)
class SyntheticSource:
    """Pictures drawn by formula when they are read."""

    pictures: synthetic.Synthetic
    per_class: int
    table: pd.DataFrame = field(repr=False)

    def read(self, row: int) -> Pixels:
        return self.pictures.image(*divmod(row, self.per_class))


def open_source(path: Path) -> Source:
    """Open `data.source`. Raises DataError, naming the path and the mend, where it is no source."""
    try:
        if path.is_dir():
            return _folder(path)
        if path.suffix.lower() in {".yaml", ".yml"} and path.is_file():
            return _card(path)
        exists = path.exists()
    except OSError as error:
        place = error.filename or path
        raise DataError(f"{place}: can't be read ({error.strerror}); mend its permissions or data.source") from error
    if exists:
        raise DataError(f"{path}: data.source must be a folder of class folders or a card (.yaml)")
    raise DataError(f"{path}: not found; set data.source to a folder with one subfolder a class, or to a card")


def _folder(root: Path) -> Source:
    """A folder of class folders, or of splits of class folders."""
    tops = _subfolders(root)
    if not tops:
        raise DataError(f"{root}: has no subfolders; a source needs one folder of pictures a class")
    splits = {name: SPLIT_FOLDERS[name.lower()] for name in tops if name.lower() in SPLIT_FOLDERS}
    is_split = len(splits) == len(tops) and "train" in splits.values()
    others = sorted(set(tops) - set(splits))
    if others and "train" in splits.values() and len(splits) > 1 and any(_subfolders(root / name) for name in splits):
        raise DataError(f"{root}: {' and '.join(splits)} are splits, but {others[0]!r} is none; move it out of there")
    if is_split and len(set(splits.values())) < len(splits):
        raise DataError(f"{root}: {' and '.join(sorted(splits))} name one split twice; merge them")
    rows: list[tuple[str, str, str | None]] = []
    classes: set[str] = set()
    for top in tops:
        parents = [(f"{top}/{name}", name) for name in _subfolders(root / top)] if is_split else [(top, top)]
        for folder, label in parents:
            classes.add(label)
            rows += [(path, label, splits[top] if is_split else None) for path in _files(root, folder)]
    if not classes:
        raise DataError(f"{root}: {tops[0]!r} has no subfolders; a split needs one folder of pictures a class")
    empty = sorted(classes - {label for _, label, _ in rows})
    if empty:
        raise DataError(f"{root}: class {empty[0]!r} is an empty folder; add pictures to it or remove it")
    table = pd.DataFrame(rows, columns=["path", "label", "split"]).astype(object)
    return FolderSource(root, table.sort_values("path", ignore_index=True))


def _subfolders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _files(root: Path, folder: str) -> list[str]:
    """All files below a class folder but hidden ones, as paths relative to the source.

    Links to folders are not followed below it, so that a loop of links ends.
    """
    found = []
    for parent, folders, names in os.walk(root / folder, onerror=_unlistable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(parent).relative_to(root)
        found += [str(below / name) for name in names if not name.startswith(".")]
    for path in found:
        readable = os.fsencode(path).decode("utf-8", "backslashreplace")
        if readable != path:
            raise DataError(f"{root}/{readable}: the name is not UTF-8; rename it")
    return found


def _unlistable(error: OSError) -> None:
    """What os.walk would pass over in silence."""
    raise error


class _DigitsCard(BaseModel):
    """`kind: digits`: scikit-learn's 1,797 handwritten digits (8x8, UCI Optical Recognition of Handwritten Digits)."""

    model_config = ConfigDict(extra="forbid", strict=True)
    kind: Literal["digits"]

    def open(self) -> Source:
        from sklearn.datasets import load_digits

        digits = load_digits()
        grey = np.round(digits.images * (255 / 16)).astype(np.uint8)
        pixels = np.repeat(grey[..., None], 3, axis=-1)
        paths = [f"digits/{number:04d}" for number in range(len(pixels))]
        table = pd.DataFrame({"path": paths, "label": digits.target.astype(str), "split": None}).astype(object)
        return ArraySource(pixels, table)


class _SyntheticCard(BaseModel):
    """`kind: synthetic`: fractals and letters; `size` in pixels."""

    model_config = ConfigDict(extra="forbid", strict=True)
    kind: Literal["synthetic"]
    fractals: Annotated[int, Field(ge=0)]
    letters: Annotated[int, Field(ge=0, le=len(synthetic.LETTERS))]
    images_per_class: Annotated[int, Field(ge=1)]
    size: Annotated[int, Field(ge=8)]
    seed: Annotated[int, Field(ge=0)]

    def open(self) -> Source:
        pictures = synthetic.Synthetic(self.fractals, self.letters, self.size, self.seed)
        instances = range(self.images_per_class)
        rows = [(f"{name}/{i:05d}", name, None) for name in pictures.classes for i in instances]
        table = pd.DataFrame(rows, columns=["path", "label", "split"]).astype(object)
        return SyntheticSource(pictures, self.images_per_class, table)


CARDS: dict[str, Callable[[dict[str, Any]], _DigitsCard | _SyntheticCard]] = {
    "digits": _DigitsCard.model_validate,
    "synthetic": _SyntheticCard.model_validate,
}


def _card(path: Path) -> Source:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        values = YAML(typ="safe", pure=True).load(path)
    except (YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not YAML; mend it") from error
    kind = values.get("kind") if isinstance(values, dict) else None
    if not isinstance(kind, str) or kind not in CARDS:
        raise DataError(f"{path}: kind is {kind!r}; use one of {', '.join(CARDS)}")
    try:
        card = CARDS[kind](values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{path}: {key}: {first['msg'].lower()}; mend that key") from None
    return card.open()
