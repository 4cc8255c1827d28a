"""Suggest the name that a misspelt name probably stands for."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, names: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The most similar of the names, or None if none is similar enough.

    cutoff: the least similarity, 0 (any name) to 1 (the same name), see `difflib.SequenceMatcher.ratio`.
    """
    return next(iter(get_close_matches(name, list(names), n=1, cutoff=cutoff)), None)


def hint(name: str, names: Iterable[str], otherwise: str = "", cutoff: float = 0.6) -> str:
    """`did you mean NAME?` for the most similar of the names, or `otherwise` if none is similar enough."""
    near = nearest(name, names, cutoff)
    return otherwise if near is None else f"did you mean {near}?"
