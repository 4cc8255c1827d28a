"""Splits follow the pixels alone: stable when files come and go, and without leaks."""

from __future__ import annotations

import hashlib
import re
from random import Random

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from frostline.errors import DataError
from frostline.splits import SPLITS, Shares, assign, few_labels, position, resolve_duplicates

SHARES = Shares(0.5, 0.1, 0.4)
SEED = 7

quick = settings(max_examples=40, deadline=None, database=None, derandomize=True)
counts = st.dictionaries(st.sampled_from(["ant", "bee", "cat"]), st.integers(3, 40), min_size=1)
salts = st.integers(0, 10_000)


def sha(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def pictures(classes: dict[str, int], salt: int = 0, split: str | None = None) -> pd.DataFrame:
    """A table of pictures that all differ."""
    rows = [
        (f"{split}/{label}/{i}", label, split, sha(salt, split, label, i))
        for label, n in classes.items()
        for i in range(n)
    ]
    return pd.DataFrame(rows, columns=["path", "label", "split", "sha256"]).astype(object)


def assigned(table: pd.DataFrame, shares: Shares = SHARES, seed: int = SEED) -> dict[str, str]:
    """Digest -> split."""
    return dict(zip(table["sha256"], assign(table, shares, seed), strict=True))


def by_rule(table: pd.DataFrame) -> dict[str, str]:
    """Digest -> split by position alone, without the fallback for small classes."""
    place = {digest: position(digest, SEED, "split") for digest in table["sha256"]}
    return {digest: "test" if p < 0.4 else "val" if p < 0.5 else "train" for digest, p in place.items()}


def reaches_all(table: pd.DataFrame, splits: dict[str, str]) -> bool:
    return all(set(rows["sha256"].map(splits)) == set(SPLITS) for _, rows in table.groupby("label"))


@quick
@given(counts, salts, st.randoms(use_true_random=False))
def test_neither_order_nor_names_matter(classes: dict[str, int], salt: int, random: Random) -> None:
    table = pictures(classes, salt)
    order = list(range(len(table)))
    random.shuffle(order)
    other = table.iloc[order].reset_index(drop=True)
    other["path"] = [f"renamed-{i}" for i in range(len(other))]
    assert assigned(other) == assigned(table)


@quick
@given(counts, salts)
def test_every_class_of_three_images_reaches_every_split(classes: dict[str, int], salt: int) -> None:
    table = pictures(classes, salt)
    assert reaches_all(table, assigned(table))


@quick
@given(st.dictionaries(st.sampled_from("ab"), st.integers(20, 60), min_size=1), counts, salts)
def test_adding_images_moves_no_other(classes: dict[str, int], more: dict[str, int], salt: int) -> None:
    table = pictures(classes, salt)
    assume(reaches_all(table, by_rule(table)))
    before = assigned(table)
    assert before == by_rule(table)
    added = pictures(more, -1).replace({"label": {"ant": "a", "bee": "b"}})
    after = assigned(pd.concat([table, added], ignore_index=True))
    assert {digest: after[digest] for digest in before} == before


def test_shares_come_near_what_was_asked() -> None:
    split = assign(pictures({"a": 4000, "b": 4000}), SHARES, SEED)
    share = split.value_counts(normalize=True)
    assert share.to_dict() == pytest.approx({"train": 0.5, "val": 0.1, "test": 0.4}, abs=0.02)


def test_another_seed_is_another_split() -> None:
    table = pictures({"a": 50})
    assert assigned(table, seed=1) != assigned(table, seed=2)


def test_given_splits_are_kept_and_only_missing_ones_are_drawn() -> None:
    table = pd.concat([pictures({"a": 400}, split="train"), pictures({"a": 90}, split="test")], ignore_index=True)
    split = assign(table, SHARES, SEED)
    assert (split[table["split"] == "test"] == "test").all()
    drawn = split[table["split"] == "train"].value_counts(normalize=True)
    # Validation's share of what is not test: 0.1 of 0.6.
    assert drawn.to_dict() == pytest.approx({"train": 5 / 6, "val": 1 / 6}, abs=0.05)


def test_complete_given_splits_are_taken_as_they_are() -> None:
    parts = [
        pictures({"a": 3, "b": 1}, split="train"),
        pictures({"a": 1}, split="val"),
        pictures({"b": 2}, split="test"),
    ]
    table = pd.concat(parts, ignore_index=True)
    assert assign(table, SHARES, SEED).tolist() == table["split"].tolist()


def test_a_class_too_small_for_every_split_is_named_with_the_key() -> None:
    with pytest.raises(DataError, match=r"class 'bee' has 2 usable images, but data\.split needs at least 3") as caught:
        assign(pictures({"ant": 3, "bee": 2}), SHARES, SEED)
    assert "\n" not in str(caught.value)


@quick
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from("ab"), st.sampled_from([None, *SPLITS])), min_size=1, max_size=25
    )
)
def test_of_copies_one_is_left_and_of_conflicting_ones_none(rows: list[tuple[int, str, str | None]]) -> None:
    table = pd.DataFrame(rows, columns=["picture", "label", "split"]).astype(object)
    table["sha256"] = table["picture"].map(sha)
    table["path"] = [f"{label}/{i:02d}" for i, label in enumerate(table["label"])]
    out = resolve_duplicates(table)
    left = table.drop(index=out.index)
    rank = {"test": 0, "val": 1, "train": 2}
    for digest, copies in table.groupby("sha256"):
        kept = left[left["sha256"] == digest]
        if copies["label"].nunique() > 1:
            assert kept.empty
        else:
            assert len(kept) == 1
            assert rank.get(kept["split"].iat[0], 3) == min(rank.get(split, 3) for split in copies["split"])
    for row in out.itertuples():
        same, other = re.fullmatch(r"same picture (as|under another label as) (.+)", row.reason).groups()
        named = table[table["path"] == other].iloc[0]
        assert other != row.path
        assert named["sha256"] == row.sha256
        assert (named["label"] != row.label) == (same == "under another label as")


def test_which_copy_is_left_follows_the_names_not_the_order() -> None:
    table = pictures({"a": 1}).loc[[0, 0, 0]].reset_index(drop=True).assign(path=["z", "b", "m"])
    for order in ([0, 1, 2], [2, 0, 1]):
        out = resolve_duplicates(table.iloc[order])
        assert sorted(out["path"]) == ["m", "z"]
        assert set(out["reason"]) == {"same picture as b"}


def test_no_copies_nothing_to_leave_out() -> None:
    out = resolve_duplicates(pictures({"a": 5}))
    assert out.empty
    assert "reason" in out


@quick
@given(st.integers(1, 10), st.integers(0, 10), salts)
def test_few_labels_picks_so_many_a_class_and_nests(few: int, more: int, salt: int) -> None:
    parts = [pictures({"a": 20, "b": 30}, salt, "train"), pictures({"a": 3, "b": 4}, salt, "test")]
    table = pd.concat(parts, ignore_index=True)
    kept, wider = few_labels(table, few, SEED), few_labels(table, few + more, SEED)
    is_train = (table["split"] == "train").to_numpy()
    assert table[kept & is_train]["label"].value_counts().to_dict() == {"a": few, "b": few}
    assert kept[~is_train].all()
    assert wider[kept].all()


def test_few_labels_follows_the_pixels_not_the_order() -> None:
    table = pictures({"a": 30}, split="train")
    mixed = table.iloc[np.random.default_rng(0).permutation(30)].reset_index(drop=True)
    chosen = [set(t["sha256"][few_labels(t, 10, SEED)]) for t in (table, mixed)]
    assert chosen[0] == chosen[1]


def test_too_few_labels_name_the_class_and_the_key() -> None:
    with pytest.raises(DataError, match=r"class 'b' has 4 training images, fewer than data\.train_per_class = 5"):
        few_labels(pictures({"a": 9, "b": 4}, split="train"), 5, SEED)
