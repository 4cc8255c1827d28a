"""Tables as sources: each row is an image or a problem with its reason."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from frostline.errors import DataError
from frostline.ingest.sources import open_source
from frostline.ingest.tables import listed


def table(folder: Path, text: str, name: str = "images.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_text(text, encoding=encoding)
    return path


def rows(path: Path) -> list[tuple[str, ...]]:
    return [tuple(row) for row in listed(path).rows]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_rows_have_path_label_split_and_group(tmp_path: Path, separator: str) -> None:
    text = 'label,path,split,extra,group\nant,"a 1.png",train,x,p1\n007,b/2.png,Valid,y,\nNA,b/3.png,,z,p1\n'
    assert rows(table(tmp_path, text.replace(",", separator))) == [
        ("a 1.png", "ant", "train", "p1"),
        ("b/2.png", "007", "val", None),
        ("b/3.png", "NA", None, "p1"),
    ]


def test_a_byte_order_mark_and_commas_in_names_are_understood(tmp_path: Path) -> None:
    text = 'path,label\n"a,b.png",ant\r\n"two\nlines.png",bee\n'
    assert rows(table(tmp_path, text, encoding="utf-8-sig")) == [
        ("a,b.png", "ant", None, None),
        ("two\nlines.png", "bee", None, None),
    ]


def test_a_nul_drops_only_its_row(tmp_path: Path) -> None:
    listing = listed(table(tmp_path, "path,label\n1.png,ant\n2\0.png,ant\n3.png,b\0ee\n4.png,bee\n"))
    assert [row.path for row in listing.rows] == ["1.png", "4.png"]
    assert [(problem.path, problem.kind) for problem in listing.problems] == [
        ("row 3 of images.csv", "not_text"),
        ("row 4 of images.csv", "not_text"),
    ]


def test_parquet_is_read_like_csv(tmp_path: Path) -> None:
    frame = pd.DataFrame({"path": ["1.png", "2.png"], "label": [3, 4], "group": ["p", None]})
    frame.to_parquet(tmp_path / "t.parquet")
    assert rows(tmp_path / "t.parquet") == [("1.png", "3", None, "p"), ("2.png", "4", None, None)]


def test_unusable_rows_are_listed_with_their_number(tmp_path: Path) -> None:
    text = (
        "path,label,split\n1.png,ant,train\n,ant,train\n2.png,,train\n3.png,ant,trian\n"
        "1.png,ant,test\n4.png,ant,\n4.png,bee,\n"
    )
    listing = listed(table(tmp_path, text))
    assert [row.path for row in listing.rows] == ["1.png"]
    assert [(problem.path, problem.kind, problem.reason) for problem in listing.problems] == [
        ("row 3 of images.csv", "no_path", "has no path"),
        ("2.png", "no_label", "has no label in row 4 of images.csv"),
        ("3.png", "split", "its split in row 5 of images.csv is 'trian' (did you mean 'train'?)"),
        ("1.png", "named_twice", "named again in row 6 of images.csv"),
        ("4.png", "named_twice", "named again under another label, 'ant', in row 8 of images.csv"),
        ("4.png", "named_twice", "named again under another label"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,class\n1.png,ant\n", "has no column 'path' but file, class; name its columns path, label, split, group"),
        ("path;klass\n1.png;ant\n", "has no column 'label' but path, klass"),
        ("", "is not a table that can be read"),
        ('path,label\n"1.png,ant\n', "is not a table that can be read"),
    ],
)
def test_an_unusable_table_is_reported_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = table(tmp_path, text)
    with pytest.raises(DataError) as error:
        listed(path)
    assert str(path) in str(error.value)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_another_encoding_and_broken_parquet_are_reported_in_one_line(tmp_path: Path) -> None:
    table(tmp_path, "path,label\ncafé.png,ant\n", encoding="latin-1")
    (tmp_path / "t.parquet").write_bytes(b"PAR1 these are words")
    for name in ("images.csv", "t.parquet"):
        with pytest.raises(DataError, match="write it as CSV in UTF-8"):
            listed(tmp_path / name)


def test_a_folder_with_a_table_is_read_by_it(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    table(tmp_path, "path,label\nimages/1.png,ant\n", "labels.csv")
    table(tmp_path, "id,score\n1,2\n", "scores.csv")
    assert open_source(tmp_path, tmp_path).table["path"].tolist() == ["images/1.png"]
    table(tmp_path, "path,label\nimages/2.png,bee\n", "manifest.csv")
    assert open_source(tmp_path, tmp_path).table["path"].tolist() == ["images/2.png"]


def test_with_two_tables_the_class_folders_are_used(tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").touch()
        table(tmp_path, "path,label\nimages/1.png,ant\n", f"{name}.csv")
    assert open_source(tmp_path, tmp_path).table["label"].tolist() == ["ant", "bee"]
