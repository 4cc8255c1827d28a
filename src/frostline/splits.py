"""Which image is learned from, which is validated on, and which is only tested on.

An image's split is a function of its pixels and the seed, not of its name or of the order of a scan: it keeps its
split when files are added, and copies of one image can't end on two sides.
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


def resolve_duplicates(table: pd.DataFrame) -> pd.DataFrame:
    """Choose one of each set of images with the same pixels.

    table: columns path, label, split (a split's name or None) and sha256 (of the decoded pixels).
    Returns the rows to leave out, with a column `reason`. Copies under different labels all go, since nobody knows
    which label is right; of copies in given splits the one in test stays, else the one in val: a test image that is
    also in train is taken out of train.
    """
    copies = table[table.duplicated("sha256", keep=False)]
    if copies.empty:
        return table.iloc[:0].assign(reason=pd.Series(dtype=str))
    rank = copies["split"].map({"test": 0, "val": 1, "train": 2}).fillna(3)
    ordered = copies.assign(rank=rank).sort_values(["rank", "path"])
    keeper = ordered.groupby("sha256")["path"].transform("first")
    conflicting = ordered.groupby("sha256")["label"].transform("nunique") > 1
    reason = np.where(conflicting, "same picture under another label as ", "same picture as ")
    # A copy is told apart by its keeper; of conflicting ones, those that share the keeper's label by another's.
    keeper_label = ordered.groupby("sha256")["label"].transform("first")
    stranger = ordered[ordered["label"] != keeper_label].groupby("sha256")["path"].first()
    other = keeper.where(~conflicting | (ordered["label"] != keeper_label), ordered["sha256"].map(stranger))
    ordered = ordered.assign(reason=reason + other)
    return ordered[conflicting | (ordered["path"] != keeper)].drop(columns="rank").sort_index()


def assign(table: pd.DataFrame, shares: Shares, seed: int) -> pd.Series:
    """Give every row a split; rows that have one keep it.

    table: columns label, split and sha256, without duplicates. Splits that the source already names are taken as they
    are; missing ones are drawn from the rows named train (or from all rows, where none is named), class by class.
    Only where a class would be left without an image in a split is the nearest one taken instead.

    Raises DataError where a class has too few images to reach every split.
    """
    given = set(table["split"].dropna())
    needed = [name for name in ("test", "val") if name not in given]
    total = shares.train + sum(getattr(shares, name) for name in needed)
    result = table["split"].where(table["split"].notna(), "train").astype(object)
    pool = table[result == "train"]
    for label, rows in pool.groupby("label", sort=True):
        if len(rows) < len(needed) + 1:
            raise DataError(
                f"class {label!r} has {len(rows)} usable images, but data.split needs at least {len(needed) + 1} "
                f"({', '.join(['train', *needed])}); add pictures or remove the class"
            )
        place = rows["sha256"].map(lambda sha: position(sha, seed, "split")).sort_values(kind="stable")
        start = 0.0
        free = place
        for name in needed:
            share = getattr(shares, name) / total
            chosen = free[(free >= start) & (free < start + share)]
            # At least one image a split; and later splits, train among them, must keep one each too.
            left_over = len(needed) - needed.index(name)
            chosen = chosen.iloc[: len(free) - left_over] if len(chosen) else free.iloc[:1]
            result.loc[chosen.index] = name
            free = free.drop(chosen.index)
            start += share
    return result


def few_labels(table: pd.DataFrame, per_class: int, seed: int) -> NDArray[np.bool_]:
    """Which rows stay when only `per_class` labelled images of each class may be trained on; others are all kept.

    The choice follows the pixels too: the 10 images of one setting are among the 50 of another.
    Raises DataError where a class has fewer training images than that.
    """
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
