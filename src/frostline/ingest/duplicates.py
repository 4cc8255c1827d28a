"""Copies: of each image one is kept, and what belongs together never lies on both sides of a split."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

# Which of two places is kept: a test image that is also in train is taken out of train.
RANK = {"test": 0, "val": 1, "train": 2}


def exact(table: pd.DataFrame) -> pd.DataFrame:
    """Choose one of each set of images with the same pixels.

    table: columns path, label, split (a split's name or None) and same (what images with the same pixels share).
    Returns the rows to leave out, with columns `kind` and `reason`. Copies under different labels all go, since nobody
    knows which label is right; of copies in given splits the one in test stays, else the one in val.
    """
    copies = table[table.duplicated("same", keep=False)]
    if copies.empty:
        return table.iloc[:0].assign(kind=pd.Series(dtype=str), reason=pd.Series(dtype=str))
    ordered = copies.assign(rank=_rank(copies)).sort_values(["rank", "path"])
    keeper = ordered.groupby("same")["path"].transform("first")
    conflicting = ordered.groupby("same")["label"].transform("nunique") > 1
    said = np.where(conflicting, "same image under another label as ", "same image as ")
    # A copy is told apart by its keeper; of conflicting ones, those that share the keeper's label by another's.
    keeper_label = ordered.groupby("same")["label"].transform("first")
    stranger = ordered[ordered["label"] != keeper_label].groupby("same")["path"].first()
    other = keeper.where(~conflicting | (ordered["label"] != keeper_label), ordered["same"].map(stranger))
    kind = np.where(conflicting, "label_conflict", "duplicate")
    ordered = ordered.assign(kind=kind, reason=said + other)
    return ordered[conflicting | (ordered["path"] != keeper)].drop(columns="rank").sort_index()


def ties(same: pd.Series) -> NDArray[np.int64]:
    """Each row that has a value in common with an earlier one, with the first that has it: int64 (ties, 2)."""
    value = pd.factorize(same)[0]
    _, first = np.unique(value, return_index=True)
    pairs = np.stack([first[value], np.arange(len(value))], axis=1).reshape(-1, 2)
    return pairs[pairs[:, 0] != pairs[:, 1]]


def together(table: pd.DataFrame, pairs: NDArray[np.int64]) -> pd.Series:
    """Number the sets of images that belong on one side: near-copies, and those of one group.

    table: column group (a name or None); pairs: int64 (pairs, 2), numbers of rows, not labels of the index.
    Returns the set's number for each row; a set may be a single image.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    group, names = pd.factorize(table["group"])
    named = np.flatnonzero(group >= 0)
    # A group is one more node, to which its images are tied.
    ties = np.concatenate([pairs, np.stack([named, len(table) + group[named]], axis=1)])
    nodes = len(table) + len(names)
    graph = coo_array((np.ones(len(ties), np.bool_), (ties[:, 0], ties[:, 1])), shape=(nodes, nodes))
    _, number = connected_components(graph, directed=False)
    return pd.Series(number[: len(table)], table.index)


def straddling(table: pd.DataFrame, pairs: NDArray[np.int64]) -> pd.DataFrame:
    """Of sets that given splits tear apart: the rows to leave out, with columns `kind` and `reason`.

    table: columns path, split, group and together (as `together` numbers them); pairs: as there. What stays is the
    part in test, or else the one in val.
    """
    rank = _rank(table)
    best = rank.groupby(table["together"]).transform("min")
    out = table[rank > best]
    if out.empty:
        return out.assign(kind=pd.Series(dtype=str), reason=pd.Series(dtype=str))
    splits = {number: name for name, number in RANK.items()}
    partner = _partners(table, pairs, rank)
    kept = table[rank == best]
    first = kept.groupby("together")["path"].first()
    beside = kept.dropna(subset="group").groupby("group")["path"].first()
    kinds, reasons = [], []
    for row, there in zip(out.itertuples(), best[out.index], strict=True):
        side = splits[int(there)]
        near = partner.get(row.Index)
        if near is None and row.group in beside:
            kinds.append("group_straddles")
            reasons.append(f"of group {row.group!r}, of which {side} has {beside[row.group]}")
        else:
            kinds.append("near_duplicate")
            reasons.append(f"near-copy of {near or first[row.together]}, which is in {side}")
    return out.assign(kind=kinds, reason=reasons)


def _partners(table: pd.DataFrame, pairs: NDArray[np.int64], rank: pd.Series) -> dict[int, str]:
    """For rows of the index that have a direct near-copy in a better place: that one's path."""
    ranks, index, paths = rank.to_numpy(), table.index.to_numpy(), table["path"].to_numpy()
    both = np.concatenate([pairs, pairs[:, ::-1]])
    worse = both[ranks[both[:, 0]] > ranks[both[:, 1]]]
    ordered = worse[np.argsort(ranks[worse[:, 1]], kind="stable")]
    found: dict[int, str] = {}
    for row, other in ordered.tolist():
        found.setdefault(int(index[row]), paths[other])
    return found


def _rank(table: pd.DataFrame) -> pd.Series:
    return table["split"].map(RANK).astype(float).fillna(RANK["train"]).astype(int)
