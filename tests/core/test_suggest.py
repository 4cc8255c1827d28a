"""Suggestions for misspelt names."""

from __future__ import annotations

from frostline.core.suggest import hint, nearest

NAMES = ("seed", "data", "backbone")


def test_the_nearest_name_is_the_most_similar_one_above_the_cutoff() -> None:
    assert nearest("bakcbone", NAMES) == "backbone"
    assert nearest("xyz", NAMES) is None
    assert nearest("xyz", NAMES, cutoff=0.0) in NAMES
    assert nearest("seed", []) is None


def test_the_hint_falls_back_if_no_name_is_similar() -> None:
    assert hint("sed", NAMES, "remove it") == "did you mean seed?"
    assert hint("xyz", NAMES, "remove it") == "remove it"
    assert hint("xyz", NAMES) == ""
    assert hint("SEED", {"seed": 1}, cutoff=0.0) == "did you mean seed?"
