"""The stage prepare, in its own project folder."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import make_params
from PIL import Image, ImageEnhance

from frostline import paths
from frostline.core import digest
from frostline.data import shards
from frostline.data.images import NOT_AN_IMAGE
from frostline.data.images import prepare as prepare_image
from frostline.errors import DataError
from frostline.ingest import report as report_module
from frostline.ingest import splits
from frostline.params.schema import Params
from frostline.stages import prepare

SETTINGS = {"image_size": 16, "train_per_class": None, "resize": "stretch", "on_problem": "drop"}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def params(source: str | Path = "images", **data: Any) -> Params:
    settings = SETTINGS | {"source": str(source)} | data
    return make_params(**{f"data__{key}": value for key, value in settings.items()})


def paint(folder: str | Path, count: int, start: int = 0) -> None:
    """Write `count` different images. The same folder name and numbers give the same images."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count):
        rng = np.random.default_rng([number, *str(folder).encode()])
        Image.fromarray(rng.integers(0, 256, (12, 14, 3), dtype=np.uint8)).save(Path(folder) / f"{number:03d}.png")


@pytest.fixture
def images(project: Path) -> Path:
    for label in ("ant", "bee", "cat"):
        paint(f"images/{label}", 12)
    return project / "images"


def sets(split: shards.Shards) -> Iterator[tuple[str, str]]:
    return zip(split.index["path"], split.together, strict=True)


def report() -> dict[str, Any]:
    return json.loads(paths.DATA_REPORT.read_text(encoding="utf-8"))


def problems() -> dict[str, tuple[str, str]]:
    return {problem["path"]: (problem["kind"], problem["reason"]) for problem in report()["problems"]}


def prepared() -> dict[str, shards.Shards]:
    return {name: shards.open_folder(paths.PREPARED / name) for name in splits.SPLITS}


def outputs() -> tuple[str, str]:
    return digest.of_folder(paths.PREPARED), digest.of_file(paths.DATA_REPORT)


def refusal(settings: Params) -> str:
    """The one-line error of prepare, which must leave no files."""
    with pytest.raises(DataError) as error:
        prepare.run(settings)
    assert "\n" not in str(error.value)
    assert not paths.DATA_REPORT.exists()
    data = paths.PREPARED.parent
    assert not data.exists() or list(data.iterdir()) == []
    return str(error.value)


@pytest.mark.usefixtures("images")
def test_a_folder_becomes_shards_and_a_report() -> None:
    text = prepare.run(params())
    sets = prepared()
    assert sorted(path.name for path in paths.PREPARED.iterdir()) == ["calibration", "test", "train", "val"]
    assert list(paths.PREPARED.parent.iterdir()) == [paths.PREPARED]
    for name, split in sets.items():
        assert split.layout == shards.Layout(("ant", "bee", "cat"), 16, "stretch")
        assert set(split.labels) == {0, 1, 2}, name
    data_report = report()
    assert data_report["source"] == "images"
    assert data_report["classes"] == ["ant", "bee", "cat"]
    assert data_report["images"] == {name: len(split) for name, split in sets.items()}
    assert sum(data_report["images"].values()) == 36
    assert data_report["images_per_class"]["train"] == {
        label: int((sets["train"].labels == number).sum()) for number, label in enumerate(data_report["classes"])
    }
    assert data_report["problems"] == []
    assert data_report["digests"] == {
        name: {"source": split.source_digest(), "shards": split.digest} for name, split in sets.items()
    }
    sizes = ", ".join(f"{name} {len(split)}" for name, split in sets.items())
    assert text.splitlines() == [
        f"prepare: 3 classes; {sizes}",
        "  the source has no splits, so they were drawn by content: 80% train, 10% val, 10% test (data.split)",
    ]


def test_pixels_labels_and_digests_belong_together(images: Path) -> None:
    prepare.run(params())
    for split in prepared().values():
        pixels = split.take(np.arange(len(split)))
        for row, image in zip(split.index.frame().itertuples(), pixels, strict=True):
            assert split.layout.classes[row.label] == Path(row.path).parts[0]
            np.testing.assert_array_equal(image, prepare_image(images / row.path, 16, "stretch"))


@pytest.mark.usefixtures("images")
def test_two_runs_give_identical_bytes(project: Path) -> None:
    prepare.run(params())
    first = outputs()
    for path in project.glob("images/*/*"):
        os.utime(path, (0, 0))
    prepare.run(params())
    assert outputs() == first


def test_an_added_image_changes_the_output_but_moves_no_other(images: Path) -> None:
    for label in ("ant", "bee"):
        paint(f"images/{label}", 48, start=12)
    settings = params(split={"train": 0.5, "val": 0.2, "test": 0.3})
    paint("images/cat", 48, start=12)
    prepare.run(settings)
    before, split_of = outputs(), {sha: name for name, s in prepared().items() for sha in s.index["sha256"]}
    paint(images / "ant", 1, start=999)
    prepare.run(settings)
    after = {sha: name for name, s in prepared().items() for sha in s.index["sha256"]}
    assert outputs() != before
    assert len(after) == len(split_of) + 1
    assert split_of.items() <= after.items()


@pytest.mark.usefixtures("images")
def test_with_few_labels_validation_and_test_stay_the_same() -> None:
    prepare.run(params())
    all_splits, train_count = prepared(), report()["images"]["train"]
    prepare.run(params(train_per_class=3))
    few = prepared()
    assert np.bincount(few["train"].labels).tolist() == [3, 3, 3]
    for name in ("val", "test"):
        assert few[name].digest == all_splits[name].digest
    assert report()["left_out_by_train_per_class"] == train_count - 9 > 0


def test_unreadable_files_and_duplicates_are_dropped_and_reported(images: Path) -> None:
    (images / "ant" / "words.jpg").write_text("words")
    (images / "bee" / "again.bmp").write_bytes(b"")
    Image.open(images / "cat" / "000.png").save(images / "cat" / "copy.bmp")
    Image.open(images / "cat" / "001.png").save(images / "bee" / "stranger.png")
    text = prepare.run(params())
    assert problems() == {
        "ant/words.jpg": ("not_an_image", NOT_AN_IMAGE),
        "bee/again.bmp": ("not_an_image", "not an image (empty)"),
        "bee/stranger.png": ("label_conflict", "same image under another label as cat/001.png"),
        "cat/001.png": ("label_conflict", "same image under another label as bee/stranger.png"),
        "cat/copy.bmp": ("duplicate", "same image as cat/000.png"),
    }
    assert {problem["label"] for problem in report()["problems"]} == {"ant", "bee", "cat"}
    assert report()["problem_counts"] == {"not_an_image": 2, "label_conflict": 2, "duplicate": 1}
    lines = text.splitlines()
    assert lines[0].endswith("; 5 dropped")
    assert lines[1] == f"  not_an_image         2  ant/words.jpg: {NOT_AN_IMAGE}"
    assert lines[-1] == "  reports/data.json lists all of them"
    assert sum(report()["images"].values()) == 35


def test_a_problem_is_an_error_if_on_problem_is_error(images: Path) -> None:
    (images / "ant" / "words.jpg").write_text("words")
    (images / "bee" / "words.jpg").write_text("words")
    message = refusal(params(on_problem="error"))
    assert message == (
        f"images/ant/words.jpg: {NOT_AN_IMAGE} (and 1 more); fix or remove it, or set data.on_problem to drop"
    )


def test_a_test_image_that_is_also_in_train_is_removed_from_train() -> None:
    for label in ("ant", "bee"):
        paint(f"given/train/{label}", 8)
        paint(f"given/test/{label}", 3)
    Image.open("given/test/ant/001.png").save("given/train/ant/leak.png")
    prepare.run(params("given"))
    sets = prepared()
    assert len(sets["test"]) == 6
    assert problems() == {"train/ant/leak.png": ("duplicate", "same image as test/ant/001.png")}
    digests = [set(split.index["sha256"]) for split in sets.values()]
    assert sum(map(len, digests)) == len(set.union(*digests)) == 22


def test_a_class_that_only_the_test_split_lacks_can_be_learned() -> None:
    for label in ("ant", "bee", "cat"):
        paint(f"given/train/{label}", 5)
        paint(f"given/val/{label}", 2)
    paint("given/test/ant", 2)
    paint("given/test/cat", 2)
    prepare.run(params("given"))
    assert report()["images_per_class"]["test"] == {"ant": 2, "bee": 0, "cat": 2}


def test_the_splits_that_were_drawn_from_train_are_named() -> None:
    for label in ("ant", "bee"):
        paint(f"given/train/{label}", 20)
        paint(f"given/val/{label}", 5)
    text = prepare.run(params("given"))
    drawn = "  the source has no test, so images were drawn from train by content:"
    assert f"{drawn} {report()['images']['test']} for test" in text.splitlines()
    for label in ("ant", "bee"):
        paint(f"given/test/{label}", 5)
    assert "drawn" not in prepare.run(params("given"))


def test_a_card_has_its_own_split_and_labels_unless_params_say_otherwise() -> None:
    Path("card.yaml").write_text(
        "kind: digits\ntrain_per_class: 7\nsplit: {train: 0.5, val: 0.2, test: 0.3}\n", encoding="utf-8"
    )
    assert "50% train, 20% val, 30% test" in prepare.run(params("card.yaml"))
    assert report()["images"]["train"] == 70
    text = prepare.run(params("card.yaml", train_per_class=5, split={"train": 0.6, "val": 0.2, "test": 0.2}))
    assert "60% train, 20% val, 20% test" in text
    assert report()["images"]["train"] == 50
    Path("card.yaml").write_text("kind: digits\nsplit: {train: 0.5}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"card\.yaml: split\.val: "):
        prepare.run(params("card.yaml"))


def test_a_split_that_is_empty_or_has_one_class_is_refused() -> None:
    for label in ("ant", "bee"):
        paint(f"few/{label}", 2)
    assert "few: the split val gets no image; add images" in refusal(params("few"))
    for label in ("ant", "bee"):
        paint(f"given/train/{label}", 5)
        paint(f"given/val/{label}", 2)
    paint("given/test/ant", 2)
    assert "given: the split test gets only images of 'ant'; add images" in refusal(params("given"))
    assert not paths.DATA_REPORT.exists()


def test_labels_that_may_be_mistakes_are_counted_in_a_warning() -> None:
    labels = ("Cat", "cat", "1", "1.0", "nan", "dog,big")
    for number, _label in enumerate(labels):
        paint(f"images/{number}", 9)
    rows = [f'{number}/{n:03d}.png,"{label}"' for number, label in enumerate(labels) for n in range(9)]
    Path("images/manifest.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    prepare.run(params())
    reasons = {warning["kind"]: warning["reason"] for warning in report()["warnings"] if warning["kind"] != "spellings"}
    assert "'nan' (9 images) look like missing ones" in reasons["no_label"]
    assert "'dog,big' (9 images) look like several" in reasons["several_labels"]
    spellings = [warning["reason"] for warning in report()["warnings"] if warning["kind"] == "spellings"]
    assert spellings == [
        "the labels '1' (9 images), '1.0' (9 images) are taken for different classes",
        "the labels 'Cat' (9 images), 'cat' (9 images) are taken for different classes",
    ]


def test_a_table_from_windows_with_spaces_and_its_own_words_for_splits_is_read() -> None:
    for label in ("ant", "bee"):
        for split in ("tr", "va", "te"):
            paint(f"images/{split}/{label}", 3)
    words = {"tr": "Training", "va": "dev ", "te": " Testing"}
    rows = [
        f"{split}\\{label}\\{number:03d}.png, {label} ,{word}"
        for split, word in words.items()
        for label in ("ant", "bee")
        for number in range(3)
    ]
    Path("images/manifest.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    prepare.run(params())
    assert report()["classes"] == ["ant", "bee"]
    assert report()["images"] == {"train": 6, "val": 6, "test": 6}
    assert report()["warnings"] == []


def test_the_commonest_reason_is_given_where_nothing_is_usable(images: Path) -> None:
    rows = [f"{label}/{number:03d},{label}" for label in ("ant", "bee") for number in range(12)]
    (images / "manifest.csv").write_text("\n".join(["path,label", "ant/gone.png,ant", *rows]) + "\n")
    assert "images: holds no usable image (25 files, the first is ant/000: no such file)" in refusal(params())


def blotches(seed: int) -> Image.Image:
    """A smooth image, which is still similar after it is resized."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)).resize((70, 60), Image.Resampling.BICUBIC)


def test_copies_of_test_images_are_removed_from_train() -> None:
    for label in ("ant", "bee"):
        for split, numbers in (("train", range(100, 140)), ("test", range(29))):
            Path(f"given/{split}/{label}").mkdir(parents=True)
            for number in numbers:
                blotches(1000 * ord(label[0]) + number).save(f"given/{split}/{label}/{number}.png")
    test_files = sorted(Path("given/test").glob("*/*.png"))
    assert len(test_files) == 58
    for number, path in enumerate(test_files[:57]):  # in turn: unchanged, smaller, darker
        copy = Image.open(path)
        if number % 3 == 1:
            copy = copy.resize((51, 44))
        elif number % 3 == 2:
            copy = ImageEnhance.Brightness(copy).enhance(0.75)
        copy.save(Path("given/train") / path.parent.name / f"copy-{number}.png")
    text = prepare.run(params("given", image_size=48))
    assert report()["images"]["test"] == 58
    assert report()["problem_counts"] == {"near_duplicate": 38, "duplicate": 19}
    assert {path.rpartition("/")[2].split("-")[0] for path in problems()} == {"copy"}
    for path, (kind, reason) in problems().items():
        original = test_files[int(path.rpartition("-")[2].removesuffix(".png"))].relative_to("given")
        assert (
            reason
            == {
                "duplicate": f"same image as {original}",
                "near_duplicate": f"near-copy of {original}, which is in test",
            }[kind]
        )
    assert "57 dropped" in text.splitlines()[0]
    assert "which is in test" in text


def test_the_same_pixels_in_another_coding_are_the_same_image(images: Path) -> None:
    photo = blotches(1).resize((200, 170))
    photo.save(images / "ant" / "a.jpg")
    Image.open(images / "ant" / "a.jpg").save(images / "ant" / "b.png")
    photo.save(images / "ant" / "c.jpg", comment=b"the same code with a comment")
    photo.save(images / "ant" / "d.jpg", progressive=True)
    photo.save(images / "ant" / "near.png")
    for near_duplicates in (True, False):
        prepare.run(params(near_duplicates=near_duplicates))
        assert problems() == {
            f"ant/{name}": ("duplicate", "same image as ant/a.jpg") for name in ("b.png", "c.jpg", "d.jpg")
        }
    prepare.run(params())
    assert report()["near_duplicates"] == [["ant/a.jpg", "ant/near.png"]]
    set_of = {path: name for split in prepared().values() for path, name in sets(split)}
    near = set_of.pop("ant/a.jpg")
    assert near == set_of.pop("ant/near.png") != ""
    assert set(set_of.values()) == {""}


def test_a_table_keeps_groups_on_one_side() -> None:
    paint("images/ant", 60)
    paint("images/bee", 60)
    rows = [f"{label}/{n:03d}.png,{label},patient {n // 4}" for label in ("ant", "bee") for n in range(60)]
    Path("images/manifest.csv").write_text("\n".join(["path,label,group", *rows]) + "\n")
    prepare.run(params())
    split_of = {path: name for name, split in prepared().items() for path in split.index["path"]}
    set_of = {path: name for split in prepared().values() for path, name in sets(split)}
    assert len(split_of) == 120
    for patient in range(15):
        images = [f"{label}/{n:03d}.png" for label in ("ant", "bee") for n in range(4 * patient, 4 * patient + 4)]
        assert len({split_of[image] for image in images}) == 1
        assert len({set_of[image] for image in images}) == 1
    assert set(split_of.values()) == set(splits.SPLITS)
    assert len(set(set_of.values()) - {""}) == 15


def test_near_copies_are_only_searched_for_if_near_duplicates_is_set(images: Path) -> None:
    for number in range(6):
        blotches(number).save(images / "ant" / f"b{number}.png")
        blotches(number).resize((51, 44)).save(images / "ant" / f"c{number}.png")
    prepare.run(params(near_duplicates=False))
    assert report()["near_duplicates"] is None
    prepare.run(params())
    assert report()["near_duplicates"] == [[f"ant/b{number}.png", f"ant/c{number}.png"] for number in range(6)]


def test_the_report_lists_the_first_problems_of_each_kind_and_its_tables_all(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_module, "MOST", 2)
    for number in range(4):
        (images / "bee" / f"x{number}.png").write_bytes(b"")
        shutil.copy(images / "ant/000.png", images / "ant" / f"y{number}.png")
        blotches(number).save(images / "ant" / f"b{number}.png")
        for copy in range(3):
            blotches(number).resize((51, 44 + copy)).save(images / "ant" / f"c{number}{copy}.png")
    text = prepare.run(params())
    found = report()
    assert found["problem_counts"] == {"duplicate": 4, "not_an_image": 4}
    assert [problem["path"] for problem in found["problems"]] == [
        "ant/y0.png",
        "ant/y1.png",
        "bee/x0.png",
        "bee/x1.png",
    ]
    assert found["near_duplicates"] == [[f"ant/b{number}.png", f"ant/c{number}0.png"] for number in range(2)]
    assert found["near_duplicate_counts"] == {"sets": 4, "images": 16}
    assert "; 8 dropped" in text
    assert text.endswith("lists the first ones, reports/problems.parquet and reports/near_copies.parquet all")
    table = pd.read_parquet(paths.PROBLEMS)
    assert table.columns.tolist() == ["path", "label", "kind", "reason"]
    assert table["path"].tolist() == [f"ant/y{number}.png" for number in range(4)] + [
        f"bee/x{number}.png" for number in range(4)
    ]
    sets = pd.read_parquet(paths.NEAR_COPIES).groupby("set")["path"].agg(list).tolist()
    assert sets == [[f"ant/b{n}.png", *(f"ant/c{n}{copy}.png" for copy in range(3))] for n in range(4)]
    prepare.run(params(near_duplicates=False))
    assert report()["near_duplicates"] is None
    assert pd.read_parquet(paths.NEAR_COPIES).empty


@pytest.mark.usefixtures("images")
def test_a_codec_changes_how_the_shards_are_stored_and_not_which_images_they_hold() -> None:
    prepare.run(params())
    raw, sources = prepared(), report()["digests"]
    pixels = {name: split.take(np.arange(len(split))) for name, split in raw.items()}
    prepare.run(params(codec="webp_lossless"))
    assert report()["digests"] == sources
    for name, split in prepared().items():
        assert {path.suffix for path in split.folder.glob("images-*")} == {".webp_lossless"}
        np.testing.assert_array_equal(split.take(np.arange(len(split))), pixels[name])


def test_a_tar_set_of_the_same_files_gives_the_same_shards(images: Path) -> None:
    prepare.run(params())
    expected = report()["digests"]
    files = sorted(images.glob("*/*.png"))
    Path("set").mkdir()
    for number in range(3):  # of 12 images a tar, as folder order has them, so that paths sort alike
        with tarfile.open(f"set/{number}.tar", "w") as tar:
            for file in files[12 * number : 12 * number + 12]:
                tar.add(file, f"{file.stem}.png")
                label = tarfile.TarInfo(f"{file.stem}.txt")
                label.size = 3
                tar.addfile(label, io.BytesIO(file.parent.name.encode()))
    prepare.run(params("set"))
    assert report()["digests"] == expected
    assert report()["problems"] == []


def test_near_copies_under_two_labels_give_a_warning(images: Path) -> None:
    blotches(1).save(images / "ant" / "b.png")
    blotches(1).resize((51, 44)).save(images / "bee" / "b.png")
    prepare.run(params())
    assert problems() == {}
    assert report()["warnings"] == [
        {"kind": "near_label_conflict", "reason": "ant/b.png and 1 near-copies have the labels 'ant', 'bee'"}
    ]


def test_a_crowd_of_lookalikes_gives_a_warning_and_is_split_like_other_images(images: Path) -> None:
    for number in range(16):
        blotches(1).resize((50 + number, 45)).save(images / "ant" / f"b{number}.png")
    prepare.run(params())
    assert [warning["kind"] for warning in report()["warnings"]] == ["crowd"]
    assert report()["near_duplicates"] == []
    sides = {name for name, split in prepared().items() if split.index["path"].str.startswith("ant/b").any()}
    assert len(sides) > 1


def test_exact_copies_are_not_a_crowd(images: Path) -> None:
    for number in range(16):
        blotches(1).save(images / "ant" / f"b{number:02d}.png")
    blotches(1).resize((51, 45)).save(images / "ant" / "c.png")
    prepare.run(params())
    assert report()["warnings"] == []
    assert report()["near_duplicates"] == [["ant/b00.png", "ant/c.png"]]
    assert report()["problem_counts"] == {"duplicate": 15}


@pytest.mark.parametrize("noise", [0, 1, 3, 10, 40])
def test_a_class_of_one_pattern_reaches_every_split(noise: int) -> None:
    for place, label in enumerate(("ant", "bee")):
        Path(f"plain/{label}").mkdir(parents=True)
        for number in range(12):
            pixels = np.full((48, 48, 3), 60.0) + np.random.default_rng([number, place]).normal(0, noise, (48, 48, 3))
            pixels[:, 24 * place : 24 * place + 24] += 90
            pixels[number, number] = 255  # no two images are the same
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(f"plain/{label}/{number}.png")
    prepare.run(params("plain", image_size=32))
    assert all(set(split.labels) == {0, 1} for split in prepared().values())


def test_an_archive_is_a_source_and_leaves_nothing_behind(project: Path, images: Path) -> None:
    prepare.run(params())
    before = digest.of_folder(paths.PREPARED)
    shutil.make_archive("packed", "gztar", images)
    prepare.run(params("packed.tar.gz"))
    assert digest.of_folder(paths.PREPARED) == before
    assert sorted(path.name for path in paths.PREPARED.iterdir()) == ["calibration", "test", "train", "val"]


def test_a_class_without_training_images_is_left_out_and_one_without_validation_images_gives_a_warning() -> None:
    for split, labels in {
        "train": ["ant", "bee", "cat"],
        "val": ["ant", "cat"],
        "test": ["ant", "bee", "Bees"],
    }.items():
        for label in labels:
            paint(f"given/{split}/{label}", 3)
    text = prepare.run(params("given"))
    kind, reason = "class_not_in_train", "class 'Bees' has no image in train (did you mean 'bee'?)"
    assert problems() == {f"test/Bees/00{i}.png": (kind, reason) for i in range(3)} | {
        "Bees": ("empty_class", "no image of the class is left")
    }
    reasons = [warning["reason"] for warning in report()["warnings"]]
    assert reasons == ["class 'bee' has no image in val", "class 'cat' has no image in test"]
    assert "  warning: class 'bee' has no image in val" in text.splitlines()
    assert report()["classes"] == ["ant", "bee", "cat"]


def test_a_given_split_without_usable_images_is_an_error() -> None:
    for label in ("ant", "bee"):
        paint(f"given/train/{label}", 8)
        Path(f"given/test/{label}").mkdir(parents=True)
        Path(f"given/test/{label}/0.png").write_text("words")
    assert "no image of the given split 'test' is usable" in refusal(params("given"))


def test_a_source_without_two_usable_classes_is_refused_and_leaves_no_files() -> None:
    assert "none: not found; set data.source" in refusal(params("none"))
    paint("one/ant", 4)
    assert "holds the single class 'ant'" in refusal(params("one"))
    paint("broken/ant", 4)
    Path("broken/bee").mkdir()
    Path("broken/bee/1.png").touch()
    assert "holds the single class 'ant' (bee/1.png: not an image (empty))" in refusal(params("broken"))
    for name in ("a", "b"):
        Path(f"words/{name}").mkdir(parents=True)
        Path(f"words/{name}/1.png").touch()
    assert "words: holds no usable image (2 files, the first is a/1.png: not an image (empty))" in refusal(
        params("words")
    )
    Path("nothing.yaml").write_text("{kind: synthetic, fractals: 0, letters: 0, images_per_class: 1, size: 8, seed: 1}")
    assert "nothing.yaml: holds no usable image; add" in refusal(params("nothing.yaml"))
    paint("late/ant", 2)
    paint("late/bee", 2)
    Path("late/manifest.csv").write_text("path,label,split\nant/000.png,ant,test\nbee/000.png,bee,val\n")
    assert "late: no image is in train; add some" in refusal(params("late"))


def test_small_and_empty_classes_are_reported_and_the_others_are_used() -> None:
    paint("few/ant", 40)
    paint("few/dog", 40)
    paint("few/bee", 2)
    Path("few/cat").mkdir()
    text = prepare.run(params("few"))
    assert problems() == {"cat": ("empty_class", "an empty class folder")}
    assert {warning["kind"] for warning in report()["warnings"]} == {"class_not_in_split", "imbalance"}
    assert "class 'bee' has no image in val" in text
    assert "and 1 of 'bee'; finetune.class_weight: balanced weighs them alike" in text


@pytest.mark.usefixtures("images")
def test_too_few_labels_are_refused_by_key() -> None:
    assert "fewer than data.train_per_class = 12" in refusal(params(train_per_class=12))


def test_an_error_keeps_what_was_prepared_before(images: Path) -> None:
    prepare.run(params())
    before = outputs()
    with pytest.raises(DataError):
        prepare.run(params(train_per_class=12))
    assert outputs() == before
    assert list(paths.PREPARED.parent.iterdir()) == [paths.PREPARED]


def test_a_card_is_a_source() -> None:
    Path("card.yaml").write_text("{kind: synthetic, fractals: 0, letters: 2, images_per_class: 6, size: 16, seed: 1}")
    prepare.run(params("card.yaml"))
    assert report()["classes"] == ["letter-0041", "letter-0042"]
    assert sum(report()["images"].values()) == 12


def link_some(source: Path, target: Path, count: int, key: Callable[[Path], Any]) -> None:
    for folder in sorted(path for path in source.iterdir() if path.is_dir()):
        (target / folder.name).mkdir(parents=True)
        for path in sorted(folder.iterdir(), key=key)[:count]:
            (target / folder.name / path.name).symlink_to(path)


def test_real_photos_with_given_splits_are_prepared(assets: Path) -> None:
    link_some(assets / "clothing-small/train", Path("photos/train"), 4, lambda path: path.name)
    link_some(assets / "clothing-small/validation", Path("photos/validation"), 2, lambda path: path.name)
    prepare.run(params("photos", image_size=32, resize="crop"))
    data_report = report()
    assert len(data_report["classes"]) == 10
    assert data_report["images"]["val"] == 20
    assert data_report["images"]["train"] + data_report["images"]["test"] == 40
    assert data_report["problems"] == []


def test_real_photos_of_very_different_sizes_are_prepared(assets: Path) -> None:
    link_some(assets / "sign-digits", Path("signs"), 4, lambda path: -path.stat().st_size)
    prepare.run(params("signs", resize="pad"))
    assert sum(report()["images"].values()) + len(report()["problems"]) == 40
    assert prepared()["train"].take(np.arange(1)).shape == (1, 16, 16, 3)


def test_the_data_stages_load_no_heavy_library() -> None:
    code = (
        "import sys, frostline.stages.prepare, frostline.stages.augment\n"
        "print([name for name in ('tensorflow', 'keras', 'mlflow', 'sklearn') if name in sys.modules])"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"


def test_what_changed_since_last_time_is_said(images: Path) -> None:
    assert "since last time" not in prepare.run(params())
    assert "\n  images since last time: the same" in prepare.run(params())
    paint("images/dog", 12)
    paint("images/ant", 2, start=12)
    shutil.rmtree("images/bee")
    (images / "cat" / "000.png").rename(images / "ant" / "cat.png")
    line = next(line for line in prepare.run(params()).splitlines() if "since last time" in line)
    assert line.startswith("  images since last time: 14 new, 12 gone, 1 with another label, ")
    assert line.endswith(", class dog is new, class bee is gone")
    shutil.copytree(images, "others")
    assert "since last time" not in prepare.run(params("others"))
    (Path(".frostline") / "last_images.parquet").write_bytes(b"damaged")
    assert "since last time" not in prepare.run(params("others"))
    assert "since last time: the same" in prepare.run(params("others"))
