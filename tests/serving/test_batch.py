"""The images that `predict` finds, and names that are not UTF-8."""

import csv
import io
import json
import os
import sys
from pathlib import Path

import pytest
import workspace

from frostline.data.shards import Layout
from frostline.errors import DataError
from frostline.models.account import Account
from frostline.serving import batch
from frostline.serving.scoring import Prediction

ODD = os.fsdecode(b"caf\xe9.png")


def standard_input(monkeypatch, data):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    return batch.find_images(["-"])


def test_images_in_formats_that_are_not_read_are_named_and_counted(tmp_path, capsys):
    for name in ("a.png", "b.heic", "c.psd", "d.cr2", "e.psd", "notes.txt", ".hidden.psd"):
        (tmp_path / name).write_bytes(b"x")
    assert [Path(name).name for name, _ in batch.find_images([str(tmp_path)])] == ["a.png", "b.heic"]
    assert "left out images in formats that are not read (2 .psd, 1 .cr2); convert them" in capsys.readouterr().err
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "c.psd").write_bytes(b"x")
    with pytest.raises(DataError, match="contains no images"):
        batch.find_images([str(tmp_path / "only")])


def test_one_name_that_is_not_utf_8_leaves_the_others_names(monkeypatch):
    requests = standard_input(monkeypatch, b"a.png\ncaf\xe9.png\n")
    assert requests == [("a.png", Path("a.png")), (ODD, Path(ODD))]
    image = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
    assert standard_input(monkeypatch, image) == [("-", image)]


@pytest.mark.parametrize("form", ["json", "csv", "table"])
def test_a_name_that_is_not_utf_8_is_valid_output(form):
    class Scorer:
        def prepare(self, source):
            return source

        def predictions(self, images):
            return [Prediction("cat", 0.75, {"cat": 0.75, "dog": 0.25}) for _ in images]

    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    writer = batch.WRITERS[form](out, Account(Layout(("cat", "dog"), 32, "crop"), workspace.made_from()))
    for answer in batch.answers(Scorer(), [(ODD, Path(ODD))]):
        writer.row(answer)
    writer.end()
    out.seek(0)
    text = out.read()
    name = {
        "json": lambda: json.loads(text)[0]["path"],
        "csv": lambda: next(iter(csv.DictReader(io.StringIO(text))))["path"],
    }
    assert name.get(form, lambda: text.split()[-1])() == "caf\\xe9.png"
