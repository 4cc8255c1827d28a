"""Shards give back the images that were written, and their digests depend on the content."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from frostline.core import digest
from frostline.data import shards
from frostline.errors import DataError

LAYOUT = shards.Layout(("ant", "bee"), 8, "stretch")


@pytest.fixture
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def three_a_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 3 * 8 * 8 * 3 + 5)


def index(labels: list[int]) -> pd.DataFrame:
    names = [f"{i}.png" for i in range(len(labels))]
    return pd.DataFrame({"path": names, "label": labels, "sha256": [digest.of_value(name) for name in names]})


def write(folder: Path, images: NDArray[np.uint8], rows: pd.DataFrame | None = None) -> shards.Shards:
    folder.mkdir()
    return shards.write(folder, LAYOUT, index([0, 1] * 5) if rows is None else rows, iter(images))


@pytest.mark.usefixtures("three_a_shard")
def test_several_shards_give_back_every_image(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    shards_written = write(tmp_path / "s", images)
    assert [len(array) for array in shards_written.pieces.arrays] == [3, 3, 3, 1]
    reopened = shards.open_folder(tmp_path / "s")
    assert (reopened.layout, reopened.digest, len(reopened)) == (LAYOUT, shards_written.digest, 10)
    assert reopened.labels.tolist() == [0, 1] * 5
    assert reopened.labels.dtype == np.int64
    for rows in ([0], [9, 0, 4, 4], list(range(10)), []):
        pixels = reopened.take(np.array(rows, np.int64))
        assert pixels.dtype == np.uint8
        np.testing.assert_array_equal(pixels, images[rows])
    with pytest.raises(IndexError):
        reopened.take(np.array([10]))


def test_one_shard_gives_the_same_as_several(
    tmp_path: Path, images: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = write(tmp_path / "one", images)
    monkeypatch.setattr(shards, "SHARD_BYTES", 1)
    each = write(tmp_path / "each", images)
    rows = np.array([7, 2, 2])
    assert (len(one.pieces.arrays), len(each.pieces.arrays)) == (1, 10)
    assert one.digest == each.digest
    np.testing.assert_array_equal(one.take(rows), each.take(rows))


def test_take_returns_a_copy(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    pixels = write(tmp_path / "s", images).take(np.arange(10))
    pixels[:] = 0
    np.testing.assert_array_equal(shards.open_folder(tmp_path / "s").take(np.arange(10)), images)


@pytest.mark.usefixtures("three_a_shard")
def test_two_writes_give_identical_bytes(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    write(tmp_path / "a", images)
    write(tmp_path / "b", images)
    assert digest.of_folder(tmp_path / "a") == digest.of_folder(tmp_path / "b")


def test_the_digest_depends_on_pixels_labels_and_classes(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    other = images.copy()
    other[3, 0, 0, 0] ^= 1
    (tmp_path / "classes").mkdir()
    other_classes = shards.write(
        tmp_path / "classes", shards.Layout(("ant", "fly"), 8, "stretch"), index([0, 1] * 5), images
    )
    digests = [
        write(tmp_path / "base", images).digest,
        write(tmp_path / "pixel", other).digest,
        write(tmp_path / "label", images, index([1, 1] + [0, 1] * 4)).digest,
        write(tmp_path / "order", images[::-1]).digest,
        other_classes.digest,
    ]
    assert len(set(digests)) == 5


def test_the_source_digest_depends_on_class_names_but_not_on_size_and_order(
    tmp_path: Path, images: NDArray[np.uint8]
) -> None:
    rows = index([0, 1] * 5)
    base = write(tmp_path / "base", images).source_digest()
    assert write(tmp_path / "turned", images[::-1], rows[::-1]).source_digest() == base
    (tmp_path / "small").mkdir()
    small = shards.write(tmp_path / "small", shards.Layout(("ant", "bee"), 4, "crop"), rows, images[:, :4, :4])
    assert small.source_digest() == base
    (tmp_path / "swapped").mkdir()
    swapped = shards.write(tmp_path / "swapped", shards.Layout(("bee", "ant"), 8, "stretch"), rows, images)
    assert swapped.source_digest() != base
    assert write(tmp_path / "fewer", images[:9], rows[:9]).source_digest() != base


@pytest.mark.parametrize(("count", "message"), [(9, "fewer images than rows"), (11, "more images than the 10 rows")])
def test_as_many_images_as_rows_or_an_error(
    tmp_path: Path, images: NDArray[np.uint8], count: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "s", np.concatenate([images, images])[:count])


@pytest.mark.parametrize("wrong", [np.zeros((8, 8, 3), np.float32), np.zeros((8, 9, 3), np.uint8), np.zeros((8, 8))])
def test_an_image_that_would_shift_all_others_is_refused(tmp_path: Path, wrong: NDArray[np.uint8]) -> None:
    (tmp_path / "s").mkdir()
    with pytest.raises(ValueError, match=r"not uint8 \(8, 8, 3\)"):
        shards.write(tmp_path / "s", LAYOUT, index([0]), [wrong])


def test_no_images_make_an_empty_set(tmp_path: Path) -> None:
    empty = write(tmp_path / "s", np.empty((0, 8, 8, 3), np.uint8), index([]))
    assert len(empty) == 0
    assert empty.take(np.empty(0, np.int64)).shape == (0, 8, 8, 3)


@pytest.mark.parametrize("meta", [None, "", "[1]", "{}", json.dumps({"classes": 3})])
def test_a_folder_without_shards_says_what_to_run(tmp_path: Path, meta: str | None) -> None:
    if meta is not None:
        (tmp_path / "meta.json").write_text(meta)
    with pytest.raises(DataError, match="holds no prepared images") as error:
        shards.open_folder(tmp_path)
    assert "dvc repro" in str(error.value)


def read(folder: Path) -> tuple[pd.DataFrame, NDArray[np.uint8]]:
    images = shards.open_folder(folder)
    return images.index, images.take(np.arange(10))


@pytest.mark.usefixtures("three_a_shard")
def test_any_flipped_bit_is_noticed_before_it_is_used(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    folder = tmp_path / "s"
    write(folder, images)
    rng = np.random.default_rng(0)
    for path in sorted(folder.iterdir()):
        good = path.read_bytes()
        for place in rng.integers(0, 8 * len(good), 20):
            bad = bytearray(good)
            bad[place // 8] ^= 1 << (place % 8)
            path.write_bytes(bytes(bad))
            with pytest.raises(DataError, match=r"(damaged|holds no prepared images).*run `dvc repro`"):
                read(folder)
        path.write_bytes(good)
    np.testing.assert_array_equal(shards.open_folder(folder).take(np.arange(10)), images)


@pytest.mark.usefixtures("three_a_shard")
def test_only_files_that_are_read_are_checked(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    write(tmp_path / "s", images)
    (tmp_path / "s/images-00001.npy").unlink()
    reopened = shards.open_folder(tmp_path / "s")
    np.testing.assert_array_equal(reopened.take(np.array([0, 9])), images[[0, 9]])
    with pytest.raises(DataError, match=r"images-00001\.npy: is damaged \(No such file or dir.*\); remove .*/s, then"):
        reopened.take(np.array([4]))


def test_the_index_says_which_images_belong_together_and_an_older_one_does_not_say_alone(
    tmp_path: Path, images: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = ["", "a", "a", *[""] * 7]
    write(tmp_path / "new", images, index([0, 1] * 5).assign(together=sets))
    assert shards.open_folder(tmp_path / "new").together.tolist() == sets
    write(tmp_path / "alone", images)
    assert shards.open_folder(tmp_path / "alone").together.tolist() == [""] * 10
    save = shards._save
    monkeypatch.setattr(shards, "_save", lambda index, path: save(index.drop(columns="together"), path))
    write(tmp_path / "old", images)
    old = shards.open_folder(tmp_path / "old")
    with pytest.raises(DataError, match=r"old: an older frostline prepared it, .*; run `dvc repro`$"):
        _ = old.together
    np.testing.assert_array_equal(old.take(np.arange(10)), images)
