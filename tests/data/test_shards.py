"""Shards give back the images that were written, and their digests depend on the content."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from frostline.core import digest
from frostline.data import codecs, shard_index, shards
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


def photo_like(count: int) -> NDArray[np.uint8]:
    """Smooth images, since noise is no picture for a JPEG."""
    small = np.random.default_rng(1).integers(0, 256, (count, 3, 3, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(each).resize((8, 8), Image.Resampling.BICUBIC)) for each in small])


@pytest.mark.usefixtures("three_a_shard")
@pytest.mark.parametrize("codec", codecs.CODECS)
def test_coded_shards_give_back_what_pillow_decodes(tmp_path: Path, codec: str) -> None:
    images = photo_like(10)
    raw = write(tmp_path / "raw", images)
    (tmp_path / "coded").mkdir()
    coded = shards.write(tmp_path / "coded", LAYOUT, index([0, 1] * 5), iter(images), codec=codec)
    reopened = shards.open_folder(tmp_path / "coded")
    files = b"".join(path.read_bytes() for path in sorted((tmp_path / "coded").glob("images-*")))
    lengths, start, expected = reopened.index["coded_bytes"], 0, []
    for length in lengths:
        with Image.open(io.BytesIO(files[start : start + length])) as image:
            expected.append(np.asarray(image.convert("RGB")))
        start += length
    assert start == len(files)
    everything = np.arange(10)
    np.testing.assert_array_equal(reopened.take(everything), expected)
    np.testing.assert_array_equal(reopened.take(np.array([9, 0, 4, 4])), np.stack(expected)[[9, 0, 4, 4]])
    assert [each.decode() for each in reopened.index.fixed("digest", 64)] == [
        hashlib.sha256(image.tobytes()).hexdigest() for image in expected
    ]
    assert reopened.source_digest() == raw.source_digest() == coded.source_digest()
    assert np.abs(reopened.take(everything).astype(int) - images).mean() < 20
    is_same = codec == "webp_lossless"
    assert (reopened.digest == raw.digest) == np.array_equal(reopened.take(everything), images) == is_same


@pytest.mark.usefixtures("three_a_shard")
def test_a_damaged_coded_shard_and_an_unknown_codec_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    shards.write(folder, LAYOUT, index([0, 1] * 5), iter(photo_like(10)), codec="jpeg")
    path = folder / "images-00001.jpeg"
    data = bytearray(path.read_bytes())
    data[50] ^= 4
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"images-00001\.jpeg: is damaged .*; remove .*, then run `dvc repro`"):
        shards.open_folder(folder).take(np.array([4]))
    meta = json.loads((folder / "meta.json").read_text()) | {"codec": "avif"}
    meta.pop("checksum")
    (folder / "meta.json").write_text(json.dumps(meta | {"checksum": shards._checksum(meta)}))
    with pytest.raises(DataError, match="the codec 'avif' is unknown to this version"):
        shards.open_folder(folder)


def test_the_index_gives_single_columns_and_the_start_of_texts(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    rows = index([0, 1] * 5)
    found = write(tmp_path / "s", images, rows).index
    assert len(found) == 10
    assert found.columns == ("path", "label", "sha256", "together", "digest")
    assert "coded_bytes" not in found
    assert found["path"].tolist() == rows["path"].tolist()
    assert found.fixed("sha256", 5).tolist() == [sha[:5].encode() for sha in rows["sha256"]]
    assert found.fixed("path", 9).tolist() == [name.encode() for name in rows["path"]]  # texts shorter than that


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
    return images.index.frame(), images.take(np.arange(10))


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
    save = shard_index.write

    def write_without(path: Path, columns: dict[str, Any], rows: int) -> None:
        save(path, {name: values for name, values in columns.items() if name != "together"}, rows)

    monkeypatch.setattr(shard_index, "write", write_without)
    write(tmp_path / "old", images)
    old = shards.open_folder(tmp_path / "old")
    with pytest.raises(DataError, match=r"old: an older frostline prepared it, .*; run `dvc repro`$"):
        _ = old.together
    np.testing.assert_array_equal(old.take(np.arange(10)), images)
