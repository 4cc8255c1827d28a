"""What a source contains, and a message of one line for each invalid source."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from frostline.data.images import UnreadableImageError, decode
from frostline.errors import DataError
from frostline.ingest.sources import Source, open_source
from frostline.ingest.structures import AUTOMATIC, Structure

SYNTHETIC = {"kind": "synthetic", "fractals": 1, "letters": 2, "images_per_class": 3, "size": 16, "seed": 1}


def put(root: Path, *paths: str) -> Path:
    """Create files of one byte. They need not be images, since the table is built without opening any."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")
    return root


def source_of(path: Path, structure: Structure = AUTOMATIC) -> Source:
    """Open a source. An archive is unpacked beside it."""
    scratch = path.parent / "scratch"
    if path.suffix in {".zip", ".tar", ".gz"}:
        scratch.mkdir()
    return open_source(path, scratch, structure)


def rows(root: Path, **structure: Any) -> list[tuple[str, str, str | None]]:
    table = source_of(root, Structure(**structure)).table.astype(object)
    return list(table.where(table.notna(), None)[["path", "label", "split"]].itertuples(index=False, name=None))


def problems(root: Path) -> dict[str, str]:
    return {problem.path: problem.reason for problem in source_of(root).problems}


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as error:
        source_of(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


@contextmanager
def unprivileged() -> Iterator[None]:
    """Root may read everything, so become another user for a moment."""
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if was_root:
            os.seteuid(0)


@pytest.fixture
def public() -> Iterator[Path]:
    """A temporary folder that other users may list too."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_class_folders_name_the_classes(tmp_path: Path) -> None:
    put(tmp_path, "bee/2.jpg", "ant/1.png", "bee/deep/er/3.jpg")
    assert rows(tmp_path) == [
        ("ant/1.png", "ant", None),
        ("bee/2.jpg", "bee", None),
        ("bee/deep/er/3.jpg", "bee", None),
    ]


def test_hidden_files_and_files_beside_class_folders_are_no_images(tmp_path: Path) -> None:
    put(tmp_path, "ant/1.png", "bee/2.png", "README", ".git/x", "ant/.DS_Store", "ant/.thumbs/1.png", "ant/._1.png")
    assert [path for path, _, _ in rows(tmp_path)] == ["ant/1.png", "bee/2.png"]


@pytest.mark.parametrize(
    ("name", "split"),
    [("VAL", "val"), ("Testing", "test"), ("dev_set", "val"), ("Evaluation", "test"), ("x_test", "test")],
)
@pytest.mark.parametrize("train", ["train", "Training", "train_set"])
def test_split_folders_are_recognised_by_their_usual_names(tmp_path: Path, train: str, name: str, split: str) -> None:
    put(tmp_path, f"{train}/ant/1", f"{train}/bee/2", f"{name}/ant/3", f"{train}/README")
    assert (f"{name}/ant/3", "ant", split) in rows(tmp_path)
    assert {label for _, label, _ in rows(tmp_path)} == {"ant", "bee"}


def test_a_split_may_lack_a_class(tmp_path: Path) -> None:
    put(tmp_path, "train/ant/1", "train/bee/2", "test/ant/3")
    (tmp_path / "test/bee").mkdir()
    assert len(rows(tmp_path)) == 3


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    put(tmp_path, "train/1.png", "car/2.png", "plane/3.png")
    assert {label for _, label, _ in rows(tmp_path)} == {"train", "car", "plane"}


def test_folders_beside_the_splits_are_left_out_and_listed(tmp_path: Path) -> None:
    put(tmp_path, "train/ant/1", "train/bee/2", "test/ant/3", "extra/ant/4", "__MACOSX/x", "@eaDir/y")
    assert [path for path, _, _ in rows(tmp_path)] == ["test/ant/3", "train/ant/1", "train/bee/2"]
    assert problems(tmp_path) == {"extra": "a folder beside the splits test, train"}


def test_one_split_under_two_names_is_one(tmp_path: Path) -> None:
    put(tmp_path, "train/ant/1", "val/ant/2", "validation/ant/3")
    assert {path: split for path, _, split in rows(tmp_path)} == {
        "train/ant/1": "train",
        "val/ant/2": "val",
        "validation/ant/3": "val",
    }


def test_splits_without_classes_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "train/1.png", "test/2.png")
    assert "test, train are called like splits, and none has classes to train on" in refusal(tmp_path)
    assert "data.class_level to 1" in refusal(tmp_path)
    assert [label for _, label, _ in rows(tmp_path, class_level=1)] == ["test", "train"]


def test_a_flat_test_folder_beside_labelled_ones_is_left_out_and_named(tmp_path: Path) -> None:
    put(tmp_path, "train/ant/1.png", "train/bee/2.png", "test/3.png", "test/4.png")
    assert {split for _, _, split in rows(tmp_path)} == {"train"}
    assert "has no class folders, so its images have no labels" in problems(tmp_path)["test"]


def test_folders_with_the_same_classes_are_splits_or_refused(tmp_path: Path) -> None:
    put(tmp_path / "a", "seg_train/ant/1", "seg_train/bee/2", "seg_test/ant/3", "seg_test/bee/4")
    assert {split for _, _, split in rows(tmp_path / "a")} == {"train", "test"}
    put(tmp_path / "b", "one/ant/1", "one/bee/2", "two/ant/3", "two/bee/4")
    assert "one, two hold the same class folders, so it is not clear what they are" in refusal(tmp_path / "b")
    chosen = rows(tmp_path / "b", splits={"train": "one", "test": "two"})
    assert {(label, split) for _, label, split in chosen} == {(a, b) for a in ("ant", "bee") for b in ("train", "test")}
    assert {label for _, label, _ in rows(tmp_path / "b", class_level=1)} == {"one", "two"}
    assert {(label, split) for _, label, split in rows(tmp_path / "b", class_level=2)} == {("ant", None), ("bee", None)}
    put(tmp_path / "c", "train/ant/1", "train/bee/2", "unseen/ant/3", "unseen/bee/4")
    assert "train, unseen hold the same class folders" in refusal(tmp_path / "c")


def test_splits_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "one/ant/1", "one/bee/2", "two/ant/3", "two/bee/4")
    with pytest.raises(DataError, match=r"has no folder 'three' but one, two; fix data.splits"):
        source_of(tmp_path, Structure({"train": "one", "test": "three"}))


def test_splits_may_lie_in_the_classes(tmp_path: Path) -> None:
    put(tmp_path, "ant/train/1.png", "ant/test/2.png", "bee/train/3.png")
    assert rows(tmp_path) == [
        ("ant/test/2.png", "ant", "test"),
        ("ant/train/1.png", "ant", "train"),
        ("bee/train/3.png", "bee", "train"),
    ]


def test_of_two_levels_of_folders_the_top_ones_are_classes_with_a_warning(tmp_path: Path) -> None:
    put(tmp_path, "pets/cat/1", "pets/dog/2", "wild/fox/3", "wild/wolf/4")
    assert {label for _, label, _ in rows(tmp_path)} == {"pets", "wild"}
    (warning,) = source_of(tmp_path).warnings
    assert (
        "the classes are the top folders (pets, wild), not the folders in them (cat, dog, fox, wolf)" in warning.reason
    )
    assert {label for _, label, _ in rows(tmp_path, class_level=2)} == {"cat", "dog", "fox", "wolf"}
    assert source_of(tmp_path, Structure(class_level=1)).warnings == []


def test_a_single_folder_around_everything_is_looked_into(tmp_path: Path) -> None:
    put(tmp_path, "photos/v2/ant/1.png", "photos/v2/bee/2.png", "photos/LICENSE", "__MACOSX/x")
    assert rows(tmp_path) == [("photos/v2/ant/1.png", "ant", None), ("photos/v2/bee/2.png", "bee", None)]
    shutil.rmtree(tmp_path / "photos")
    put(tmp_path, "train/ant/1.png", "train/bee/2.png")
    assert rows(tmp_path) == [("train/ant/1.png", "ant", "train"), ("train/bee/2.png", "bee", "train")]


def test_images_outside_the_class_folders_are_listed(tmp_path: Path) -> None:
    put(tmp_path, "ant/1.png", "bee/2.png", "loose.JPG", "notes.txt")
    assert problems(tmp_path) == {"loose.JPG": "lies in no class folder"}


def test_odd_labels_and_names_are_kept(tmp_path: Path) -> None:
    names = ["Ωmega/ü.png", "a b/c'd\".png", "x,y/[1]*?.png", "screen/at\u202f3\u00a0PM.png"]
    assert sorted(path for path, _, _ in rows(put(tmp_path, *names))) == sorted(names)


def test_a_name_that_is_not_utf8_is_escaped_so_that_it_can_be_found(tmp_path: Path) -> None:
    put(tmp_path, "ant/1.png")
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/ant/caf\xe9.png")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes no such names")
    assert rows(tmp_path) == [("ant/1.png", "ant", None)]
    assert problems(tmp_path) == {r"ant/caf\xe9.png": "the name is not UTF-8; rename it"}


def test_links_to_folders_are_classes_but_loops_end(tmp_path: Path) -> None:
    put(tmp_path, "elsewhere/1.png", "source/ant/2.png")
    (tmp_path / "source/bee").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "source/ant/loop").symlink_to(tmp_path / "source")
    (tmp_path / "source/self").symlink_to(tmp_path / "source/self")
    (tmp_path / "source/all").symlink_to(tmp_path / "source")
    assert [path for path, _, _ in rows(tmp_path / "source")] == ["ant/2.png", "bee/1.png"]
    assert problems(tmp_path / "source") == {
        "all": "a link to a folder that it lies in",
        "ant/loop": "a link to a folder, which is not followed",
        "self": "Too many levels of symbolic links",
    }


def test_an_empty_class_is_listed(tmp_path: Path) -> None:
    put(tmp_path, "ant/1.png", "bee/.hidden")
    assert problems(tmp_path) == {"bee": "an empty class folder"}


def test_an_invalid_source_is_refused(tmp_path: Path) -> None:
    assert "has no subfolders" in refusal(put(tmp_path / "flat", "1.png"))
    assert "must be a folder of class folders or of WebDataset's tars" in refusal(put(tmp_path, "one.png") / "one.png")
    assert "not found; set data.source" in refusal(tmp_path / "none")
    assert "not found; set data.source" in refusal(tmp_path / "none.yaml")
    assert "can't be read (File name too long)" in refusal(tmp_path / ("x" * 300))


def test_a_source_without_permission_is_refused(public: Path) -> None:
    put(public, "source/ant/1.png")
    (public / "source").chmod(0)
    try:
        with unprivileged(), pytest.raises(DataError, match="fix its permissions") as error:
            open_source(public / "source", public)
        assert f"{public / 'source'}: can't be read (Permission denied)" in str(error.value)
    finally:
        (public / "source").chmod(0o755)


@pytest.mark.parametrize("name", ["ant", "ant/deep"])
def test_a_folder_without_permission_is_listed_not_ignored(public: Path, name: str) -> None:
    put(public, "source/ant/deep/1.png", "source/ant/0.png", "source/bee/2.png")
    folder = public / "source" / name
    folder.chmod(0)
    try:
        with unprivileged():
            source = open_source(public / "source", public)
        assert [(problem.path, problem.reason) for problem in source.problems] == [
            (name, "can't be listed (Permission denied)")
        ]
        assert "bee/2.png" in set(source.table["path"])
    finally:
        folder.chmod(0o755)


def test_a_file_without_permission_is_unreadable_without_naming_its_place(public: Path) -> None:
    put(public, "ant/1.png", "bee/2.png")
    source = source_of(public)
    (public / "ant/1.png").chmod(0)
    (public / "bee").chmod(0)
    try:
        for path in source.table["path"]:
            with unprivileged(), pytest.raises(UnreadableImageError) as error:
                source.reader.read(path, None)
            assert str(error.value) == "Permission denied"
    finally:
        (public / "bee").chmod(0o755)


def test_a_folder_is_read_path_by_path(tmp_path: Path) -> None:
    put(tmp_path, "ant/1.png", "bee/2.png")
    Image.new("RGB", (3, 2), (1, 2, 3)).save(tmp_path / "bee/2.png")
    (tmp_path / "ant/0.png").symlink_to(tmp_path / "nowhere")
    reader = source_of(tmp_path).reader
    assert np.asarray(reader.read("bee/2.png", None).image).tolist() == [[[1, 2, 3]] * 3] * 2
    for path, reason in (("ant/0.png", "no such file"), ("ant", "not a regular file"), ("ant/1.png", "not an image")):
        with pytest.raises(UnreadableImageError, match=reason):
            reader.read(path, None)


def card(folder: Path, text: str) -> Path:
    path = folder / "card.yaml"
    path.write_text(text)
    return path


def test_the_digits_are_built_in(tmp_path: Path) -> None:
    source = source_of(card(tmp_path, "kind: digits\n"))
    assert len(source.table) == 1797
    assert sorted(source.table["label"].unique()) == list("0123456789")
    assert source.table["path"].is_unique
    pixels = np.asarray(source.reader.read("digits/0000", None).image)
    assert (pixels.shape, pixels.dtype) == ((8, 8, 3), np.uint8)
    assert pixels.max() > 200
    assert source.table["label"].iat[0] == "0"


def test_synthetic_images_are_drawn_when_read(tmp_path: Path) -> None:
    source = source_of(card(tmp_path, str(SYNTHETIC)))
    assert source.table["label"].value_counts().to_dict() == {"fractal-0000": 3, "letter-0041": 3, "letter-0042": 3}
    assert source.table["path"].is_unique
    pixels = [np.asarray(source.reader.read(path, None).image) for path in source.table["path"]]
    assert all((p.shape, p.dtype) == ((16, 16, 3), np.uint8) for p in pixels)
    assert len({p.tobytes() for p in pixels}) == 9
    np.testing.assert_array_equal(source.reader.read("letter-0041/00001", None).image, pixels[4])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "kind is None; use one of digits, synthetic, kaggle"),
        ("kind: cifar\n", "kind is 'cifar'; use one of digits, synthetic, kaggle"),
        ("kind: [digits]\n", "kind is ['digits']"),
        ("- digits\n", "kind is None"),
        ("kind: digits\nsize: 8\n", "size: extra inputs are not permitted; fix that key"),
        (str(SYNTHETIC | {"letters": 1000}), "letters: input should be less than or equal to"),
        (str({key: value for key, value in SYNTHETIC.items() if key != "size"}), "size: field required"),
        ("kind: [\n", "not YAML; fix it"),
        ("kind: 2024-13-45\n", "month must be in 1..12); fix it"),
        ("kind: \0\n", "not YAML; fix it"),
    ],
)
def test_a_broken_card_is_reported_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    assert message in refusal(card(tmp_path, text))


def test_a_card_that_is_not_utf8_is_reported_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "card.yml"
    path.write_bytes(b"kind: \xff\xfe\n")
    assert "not YAML" in refusal(path)


@pytest.mark.parametrize("card", [{"kind": "digits"}, SYNTHETIC], ids=["digits", "synthetic"])
def test_an_image_without_a_file_is_a_png_of_its_pixels(tmp_path: Path, card: dict[str, Any]) -> None:
    (tmp_path / "card.yaml").write_text(json.dumps(card))
    source = source_of(tmp_path / "card.yaml")
    path = source.table["path"].iloc[2]
    expected = np.asarray(source.reader.read(path, None).image)
    np.testing.assert_array_equal(decode(source.reader.coded(path)), expected)
