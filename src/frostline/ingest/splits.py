"""Which image is learned from, which is validated on, and which is only tested on.

An image's split is a function of its content and the seed, not of its name or of the order of a scan: it keeps its
split when files are added. Images that belong together, near-copies or those of a group, go to one side.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from frostline.errors import DataError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Shares:
    """The shares of a class that go to train, val and test; they add up to 1."""

    train: float
    val: float
    test: float


def position(sha256: str, seed: int, purpose: str) -> float:
    """A number in [0, 1) that the image's digest, the seed and the purpose fix."""
    drawn = hashlib.sha256(f"{purpose}:{seed}:{sha256}".encode()).digest()
    return int.from_bytes(drawn[:8], "big") / 2**64


def assign(table: pd.DataFrame, shares: Shares, seed: int) -> pd.Series:
    """Give every row a split; rows that have one keep it.

    table: columns label, split, sha256, group (a name or None) and together (a number; rows that share it go to one
    side), without duplicates. Splits that the source already names are taken as they are; missing ones are drawn from
    the rows named train (or from all rows, where none is named), class by class. Only where a class would be left
    without an image in a split is the nearest one taken instead, and a class with fewer images, or sets of them, than
    splits is learned from and tested on first.
    """
    given = set(table["split"].dropna())
    needed = [name for name in ("test", "val") if name not in given]
    result = table["split"].where(table["split"].notna(), "train").astype(object)
    pool = table.loc[result == "train", ["label", "sha256", "group", "together"]]
    if not needed or pool.empty:
        return result
    total = shares.train + sum(getattr(shares, name) for name in needed)
    widths = {name: getattr(shares, name) / total for name in needed}
    place = _places(pool, seed)
    # Sets that hold several classes can't be moved for the sake of one of them.
    is_mixed = pool.groupby("together")["label"].transform("nunique") > 1
    side = _naturally(place, widths)
    for label, rows in pool[is_mixed].groupby("label", sort=True):
        if len(rows) == (pool["label"] == label).sum() and "train" not in set(side[rows.index]):
            side[pool["together"] == pool.loc[place[rows.index].idxmax(), "together"]] = "train"
    for _, rows in pool.groupby("label", sort=True):
        settled = set(side[rows.index[is_mixed[rows.index]]])
        free = rows[~is_mixed[rows.index]]
        chosen = _sides(place[free.index].groupby(free["together"]).first(), widths, settled)
        side[free.index] = free["together"].map(chosen)
    result[pool.index] = side
    return result


def _places(pool: pd.DataFrame, seed: int) -> pd.Series:
    """The place of every row in [0, 1); rows that belong together have one place.

    It is that of their group's name, where they have one: images that are added to a group don't move it. Near-copies
    without a group have the place of one of them, drawn by its pixels; a near-copy that is added may change it.
    """
    drawn = pool["sha256"].map(lambda sha: position(sha, seed, "split"))
    alone = ~pool["together"].duplicated(keep=False) & pool["group"].isna()
    if alone.all():
        return drawn
    rest = pool[~alone]
    # What the place is drawn from: the name of the set's group, the first of several; else one of its images.
    names = {name: f"group {name}" for name in rest["group"].dropna().unique()}
    key = rest["sha256"].where(rest["group"].isna(), rest["group"].map(names))
    rank = rest["group"].isna() + key.map(lambda key: position(key, seed, "of a set"))
    chosen = key[rank.groupby(rest["together"]).idxmin()]
    places = chosen.map(lambda key: position(key, seed, "split")).set_axis(rest["together"][chosen.index])
    drawn[rest.index] = rest["together"].map(places)
    return drawn


def _naturally(places: pd.Series, widths: dict[str, float]) -> pd.Series:
    """The splits whose shares places fall in."""
    ends = np.cumsum(list(widths.values()))
    names = np.array([*widths, "train"], object)
    return pd.Series(names[np.searchsorted(ends, places.to_numpy(float), side="right")], places.index, dtype=object)


def _sides(places: pd.Series, widths: dict[str, float], settled: set[str]) -> dict[int, str]:
    """The splits of one class's sets by their places; settled: splits that have images of it anyway."""
    free = places.sort_values(kind="stable")
    natural = _naturally(free, widths)
    result = dict.fromkeys(free.index, "train")
    names = list(widths)
    for number, name in enumerate(names):
        later = [other for other in (*names[number + 1 :], "train") if other not in settled]
        spare = len(free) - len(later)  # at least one a split; and later splits, train among them, must keep one each
        if spare <= 0:  # too few for every split
            spare = min(1, len(free) - ("train" in later))
        chosen = free[natural[free.index] == name].iloc[:spare]
        if chosen.empty and name not in settled:
            chosen = free.iloc[:spare].iloc[:1]
        result.update(dict.fromkeys(chosen.index, name))
        free = free.drop(chosen.index)
    return result


def few_labels(table: pd.DataFrame, per_class: int | None, seed: int) -> NDArray[np.bool_]:
    """Which rows stay when only `per_class` labelled images of each class may be trained on; others are all kept.

    per_class: None for all. The choice follows the pixels too: the 10 images of one setting are among the 50 of
    another. Raises DataError where a class has fewer training images than that.
    """
    if per_class is None:
        return np.ones(len(table), bool)
    keep = (table["split"] != "train").to_numpy(copy=True)
    train = table[~keep]
    place = train["sha256"].map(lambda sha: position(sha, seed, "few labels"))
    rank = place.groupby(train["label"]).rank(method="first")
    counts = train["label"].value_counts()
    if (counts < per_class).any():
        label, count = counts.idxmin(), counts.min()
        raise DataError(
            f"class {label!r} has {count} training images, fewer than data.train_per_class = {per_class}; "
            "lower it, or set it to null for all"
        )
    keep[~keep] = (rank <= per_class).to_numpy()
    return keep
