"""Names of classes, files and layers as short texts in an image."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

from frostline.core import fonts
from frostline.core.escaping import printable

LONGEST = 24  # Latin letters
CONTEXT = 8  # characters that stay before the place where similar names differ


def label(name: str, longest: int = LONGEST) -> str:
    """A name with an ellipsis in its middle if it is too long, since similar names often differ at the end.

    Characters that can't be printed, or that no font has, are escaped. longest: in Latin letters; others may be wider.
    """
    signs = [fonts.installed().drawable(sign) for sign in printable(name)]
    widths = [len(sign) if len(sign) > 1 else _width(sign) for sign in signs]
    if sum(widths) <= longest:
        return "".join(signs)
    head, tail, room = 0, len(signs), longest - 1
    while room >= 0:
        front = head <= len(signs) - tail
        room -= widths[head] if front else widths[tail - 1]
        if room >= 0:
            head, tail = (head + 1, tail) if front else (head, tail - 1)
    return f"{''.join(signs[:head])}…{''.join(signs[tail:])}"


def labels(names: Sequence[str], longest: int = LONGEST) -> list[str]:
    """The labels of several names. Names that would look the same are cut where they differ; if that is not enough,
    they have their number, from 0 on."""
    texts = [label(name, longest) for name in names]
    for text, count in Counter(texts).items():
        if count > 1:
            alike = [number for number, each in enumerate(texts) if each == text]
            columns = enumerate(zip(*(names[number] for number in alike), strict=False))
            start = max(0, next((place for place, signs in columns if len(set(signs)) > 1), 0) - CONTEXT)
            for number in alike:
                texts[number] = label(f"{'…' if start else ''}{names[number][start:]}", longest)
    counts = Counter(texts)
    return [text if counts[text] == 1 else f"{text} ({number})" for number, text in enumerate(texts)]


def _width(sign: str) -> int:
    return 2 if unicodedata.east_asian_width(sign) in "WF" else 1
