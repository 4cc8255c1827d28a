"""Labels are short, differ where names differ, and hold only characters that a font here has."""

from __future__ import annotations

import pytest

from frostline.core import fonts
from frostline.core.labels import label, labels

INSTALLED = fonts.installed()
UNKNOWN = next(sign for sign in map(chr, range(0x17000, 0x32000)) if sign.isprintable() and not INSTALLED.face(sign))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cat", "cat"),
        ("x" * 24, "x" * 24),
        ("conv5_block3_out_of_a_deep_network", "conv5_block3…eep_network"),
        ("a\x1b[2J\nb", "a\\x1b[2J\\nb"),
        ("$5^$", "$5^$"),
        ("кошка ελλάδα", "кошка ελλάδα"),
        (f"cat {UNKNOWN}", f"cat \\U{ord(UNKNOWN):08x}"),
        ("", ""),
    ],
)
def test_a_label_is_printable_and_is_cut_in_the_middle(name: str, text: str) -> None:
    assert label(name) == text


@pytest.mark.parametrize("name", ["x" * 99, "猫" * 99, UNKNOWN * 99, f"{UNKNOWN}x" * 50])
def test_no_label_is_wider_than_24_letters(name: str) -> None:
    text = label(name)
    assert sum(2 if sign == "猫" else 1 for sign in text) <= 24
    assert "…" in text
    assert "\\U" not in text.replace(f"\\U{ord(UNKNOWN):08x}", "")  # an escape is never cut


def test_similar_names_are_cut_where_they_differ() -> None:
    layers = [f"expanded_conv_{number}_squeeze_excite_conv_{part}" for number in (9, 10, 11) for part in (1, 2)]
    texts = labels(layers)
    assert len(set(texts)) == 6
    assert all(len(text) <= 24 for text in texts)
    assert ["10" in text for text in texts] == [False, False, True, True, False, False]


def test_names_that_are_alike_for_24_letters_are_numbered() -> None:
    names = [f"{'a' * 40}{letter}{'b' * 40}{number}{'c' * 40}" for letter in "xy" for number in "12"]
    assert len(set(labels([*names, "dog"]))) == 5
    assert labels(["cat", "cat"]) == ["cat (0)", "cat (1)"]
