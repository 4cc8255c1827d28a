"""Fonts that have the characters of a text, so that an image shows letters and not boxes.

DejaVu Sans comes with matplotlib: it has Latin, Greek, Cyrillic, Arabic and many symbols. Other characters need a font
that is installed on the machine.
"""

from __future__ import annotations

import logging
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from matplotlib.ft2font import FT2Font

EAST_ASIAN = {"CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC", "FULLWIDTH", "HALFWIDTH"}
BOXES = "Last Resort"  # a font that has a box for every character


class Face(NamedTuple):
    """A font. family: the name by which matplotlib finds it."""

    family: str
    path: Path


class Fonts:
    """A preferred font with all of ASCII, and a function that gives others for the characters that it lacks."""

    def __init__(self, preferred: Face, others: Callable[[], Sequence[Face]]) -> None:
        self._preferred, self._others, self._advised = preferred, others, set[str]()

    def face(self, character: str) -> Face | None:
        """The first font that has a character, None if none has it."""
        if character.isascii() or _has(self._preferred, character):
            return self._preferred
        return next((face for face in self._others() if _has(face, character)), None)

    def families(self, text: str) -> list[str]:
        """The families of the fonts that a text needs, the preferred one first."""
        faces = (self.face(character) for character in dict.fromkeys(text))
        return list(dict.fromkeys(face.family for face in (self._preferred, *faces) if face))

    def runs(self, text: str) -> Iterator[tuple[Path, str]]:
        """The pieces of a text that need one font each, with the file of the font."""
        for face, characters in groupby(text, self.face):
            yield (face or self._preferred).path, "".join(characters)

    def drawable(self, character: str) -> str:
        """The character, or its escape like \\u732b if no font has it.

        In that case a line on standard error names a package to install, once for each package.
        """
        if self.face(character):
            return character
        escape, package = character.encode("unicode_escape").decode(), _package(character)
        if package not in self._advised:
            self._advised.add(package)
            print(
                f"warning: no font here has {character} ({unicodedata.name(character, 'unnamed')}), so plots show "
                f"{escape}; install one, on Debian with `apt-get install {package}`, and run this again",
                file=sys.stderr,
            )
        return escape


@cache
def installed() -> Fonts:
    """The fonts of this machine, DejaVu Sans first. The others are looked up only when they are needed, because the
    import of matplotlib takes longer than to draw a small image."""
    spec = find_spec("matplotlib")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    return Fonts(Face("DejaVu Sans", path), _others)


@cache
def _others() -> tuple[Face, ...]:
    """One upright font of each family on this machine, regular sans-serif ones first."""
    from matplotlib import font_manager

    manager = font_manager.fontManager
    known = {entry.fname for entry in manager.ttflist}
    for path in font_manager.findSystemFonts():
        if path not in known:  # matplotlib keeps its list between runs, so a font may be newer than the list
            with suppress(OSError, RuntimeError):  # a damaged font, or one of pixels
                manager.addfont(path)
    logging.getLogger(font_manager.__name__).setLevel(logging.ERROR)  # it reports each font that is only bold or thin
    upright = [entry for entry in manager.ttflist if entry.style == "normal" and Path(entry.fname).is_file()]
    upright.sort(key=lambda entry: (entry.weight != 400, "Sans" not in entry.name, "Mono" in entry.name, entry.name))
    faces = {entry.name: Path(entry.fname) for entry in reversed(upright) if not entry.name.startswith(BOXES)}
    return tuple(Face(*face) for face in reversed(faces.items()))


def _has(face: Face, character: str) -> bool:
    return _opened(face.path).get_char_index(ord(character)) > 0


@cache
def _opened(path: Path) -> FT2Font:
    from matplotlib.ft2font import FT2Font

    return FT2Font(path)


def _package(character: str) -> str:
    """A Debian package with fonts for such characters."""
    if unicodedata.name(character, "").split(" ")[0].split("-")[0] in EAST_ASIAN:
        return "fonts-noto-cjk"
    return "fonts-symbola" if unicodedata.category(character).startswith("S") else "fonts-noto-core"
