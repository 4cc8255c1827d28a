"""params.yaml as a text: values are changed where they stand, everything else stays as it was written."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from frostline import atomic
from frostline.errors import ParamsError

# What needs no quotes, and what would be read as something else without them.
PLAIN = re.compile(r"[A-Za-z_][\w./-]*")
WORDS = {"yes", "no", "on", "off", "true", "false", "null", "y", "n"}


def change(path: Path, values: Mapping[str, Any]) -> None:
    """Set dotted keys, which must be there, to scalars or lists of scalars; comments, order and columns are kept.

    The file is replaced as a whole. Raises ParamsError for a key that is not there.
    """
    with path.open(encoding="utf-8", newline="") as file:
        text = file.read()
    spans = {key: _span(text, key, path) for key in values}
    for key, (start, end) in sorted(spans.items(), key=lambda item: item[1], reverse=True):  # from the end on
        written = _written(values[key])
        after = re.match(r"( +)#", text[end:])
        if after:  # the comment stays in its column where there is room
            room = max(1, len(after[1]) + (end - start) - len(written))
            text = text[:start] + written + " " * room + text[end + len(after[1]) :]
        else:
            text = text[:start] + written + text[end:]
    with atomic.file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.write(text)


def _span(text: str, key: str, path: Path) -> tuple[int, int]:
    """Where the value of a dotted key begins and ends in the text."""
    from ruamel.yaml import YAML

    node = YAML(pure=True).compose(text)
    for part in key.split("."):
        pairs = node.value if isinstance(node.value, list) else []
        found = [value for name, value in pairs if name.value == part]
        if not found:
            raise ParamsError(f"{path}: {key} is not in it; add it")
        node = found[0]
    return node.start_mark.index, node.end_mark.index


def _written(value: Any) -> str:
    """A value as YAML 1.1 and 1.2 read it alike."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(_written(part) for part in value)}]"
    if isinstance(value, float):
        mantissa, e, exponent = repr(value).partition("e")  # `1e-05` would be a word in YAML 1.1
        return repr(value) if not e or "." in mantissa else f"{mantissa}.0e{exponent}"
    if isinstance(value, str) and PLAIN.fullmatch(value) and value.lower() not in WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)
