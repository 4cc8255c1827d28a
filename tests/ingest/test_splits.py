"""Splits depend on the pixels alone: they are stable when files are added or removed, and have no leaks."""

from __future__ import annotations

import hashlib
from random import Random

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from frostline.errors import DataError
from frostline.ingest.splits import ALL, SPLITS, Shares, assign, few_labels, position

SHARES = Shares(0.5, 0.1, 0.4)
SEED = 7

quick = settings(max_examples=40, deadline=None, database=None, derandomize=True)
counts = st.dictionaries(st.sampled_from(["ant", "bee", "cat"]), st.integers(3, 40), min_size=1)
salts = st.integers(0, 10_000)


def sha(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def images(classes: dict[str, int], salt: int = 0, split: str | None = None) -> pd.DataFrame:
    """A table of images that all differ."""
    rows = [
        (f"{split}/{label}/{i}", label, split, sha(salt, split, label, i))
        for label, n in classes.items()
        for i in range(n)
    ]
    table = pd.DataFrame(rows, columns=["path", "label", "split", "sha256"]).astype(object)
    return table.assign(group=None, together=range(len(table)))


def concat(*parts: pd.DataFrame) -> pd.DataFrame:
    """The rows of all tables, none of which belong together."""
    table = pd.concat(parts, ignore_index=True)
    return table.assign(together=range(len(table)))


def split_by_digest(table: pd.DataFrame, shares: Shares = SHARES, seed: int = SEED) -> dict[str, str]:
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
def test_order_and_names_do_not_matter(classes: dict[str, int], salt: int, random: Random) -> None:
    table = images(classes, salt)
    order = list(range(len(table)))
    random.shuffle(order)
    other = table.iloc[order].reset_index(drop=True)
    other["path"] = [f"renamed-{i}" for i in range(len(other))]
    assert split_by_digest(other) == split_by_digest(table)


@quick
@given(counts, salts)
def test_every_class_of_three_images_reaches_every_split(classes: dict[str, int], salt: int) -> None:
    table = images(classes, salt)
    assert reaches_all(table, split_by_digest(table))


@quick
@given(st.dictionaries(st.sampled_from("ab"), st.integers(20, 60), min_size=1), counts, salts)
def test_adding_images_moves_no_other(classes: dict[str, int], more: dict[str, int], salt: int) -> None:
    table = images(classes, salt)
    assume(reaches_all(table, by_rule(table)))
    before = split_by_digest(table)
    assert before == by_rule(table)
    additions = images(more, -1).replace({"label": {"ant": "a", "bee": "b"}})
    after = split_by_digest(concat(table, additions))
    assert {digest: after[digest] for digest in before} == before


def test_shares_come_near_the_settings() -> None:
    split = assign(images({"a": 4000, "b": 4000}), SHARES, SEED)
    share = split.value_counts(normalize=True)
    assert share.to_dict() == pytest.approx({"train": 0.5, "val": 0.1, "test": 0.4}, abs=0.02)


def test_another_seed_is_another_split() -> None:
    table = images({"a": 50})
    assert split_by_digest(table, seed=1) != split_by_digest(table, seed=2)


def test_given_splits_are_kept_and_only_missing_ones_are_drawn() -> None:
    table = concat(images({"a": 400}, split="train"), images({"a": 90}, split="test"))
    split = assign(table, SHARES, SEED)
    assert (split[table["split"] == "test"] == "test").all()
    shares = split[table["split"] == "train"].value_counts(normalize=True)
    # Validation's share of what is not test: 0.1 of 0.6.
    assert shares.to_dict() == pytest.approx({"train": 5 / 6, "val": 1 / 6}, abs=0.05)


def test_complete_given_splits_are_taken_as_they_are() -> None:
    parts = [
        images({"a": 3, "b": 1}, split="train"),
        images({"a": 1}, split="val"),
        images({"b": 2}, split="test"),
    ]
    table = concat(*parts)
    assert assign(table, SHARES, SEED).tolist() == table["split"].tolist()


@pytest.mark.parametrize(("count", "splits"), [(1, ["train"]), (2, ["test", "train"]), (3, ["test", "train", "val"])])
def test_a_class_too_small_for_every_split_goes_to_train_and_test_first(count: int, splits: list[str]) -> None:
    for salt in range(20):
        assert sorted(set(assign(images({"ant": count}, salt), SHARES, SEED))) == splits


def sets(sizes: list[int], salt: int, grouped: bool) -> pd.DataFrame:
    """Images of one class in sets that belong together, as groups or as near-copies."""
    table = images({"a": sum(sizes)}, salt)
    table["together"] = np.repeat(np.arange(len(sizes)), sizes)
    return table.assign(group="of " + table["together"].astype(str) if grouped else None)


@quick
@given(st.lists(st.integers(1, 6), min_size=3, max_size=30), salts, st.booleans(), st.randoms(use_true_random=False))
def test_images_that_belong_together_are_in_one_split(
    sizes: list[int], salt: int, grouped: bool, random: Random
) -> None:
    table = sets(sizes, salt, grouped)
    split = assign(table, SHARES, SEED)
    assert (split.groupby(table["together"]).nunique() == 1).all()
    assert set(split) == set(SPLITS)
    order = list(range(len(table)))
    random.shuffle(order)
    number = list(range(len(sizes)))
    random.shuffle(number)
    other = table.iloc[order].assign(together=lambda t: [number[k] for k in t["together"]])
    pd.testing.assert_series_equal(assign(other, SHARES, SEED).sort_index(), split)


def test_sets_meet_the_shares_whatever_their_size() -> None:
    for grouped in (True, False):
        table = sets([7] * 3000, 0, grouped)
        share = assign(table, SHARES, SEED).value_counts(normalize=True)
        assert share.to_dict() == pytest.approx({"train": 0.5, "val": 0.1, "test": 0.4}, abs=0.03)


def test_a_group_stays_where_it_is_when_it_grows() -> None:
    table = sets([4] * 60, 0, grouped=True)
    few = table.groupby("together").head(2)
    before, after = assign(few, SHARES, SEED), assign(table, SHARES, SEED)
    pd.testing.assert_series_equal(after[few.index], before)


def test_a_set_of_several_classes_is_in_one_split_and_counts_for_each() -> None:
    table = images({"a": 6, "b": 6})
    table["together"] = table["path"].str.rsplit("/").str[-1].astype(int)  # one of a with one of b
    table["group"] = "of " + table["together"].astype(str)
    split = assign(table, SHARES, SEED)
    assert (split.groupby(table["together"]).nunique() == 1).all()


@quick
@given(st.integers(1, 10), st.integers(0, 10), salts)
def test_few_labels_picks_that_many_per_class_and_nests(few: int, more: int, salt: int) -> None:
    parts = [images({"a": 20, "b": 30}, salt, "train"), images({"a": 3, "b": 4}, salt, "test")]
    table = concat(*parts)
    is_kept, is_kept_of_more = few_labels(table, few, SEED), few_labels(table, few + more, SEED)
    is_train = (table["split"] == "train").to_numpy()
    assert table[is_kept & is_train]["label"].value_counts().to_dict() == {"a": few, "b": few}
    assert is_kept[~is_train].all()
    assert is_kept_of_more[is_kept].all()


def test_few_labels_depends_on_the_pixels_not_the_order() -> None:
    table = images({"a": 30}, split="train")
    mixed = table.iloc[np.random.default_rng(0).permutation(30)].reset_index(drop=True)
    digest_sets = [set(t["sha256"][few_labels(t, 10, SEED)]) for t in (table, mixed)]
    assert digest_sets[0] == digest_sets[1]


def test_too_few_labels_name_the_class_and_the_key() -> None:
    with pytest.raises(DataError, match=r"class 'b' has 4 training images, fewer than data\.train_per_class = 5"):
        few_labels(images({"a": 9, "b": 4}, split="train"), 5, SEED)


def test_calibration_images_come_from_train_alone() -> None:
    """With a share for calibration, test and val keep their images, and no split shares one with another."""
    table = images({"ant": 200, "bee": 300})
    without = split_by_digest(table, Shares(0.6, 0.2, 0.2))
    with_share = split_by_digest(table, Shares(0.4, 0.2, 0.2, 0.2))
    assert set(with_share.values()) == set(ALL)
    changed = {sha for sha in without if without[sha] != with_share[sha]}
    assert {(without[sha], with_share[sha]) for sha in changed} == {("train", "calibration")}
    assert 60 < len(changed) < 140
    given = concat(images({"ant": 100}, split="train"), images({"ant": 20}, 1, "val"), images({"ant": 20}, 2, "test"))
    splits = assign(given, Shares(0.7, 0.1, 0.1, 0.1), SEED)
    assert set(splits[given["split"] != "train"]) == {"val", "test"}
    assert set(splits[given["split"] == "train"]) == {"train", "calibration"}
