"""One copy of each image is left, and images that belong together do not lie in two splits."""

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
def test_one_copy_is_left_and_no_copy_with_conflicting_labels(rows: list[tuple[int, str, str | None]]) -> None:
    table = pd.DataFrame(rows, columns=["image", "label", "split"]).astype(object)
    table["same"] = table["image"].map(sha)
    table["path"] = [f"{label}/{i:02d}" for i, label in enumerate(table["label"])]
    surplus = exact(table)
    left = table.drop(index=surplus.index)
    rank = {"test": 0, "val": 1, "train": 2}
    for digest, copies in table.groupby("same"):
        keepers = left[left["same"] == digest]
        if copies["label"].nunique() > 1:
            assert keepers.empty
        else:
            assert len(keepers) == 1
            assert rank.get(keepers["split"].iat[0], 2) == min(rank.get(split, 2) for split in copies["split"])
    for row in surplus.itertuples():
        same, other = re.fullmatch(r"same image (as|under another label as) (.+)", row.reason).groups()
        partner = table[table["path"] == other].iloc[0]
        assert other != row.path
        assert partner["same"] == row.same
        assert (partner["label"] != row.label) == (same == "under another label as")


def test_which_copy_is_left_depends_on_the_names_not_the_order() -> None:
    table = images(1).loc[[0, 0, 0]].reset_index(drop=True).assign(path=["z", "b", "m"])
    for order in ([0, 1, 2], [2, 0, 1]):
        surplus = exact(table.iloc[order])
        assert sorted(surplus["path"]) == ["m", "z"]
        assert set(surplus["reason"]) == {"same image as b"}


def test_without_copies_nothing_is_left_out() -> None:
    surplus = exact(images(5))
    assert surplus.empty
    assert "reason" in surplus


def test_pairs_and_groups_are_tied_into_sets() -> None:
    table = images(8).assign(group=[None, None, "p", "p", "q", None, None, None])
    number = together(table, np.array([[0, 1], [1, 2], [5, 6]])).tolist()
    assert [[row for row in range(8) if number[row] == one] for one in sorted(set(number), key=number.index)] == [
        [0, 1, 2, 3],
        [4],
        [5, 6],
        [7],
    ]


def test_of_a_set_in_several_splits_the_part_in_test_stays() -> None:
    table = images(7).assign(
        split=["train", "test", "val", "train", "val", "train", "train"], group=[None, None, None, "p", "p", "p", None]
    )
    pairs = np.array([[0, 1], [0, 2]])
    table.index = range(10, 17)
    surplus = straddling(table.assign(together=together(table, pairs)), pairs)
    assert surplus[["path", "kind", "reason"]].values.tolist() == [
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
