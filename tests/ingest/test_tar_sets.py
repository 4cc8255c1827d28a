"""Tars in WebDataset's layout are read where they lie, and what can't be used is a problem with its reason."""

from __future__ import annotations

import pickle
import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frostline.data import images
from frostline.errors import DataError
from frostline.ingest.sources import Source, open_source
from frostline.ingest.structures import AUTOMATIC, Structure


def picture(number: int, suffix: str = "PNG") -> bytes:
    file = BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, suffix)
    return file.getvalue()


def write(path: Path, members: list[tuple[str, bytes]]) -> None:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, BytesIO(content))


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def rows(source: Source) -> list[tuple[str, str, str | None]]:
    table = source.table.astype(object)
    return list(table.where(table.notna(), None)[["path", "label", "split"]].itertuples(index=False, name=None))


def problems(source: Source) -> dict[str, tuple[str, str]]:
    return {problem.path: (problem.kind, problem.reason) for problem in source.problems}


def test_samples_get_their_labels_and_splits_and_are_read_in_place(tmp_path: Path, scratch: Path) -> None:
    train = [("a/01.png", picture(1)), ("a/01.cls", b"0"), ("a/02.jpg", picture(2, "JPEG")), ("a/02.cls", b"1\n")]
    write(tmp_path / "set/train-000000.tar", train)
    write(tmp_path / "set/train-000001.tar", [("./01.json", b'{"label": 1, "width": 9}'), ("./01.PNG", picture(3))])
    val = [
        ("x.webp", picture(4, "WEBP")),
        ("x.txt", b"bee"),
        ("y.png", picture(5)),
        ("y.seg.png", picture(6)),
        ("y.cls", b"0"),
    ]
    write(tmp_path / "set/val-000000.tar", val)
    (tmp_path / "set/classes.txt").write_text("ant\nbee\n")
    source = open_source(tmp_path / "set", scratch)
    assert problems(source) == {}
    assert rows(source) == [
        ("train-000000.tar/a/01.png", "ant", "train"),
        ("train-000000.tar/a/02.jpg", "bee", "train"),
        ("train-000001.tar/01.PNG", "bee", "train"),
        ("val-000000.tar/x.webp", "bee", "val"),
        ("val-000000.tar/y.png", "ant", "val"),
    ]
    reader = pickle.loads(pickle.dumps(source.reader))
    for number, path in enumerate(source.table["path"], 1):
        expected = picture(number, "JPEG" if number == 2 else "WEBP" if number == 4 else "PNG")
        with Image.open(BytesIO(expected)) as image:
            np.testing.assert_array_equal(np.asarray(reader.read(path, None).image), np.asarray(image.convert("RGB")))
        assert reader.coded(path) == expected
    with pytest.raises(images.UnreadableImageError, match="no such file"):
        reader.read("val-000000.tar/z.png", None)
    (tmp_path / "set/val-000000.tar").unlink()
    with pytest.raises(images.UnreadableImageError, match=r"val-000000\.tar can't be read"):
        reader.read("val-000000.tar/y.png", None)


@pytest.mark.parametrize(
    ("name", "content"),
    [("classes.json", '["ant", "bee"]'), ("classes.json", '{"0": "ant", "1": "bee"}'), ("classes.txt", "ant\n\nbee")],
)
def test_numbers_get_the_names_of_a_file_and_stay_numbers_without_one(
    tmp_path: Path, scratch: Path, name: str, content: str
) -> None:
    members = [(f"{n}.{kind}", data) for n in range(2) for kind, data in (("png", picture(n)), ("cls", b"%d" % n))]
    write(tmp_path / "set/images-0.tar", members)
    assert [label for _, label, _ in rows(open_source(tmp_path / "set", scratch))] == ["0", "1"]
    (tmp_path / "set" / name).write_text(content)
    assert [label for _, label, _ in rows(open_source(tmp_path / "set", scratch))] == ["ant", "bee"]


def test_what_cannot_be_used_is_a_problem_with_its_reason(tmp_path: Path, scratch: Path) -> None:
    members = [
        ("1.png", picture(1)),
        ("2.png", picture(2)),
        ("2.cls", b"7"),
        ("3.cls", b"0"),
        ("4.png", picture(4)),
        ("4.json", b"{"),
        ("5.png", picture(5)),
        ("5.txt", b"a long caption\nof two lines"),
        ("6.png", picture(6)),
        ("6.png", picture(6)),
        ("6.cls", b"1"),
        (".hidden", b""),
        ("notes.md", b""),
    ]
    write(tmp_path / "set/train-0.tar", members)
    (tmp_path / "set/train-1.tar").write_bytes(b"no tar" * 200)
    write(
        tmp_path / "set/train-2.tar", [("1.png", picture(8)), ("1.cls", b"0"), ("2.png", picture(9)), ("2.cls", b"0")]
    )
    whole = (tmp_path / "set/train-2.tar").read_bytes()
    (tmp_path / "set/train-2.tar").write_bytes(whole[: whole.index(b"2.png") + 700])
    (tmp_path / "set/classes.txt").write_text("ant\nbee\n")
    source = open_source(tmp_path / "set", scratch)
    assert [(path, label) for path, label, _ in rows(source)] == [
        ("train-0.tar/6.png", "bee"),
        ("train-2.tar/1.png", "ant"),
    ]
    found = problems(source)
    assert {path: kind for path, (kind, _) in found.items()} == {
        "train-0.tar/1.png": "no_label",
        "train-0.tar/2.png": "no_label",
        "train-0.tar/3.cls": "missing",
        "train-0.tar/4.png": "no_label",
        "train-0.tar/5.png": "no_label",
        "train-0.tar/6.png": "named_twice",
        "train-1.tar": "unreadable",
        "train-2.tar": "unreadable",
    } | {path: "no_label" for path in found if path == "train-2.tar/2.png"}
    assert found["train-0.tar/2.png"][1] == "its class 7 is not one of the 2 named classes"
    assert found["train-1.tar"][1].startswith("can't be read as a tar to its end (")
    (tmp_path / "set/classes.txt").unlink()
    (tmp_path / "set/classes.json").write_text("3")
    with pytest.raises(DataError, match=r"classes\.json: does not name the classes .*; write a name a line"):
        open_source(tmp_path / "set", scratch)


def test_the_splits_may_be_given_by_the_starts_of_names_and_class_folders_go_first(
    tmp_path: Path, scratch: Path
) -> None:
    for name in ("part1-0", "part1-1", "part2-0", "imagenet-val-00"):
        write(tmp_path / f"set/{name}.tar", [("1.png", picture(len(name))), ("1.cls", b"ant")])

    def splits(structure: Structure) -> list[str | None]:
        return [split for _, _, split in rows(open_source(tmp_path / "set", scratch, structure))]

    assert splits(AUTOMATIC) == ["val", None, None, None]
    assert splits(Structure({"train": "part1", "test": "part2"})) == [None, "train", "train", "test"]
    (tmp_path / "set/ant").mkdir()
    (tmp_path / "set/ant/1.png").write_bytes(picture(1))
    assert rows(open_source(tmp_path / "set", scratch)) == [("ant/1.png", "ant", None)]


def test_a_table_may_list_the_tars_which_lie_anywhere(tmp_path: Path, scratch: Path) -> None:
    for name in ("train-0", "test-0", "train-1"):
        write(tmp_path / f"bucket/{name}.tar", [("1.png", picture(len(name))), ("1.cls", b"0")])
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/classes.txt").write_text("ant\nbee\n")
    table = tmp_path / "lists/tars.csv"
    table.write_text(f"path,etag\n{tmp_path}/bucket/train-0.tar,a1\n../bucket/test-0.tar,b2\n")
    source = open_source(table, scratch)
    assert rows(source) == [
        ("../bucket/test-0.tar/1.png", "ant", "test"),
        (f"{tmp_path}/bucket/train-0.tar/1.png", "ant", "train"),
    ]
    for path in source.table["path"]:
        assert source.reader.read(path, None).size == (11, 9)
    table.write_text(f"path,etag\n{tmp_path}/bucket/train-0.tar,a1\n1.png,b2\n")
    with pytest.raises(DataError, match="has no column 'label' but path, etag"):
        open_source(table, scratch)
