"""Copies: one of each set of copies is kept, and images that belong together never lie in two splits."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

# The split with the lower rank keeps the image: a test image that is also in train is removed from train.
RANK = {"test": 0, "val": 1, "train": 2}


def exact(table: pd.DataFrame) -> pd.DataFrame:
    """Keep one of each set of images with the same pixels.

    table: columns path, label, split (a split's name or None) and same (equal for images with the same pixels). Returns
    the rows to leave out, with columns `kind` and `reason`. Copies with different labels are all left out, since nobody
    knows which label is right. Of copies in several splits the one in test stays, otherwise the one in val.
    """
    copies = table[table.duplicated("same", keep=False)]
    if copies.empty:
        return table.iloc[:0].assign(kind=pd.Series(dtype=str), reason=pd.Series(dtype=str))
    ordered = copies.assign(rank=_rank(copies)).sort_values(["rank", "path"])
    keeper = ordered.groupby("same")["path"].transform("first")
    conflicting = ordered.groupby("same")["label"].transform("nunique") > 1
    phrase = np.where(conflicting, "same image under another label as ", "same image as ")
    # The reason names the keeper. A conflicting copy with the keeper's label names a copy with another label instead.
    keeper_label = ordered.groupby("same")["label"].transform("first")
    other_label_path = ordered[ordered["label"] != keeper_label].groupby("same")["path"].first()
    other = keeper.where(~conflicting | (ordered["label"] != keeper_label), ordered["same"].map(other_label_path))
    kind = np.where(conflicting, "label_conflict", "duplicate")
    ordered = ordered.assign(kind=kind, reason=phrase + other)
    return ordered[conflicting | (ordered["path"] != keeper)].drop(columns="rank").sort_index()


def ties(same: pd.Series) -> NDArray[np.int64]:
    """Pairs of the first row with a value and a later row with the same value: int64 (ties, 2)."""
    value = pd.factorize(same)[0]
    _, first = np.unique(value, return_index=True)
    pairs = np.stack([first[value], np.arange(len(value))], axis=1).reshape(-1, 2)
    return pairs[pairs[:, 0] != pairs[:, 1]]


def together(table: pd.DataFrame, pairs: NDArray[np.int64], by_group: bool = True) -> pd.Series:
    """Number the sets of images that must lie in one split: near-copies, and the images of one group.

    table: column group (a name or missing); pairs: int64 (pairs, 2), row numbers, not index labels; by_group: whether
    the images of a group are a set. Returns the number of each row's set. A set may be a single image.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    nodes, ties = len(table), pairs
    if by_group:
        group, names = pd.factorize(table["group"])
        rows = np.flatnonzero(group >= 0)
        # Each group is one more node of the graph, connected with its images.
        ties = np.concatenate([pairs, np.stack([rows, len(table) + group[rows]], axis=1)])
        nodes += len(names)
    graph = coo_array((np.ones(len(ties), np.bool_), (ties[:, 0], ties[:, 1])), shape=(nodes, nodes))
    _, number = connected_components(graph, directed=False)
    return pd.Series(number[: len(table)], table.index)


def names_of_sets(table: pd.DataFrame) -> pd.Series:
    """A name of each row's set that does not depend on other images, empty for an image alone.

    table: columns sha256 and together (the result of `together`).
    """
    in_sets = table.loc[table["together"].duplicated(keep=False), ["together", "sha256"]]
    first = in_sets.sort_values("sha256").drop_duplicates("together").set_index("together")["sha256"]
    names = in_sets["together"].map(first.str.slice(stop=16))
    return names.reindex(table.index, fill_value="")


def straddling(table: pd.DataFrame, pairs: NDArray[np.int64]) -> pd.DataFrame:
    """The rows to leave out of sets that lie in several splits of the source, with columns `kind` and `reason`.

    table: columns path, split, group and together (the result of `together`); pairs: see `together`. The part of the
    set in test stays, otherwise the part in val.
    """
    rank = _rank(table)
    best = rank.groupby(table["together"]).transform("min")
    surplus = table[rank > best]
    if surplus.empty:
        return surplus.assign(kind=pd.Series(dtype=str), reason=pd.Series(dtype=str))
    splits = {number: name for name, number in RANK.items()}
    partner = _partners(table, pairs, rank)
    rest = table[rank == best]
    first = rest.groupby("together")["path"].first()
    beside = rest.dropna(subset="group").groupby("group")["path"].first()
    kinds, reasons = [], []
    for row, rank_of_set in zip(surplus.itertuples(), best[surplus.index], strict=True):
        side = splits[int(rank_of_set)]
        near = partner.get(row.Index)
        if near is None and row.group in beside:
            kinds.append("group_straddles")
            reasons.append(f"of group {row.group!r}, of which {side} has {beside[row.group]}")
        else:
            kinds.append("near_duplicate")
            reasons.append(f"near-copy of {near or first[row.together]}, which is in {side}")
    return surplus.assign(kind=kinds, reason=reasons)


def _partners(table: pd.DataFrame, pairs: NDArray[np.int64], rank: pd.Series) -> dict[int, str]:
    """Index label of a row -> path of its near-copy in a split of lower rank, if it has one."""
    ranks, index, paths = rank.to_numpy(), table.index.to_numpy(), table["path"].to_numpy()
    both = np.concatenate([pairs, pairs[:, ::-1]])
    worse = both[ranks[both[:, 0]] > ranks[both[:, 1]]]
    ordered = worse[np.argsort(ranks[worse[:, 1]], kind="stable")]
    partner: dict[int, str] = {}
    for row, other in ordered.tolist():
        partner.setdefault(int(index[row]), paths[other])
    return partner


def _rank(table: pd.DataFrame) -> pd.Series:
    return table["split"].map(RANK).astype(float).fillna(RANK["train"]).astype(int)
