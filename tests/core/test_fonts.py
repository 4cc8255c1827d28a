"""Every character is drawn by a font that has it, or escaped with one line that names what to install."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pytest

from frostline.core import fonts
from frostline.core.fonts import Face, Fonts

SHIPPED = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
DEJAVU = Face("DejaVu Sans", SHIPPED / "DejaVuSans.ttf")
STIX = Face("STIXGeneral", SHIPPED / "STIXGeneral.ttf")
ONLY_STIX = "\u2323"  # SMILE, which DejaVu Sans lacks


def alone() -> Fonts:
    """A machine without further fonts."""
    return Fonts(DEJAVU, tuple)


def test_the_first_font_is_taken_where_it_suffices() -> None:
    found = Fonts(DEJAVU, lambda: pytest.fail("other fonts were looked up for Latin, Greek and Cyrillic letters"))
    assert found.families("cat ελλάδα кошка") == ["DejaVu Sans"]
    assert list(found.runs("ελλάδα 5")) == [(DEJAVU.path, "ελλάδα 5")]


def test_another_font_is_taken_for_what_the_first_lacks() -> None:
    found = Fonts(DEJAVU, lambda: (STIX,))
    assert found.families(f"a {ONLY_STIX}") == ["DejaVu Sans", "STIXGeneral"]
    assert list(found.runs(f"a{ONLY_STIX}b")) == [(DEJAVU.path, "a"), (STIX.path, ONLY_STIX), (DEJAVU.path, "b")]
    assert found.drawable(ONLY_STIX) == ONLY_STIX


def test_the_fonts_of_matplotlib_are_among_the_installed_but_not_its_font_of_boxes() -> None:
    found = fonts.installed()
    assert found.face("a") == DEJAVU
    other = found.face(ONLY_STIX)
    assert other is not None
    assert other.path.is_file()
    families = {face.family for face in fonts._others()}
    assert "STIXGeneral" in families
    assert not any("Last" in family for family in families)


@pytest.mark.parametrize(
    ("text", "escapes", "package"),
    [
        ("猫犬タワ한", ["\\u732b", "\\u72ac", "\\u30bf", "\\u30ef", "\\ud55c"], "fonts-noto-cjk"),
        ("हिन", ["\\u0939", "\\u093f", "\\u0928"], "fonts-noto-core"),
        ("🧿", ["\\U0001f9ff"], "fonts-symbola"),
    ],
)
def test_what_no_font_has_is_escaped_and_one_line_names_a_package(
    text: str, escapes: list[str], package: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = alone()
    assert [found.drawable(sign) for sign in text] == escapes
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: no font here has {text[0]} ")
    assert f"apt-get install {package}`" in line
