"""Names are data: no program that shows them runs them or is controlled by them."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from frostline.core import escaping

NAMES = [
    "cat",
    "dress shirt",
    "café",
    "=1+1",
    "@SUM(A1)",
    "-2",
    "<script>alert(1)</script>",
    "a|b",
    "_x_",
    "\x1b[2Jgone",
]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("café", "café"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb", "a\\nb"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("\x9b", "\\x9b"),
    ],
)
def test_control_characters_are_escaped(name: str, expected: str) -> None:
    assert escaping.printable(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cat", "cat"),
        ("-", "-"),
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@a", "'@a"),
        ("  =1", "'  =1"),
        ("\t=1", "\\t=1"),
    ],
)
def test_a_cell_is_not_a_formula(name: str, expected: str) -> None:
    assert escaping.cell(name) == expected


def test_a_table_keeps_its_numbers_and_the_original_does_not_change() -> None:
    table = pd.DataFrame({"class": NAMES, "f1": -0.5, "=1": 3, "count": range(len(NAMES))})
    safe_table = escaping.cells(table)
    assert list(safe_table.columns) == ["class", "f1", "'=1", "count"]
    assert safe_table["f1"].tolist() == table["f1"].tolist()
    rows = list(csv.reader(io.StringIO(safe_table.to_csv(index=False))))[1:]
    assert not [row for row in rows if row[0][0] in "=+-@" or not row[0].isprintable()]
    assert table["class"].tolist() == NAMES
    values = pd.DataFrame({"freeze": [-15, "-15", "all", None]})
    assert escaping.cells(values)["freeze"].tolist() == [-15, "'-15", "all", None]


@pytest.mark.parametrize("name", NAMES)
def test_markdown_shows_a_name_unchanged(name: str) -> None:
    parser = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table")
    expected = " ".join(escaping.printable(name).split())
    for text in (f"| class |\n|---|\n| {escaping.markdown(name)} |\n", f"- {escaping.markdown(name)}: 3\n"):
        tokens = [child for token in parser.parse(text) for child in token.children or []]
        assert "".join(token.content for token in tokens).startswith(("class" + expected, expected))
        assert {token.type for token in tokens} <= {"text", "text_special"}
    (inline,) = [token for token in parser.parse(f"of {escaping.code(name)}.\n") if token.children]
    assert [token.content for token in inline.children or [] if token.type == "code_inline"] == [
        expected.replace("|", "\\|")
    ]


def test_the_output_of_a_command_cannot_control_the_terminal(tmp_path: Path) -> None:
    code = "import sys; from frostline import cli; sys.argv = ['frostline', 'doctor']; cli.main()"
    (tmp_path / "params.yaml").write_text('"\\e[2J\\u202e": 1\n')
    process = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 2
    assert "\\x1b[2J" in process.stderr
    assert process.stderr.replace("\n", "").isprintable()
