"""What is wrong with a file of the source: the records of `problems` in reports/data.json."""

from __future__ import annotations

from typing import NamedTuple


class Problem(NamedTuple):
    """A file, folder or archive member that is left out. It is a plain tuple, since there may be a million of them.

    path: relative to the source; label: its class, if it has one; kind: a word for programs; reason: a text for people,
    without the path.
    """

    path: str
    label: str | None
    kind: str
    reason: str
