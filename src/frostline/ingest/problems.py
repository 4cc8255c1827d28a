"""What is wrong with a file of the source: the records of `problems` in reports/data.json."""

from __future__ import annotations

from typing import NamedTuple


class Problem(NamedTuple):
    """A file, folder or archive member that is left out. A million of them may be held, so this is a bare tuple.

    path: relative to the source; label: its class where it has one; kind: a word that a program can look for;
    reason: for a person, without the path.
    """

    path: str
    label: str | None
    kind: str
    reason: str
