"""Assign each image to a split: train, val or test, and calibration if `data.split` gives it a share.

The split depends on the content of the image and the seed, not on its name or the order of files, so an image keeps its
split when files are added. Images that belong together, near-copies or those of a group, go to the same split.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from frostline.errors import DataError
from frostline.params.schema import SplitSection

SPLITS = ("train", "val", "test")
CALIBRATION = "calibration"  # images that neither training nor a sweep sees; only where they are asked for
ALL = (*SPLITS, CALIBRATION)
AT_ONCE = 4096  # rows


@dataclass(frozen=True)
class Shares:
    """The shares of a class that go to each split; they add up to 1."""

    train: float = 0.8
    val: float = 0.1
    test: float = 0.1
    calibration: float = 0.0

    def __str__(self) -> str:
        text = f"{self.train:.0%} train, {self.val:.0%} val, {self.test:.0%} test"
        return f"{text}, {self.calibration:.0%} calibration" if self.calibration else text

    @classmethod
    def of(cls, section: SplitSection | None) -> Shares:
        """The shares of a section of params.yaml, the default ones for None."""
        return cls(section.train, section.val, section.test, section.calibration) if section else cls()


def position(sha256: str, seed: int, purpose: str) -> float:
    """A number in [0, 1) that depends only on the image's digest, the seed and the purpose."""
    digest = hashlib.sha256(f"{purpose}:{seed}:{sha256}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _positions(digests: pd.Series, seed: int, purpose: str) -> pd.Series:
    """`position` of each digest. Only a piece of the column is there as Python text at a time."""
    result = np.empty(len(digests))
    for start in range(0, len(digests), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        result[part] = [position(sha256, seed, purpose) for sha256 in digests.iloc[part]]
    return pd.Series(result, digests.index)


def assign(table: pd.DataFrame, shares: Shares, seed: int) -> pd.Series:
    """The split of every row: a name, as a series with the index of the table.

    table: columns label, split (a name or None), sha256, group (a name or None) and together (a number; rows that share
    it go to the same split), without duplicates. Splits that the source names stay as they are. Missing splits are
    drawn from the rows in train (or from all rows, if the source names no split), class by class. If a class would have
    no image in a split, the nearest one is taken. A class with fewer images, or sets of them, than splits goes to train
    first, then to test.
    """
    source_splits = set(table["split"].dropna())
    drawn = ("test", "val", CALIBRATION) if shares.calibration else ("test", "val")
    missing_splits = [name for name in drawn if name not in source_splits]
    result = table["split"].where(table["split"].notna(), "train").astype(object)
    pool = table.loc[result == "train", ["label", "sha256", "group", "together"]]
    if not missing_splits or pool.empty:
        return result
    total = shares.train + sum(getattr(shares, name) for name in missing_splits)
    widths = {name: getattr(shares, name) / total for name in missing_splits}
    place = _places(pool, seed)
    # A set with several classes can't be moved for one of them.
    is_mixed = pool.groupby("together")["label"].transform("nunique") > 1
    side = _naturally(place, widths)
    pool = pool[["label", "together"]]
    for label, rows in pool[is_mixed].groupby("label", sort=True):
        if len(rows) == (pool["label"] == label).sum() and "train" not in set(side[rows.index]):
            side[pool["together"] == pool.loc[place[rows.index].idxmax(), "together"]] = "train"
    for _, rows in pool.groupby("label", sort=True):
        splits_of_mixed = set(side[rows.index[is_mixed[rows.index]]])
        free = rows[~is_mixed[rows.index]]
        split_of_set = _sides(place[free.index].groupby(free["together"]).first(), widths, splits_of_mixed)
        side[free.index] = free["together"].map(split_of_set)
    result[pool.index] = side
    return result


def _places(pool: pd.DataFrame, seed: int) -> pd.Series:
    """The place of every row in [0, 1). Rows that belong together have the same place.

    It is drawn by the name of their group, if they have one: images that are added to a group don't move it.
    Near-copies without a group have the place of one of them, chosen by its pixels. A near-copy that is added may
    change it.
    """
    places = _positions(pool["sha256"], seed, "split")
    alone = ~pool["together"].duplicated(keep=False) & pool["group"].isna()
    if alone.all():
        return places
    rest = pool[~alone]
    # The place is drawn by the name of the set's group, the first of several, otherwise by one of its images.
    names = {name: f"group {name}" for name in rest["group"].dropna().unique()}
    key = rest["sha256"].where(rest["group"].isna(), rest["group"].map(names))
    rank = rest["group"].isna() + key.map(lambda key: position(key, seed, "of a set"))
    set_keys = key[rank.groupby(rest["together"]).idxmin()]
    place_of_set = set_keys.map(lambda key: position(key, seed, "split")).set_axis(rest["together"][set_keys.index])
    places[rest.index] = rest["together"].map(place_of_set)
    return places


def _naturally(places: pd.Series, widths: dict[str, float]) -> pd.Series:
    """The split of each place: the one whose share of [0, 1) the place lies in."""
    ends = np.cumsum(list(widths.values()))
    names = np.array([*widths, "train"], object)
    return pd.Series(names[np.searchsorted(ends, places.to_numpy(float), side="right")], places.index, dtype=object)


def _sides(places: pd.Series, widths: dict[str, float], taken_splits: set[str]) -> pd.Series:
    """The split of each set of one class, by its place. taken_splits: splits that already have images of the class."""
    free = places.sort_values(kind="stable")
    natural = _naturally(free, widths)
    result = pd.Series("train", free.index, dtype=object)
    names = list(widths)
    for number, name in enumerate(names):
        later = [other for other in (*names[number + 1 :], "train") if other not in taken_splits]
        spare = len(free) - len(later)  # later splits, including train, must keep one set each
        if spare <= 0:  # too few sets for every split
            spare = min(1, len(free) - ("train" in later))
        sets = free[natural[free.index] == name].iloc[:spare]
        if sets.empty and name not in taken_splits:
            sets = free.iloc[:spare].iloc[:1]
        result[sets.index] = name
        free = free.drop(sets.index)
    return result


def few_labels(table: pd.DataFrame, per_class: int | None, seed: int) -> NDArray[np.bool_]:
    """Which rows stay if only `per_class` images of each class may be trained on: bool (rows,). Val and test stay.

    per_class: None for all. The choice depends on the pixels too: the 10 images of one setting are among the 50 of
    another. Raises DataError if a class has fewer training images than that.
    """
    if per_class is None:
        return np.ones(len(table), bool)
    is_kept = (table["split"] != "train").to_numpy(copy=True)
    train = table.loc[~is_kept, ["label", "sha256"]]
    place = _positions(train["sha256"], seed, "few labels")
    rank = place.groupby(train["label"]).rank(method="first")
    require_labels(train["label"], per_class)
    is_kept[~is_kept] = (rank <= per_class).to_numpy()
    return is_kept


def require_labels(labels: pd.Series, per_class: int) -> None:
    """Raise DataError if a class has fewer training images than `data.train_per_class`. labels: of those images."""
    counts = labels.value_counts()
    counts = counts[counts > 0]
    if (counts < per_class).any():
        label, count = counts.idxmin(), counts.min()
        raise DataError(
            f"class {label!r} has {count} training images, fewer than data.train_per_class = {per_class}; "
            "lower it, or set it to null for all"
        )
