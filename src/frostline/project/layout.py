"""Where the keys of params.yaml stand in its text, and the words that are said of them there.

It reads lines, so that comments are known. What it takes for a key may be none, as in text of several lines: compare
the values before and after an edit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

KEY = re.compile(r"^( *)([A-Za-z_]\w*):(?=\s|$)")
COMMENT = re.compile(r"(?<=\s)# ?(.*)")


@dataclass(frozen=True)
class KeyLines:
    """The lines of a dotted key, from `start` up to `end`, with everything that is nested in it."""

    key: str
    start: int
    end: int


def keys(text: str) -> dict[str, KeyLines]:
    """The lines of each dotted key, in their order. Lines count from 0; blank lines after a key are not its own."""
    lines = text.splitlines()
    found: list[tuple[int, str, int]] = []  # indent, dotted key, line
    parents: list[tuple[int, str]] = []
    for number, line in enumerate(lines):
        if match := KEY.match(line):
            indent = len(match[1])
            while parents and parents[-1][0] >= indent:
                parents.pop()
            key = ".".join([*(name for _, name in parents), match[2]])
            parents.append((indent, match[2]))
            found.append((indent, key, number))
    return {
        key: KeyLines(key, start, _end(lines, start, indent, [line for i, _, line in found[n + 1 :] if i <= indent]))
        for n, (indent, key, start) in enumerate(found)
    }


def _end(lines: list[str], start: int, indent: int, later: list[int]) -> int:
    """The end of a key that begins at `start`. A comment above the next key, indented like it, is not its own."""
    end = later[0] if later else len(lines)
    while end > start + 1:
        last = lines[end - 1].lstrip()
        if last and not (last.startswith("#") and len(lines[end - 1]) - len(last) <= indent):
            break
        end -= 1
    return end


def comment(text: str, key: str) -> str:
    """What stands behind a key, with the comment lines below it; empty without a comment."""
    lines, place = text.splitlines(), keys(text)[key]
    parts = [match[1]] if (match := COMMENT.search(lines[place.start])) else []
    for line in lines[place.start + 1 : place.end]:
        if not line.lstrip().startswith("#"):
            break
        parts.append(line.strip().lstrip("#").strip())
    return " ".join(parts).strip()
