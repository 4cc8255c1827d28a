"""Of copies one is left, and what belongs together does not lie on both sides of a given split."""

from __future__ import annotations

import hashlib
import re

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from frostline.ingest.duplicates import exact, straddling, together
from frostline.ingest.splits import SPLITS

quick = settings(max_examples=40, deadline=None, database=None, derandomize=True)


def sha(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def images(count: int) -> pd.DataFrame:
    rows = [(f"a/{i}", "a", None, sha(i), None) for i in range(count)]
    return pd.DataFrame(rows, columns=["path", "label", "split", "same", "group"]).astype(object)


@quick
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from("ab"), st.sampled_from([None, *SPLITS])), min_size=1, max_size=25
    )
)
def test_of_copies_one_is_left_and_of_conflicting_ones_none(rows: list[tuple[int, str, str | None]]) -> None:
    table = pd.DataFrame(rows, columns=["image", "label", "split"]).astype(object)
    table["same"] = table["image"].map(sha)
    table["path"] = [f"{label}/{i:02d}" for i, label in enumerate(table["label"])]
    out = exact(table)
    left = table.drop(index=out.index)
    rank = {"test": 0, "val": 1, "train": 2}
    for digest, copies in table.groupby("same"):
        kept = left[left["same"] == digest]
        if copies["label"].nunique() > 1:
            assert kept.empty
        else:
            assert len(kept) == 1
            assert rank.get(kept["split"].iat[0], 2) == min(rank.get(split, 2) for split in copies["split"])
    for row in out.itertuples():
        same, other = re.fullmatch(r"same image (as|under another label as) (.+)", row.reason).groups()
        named = table[table["path"] == other].iloc[0]
        assert other != row.path
        assert named["same"] == row.same
        assert (named["label"] != row.label) == (same == "under another label as")


def test_which_copy_is_left_follows_the_names_not_the_order() -> None:
    table = images(1).loc[[0, 0, 0]].reset_index(drop=True).assign(path=["z", "b", "m"])
    for order in ([0, 1, 2], [2, 0, 1]):
        out = exact(table.iloc[order])
        assert sorted(out["path"]) == ["m", "z"]
        assert set(out["reason"]) == {"same image as b"}


def test_no_copies_nothing_to_leave_out() -> None:
    out = exact(images(5))
    assert out.empty
    assert "reason" in out


def test_pairs_and_groups_are_tied_into_sets() -> None:
    table = images(8).assign(group=[None, None, "p", "p", "q", None, None, None])
    number = together(table, np.array([[0, 1], [1, 2], [5, 6]])).tolist()
    assert [[row for row in range(8) if number[row] == one] for one in sorted(set(number), key=number.index)] == [
        [0, 1, 2, 3],
        [4],
        [5, 6],
        [7],
    ]


def test_of_a_set_that_given_splits_tear_apart_the_test_side_stays() -> None:
    table = images(7).assign(
        split=["train", "test", "val", "train", "val", "train", "train"], group=[None, None, None, "p", "p", "p", None]
    )
    pairs = np.array([[0, 1], [0, 2]])
    table.index = range(10, 17)
    out = straddling(table.assign(together=together(table, pairs)), pairs)
    assert out[["path", "kind", "reason"]].values.tolist() == [
        ["a/0", "near_duplicate", "near-copy of a/1, which is in test"],
        ["a/2", "near_duplicate", "near-copy of a/1, which is in test"],
        ["a/3", "group_straddles", "of group 'p', of which val has a/4"],
        ["a/5", "group_straddles", "of group 'p', of which val has a/4"],
    ]


@quick
@given(
    st.lists(st.sampled_from([None, *SPLITS]), min_size=2, max_size=20),
    st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=15),
    st.lists(st.sampled_from([None, "p", "q"]), min_size=20, max_size=20),
)
def test_nothing_that_belongs_together_straddles(
    sides: list[str | None], ties: list[tuple[int, int]], groups: list[str | None]
) -> None:
    table = images(len(sides)).assign(split=sides, group=groups[: len(sides)]).astype(object)
    pairs = np.array([pair for pair in ties if max(pair) < len(sides)], np.int64).reshape(-1, 2)
    table["together"] = together(table, pairs)
    left = table.drop(index=straddling(table, pairs).index)
    for _, rows in left.groupby("together"):
        assert rows["split"].fillna("train").nunique() == 1
    assert set(left["together"]) == set(table["together"])
