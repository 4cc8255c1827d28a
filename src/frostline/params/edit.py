"""params.yaml as a text: values are changed where they stand, everything else stays as it was written."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from frostline.core import atomic
from frostline.errors import ParamsError

# What needs no quotes, and what would be read as something else without them.
PLAIN = re.compile(r"[A-Za-z_][\w./-]*")
WORDS = {"yes", "no", "on", "off", "true", "false", "null", "y", "n"}


def change(path: Path, values: Mapping[str, Any]) -> None:
    """Set dotted keys, which must be there, to scalars, lists or mappings; comments, order and columns are kept.

    The file is replaced as a whole. Raises ParamsError for a key that is not there, and where a value can't be changed
    without changing more, as with anchors and values of several lines.
    """
    with path.open(encoding="utf-8", newline="") as file:
        before = text = file.read()
    spans = {key: _span(text, key, path) for key in values}
    for key, (start, end) in sorted(spans.items(), key=lambda item: item[1], reverse=True):  # from the end on
        written = _written(values[key]) if end > start else f" {_written(values[key])}"  # an empty value is a null
        after = re.match(r"( +)#", text[end:])
        if after:  # the comment stays in its column where there is room
            room = max(1, len(after[1]) + (end - start) - len(written))
            text = text[:start] + written + " " * room + text[end + len(after[1]) :]
        else:
            text = text[:start] + written + text[end:]
    _require_no_more(path, before, text, values)
    with atomic.file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.write(text)


def _require_no_more(path: Path, before: str, after: str, values: Mapping[str, Any]) -> None:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    yaml = YAML(typ="safe", pure=True)
    wanted = yaml.load(before)
    for key, value in values.items():
        *sections, name = key.split(".")
        part = wanted
        for section in sections:
            part = part[section]
        part[name] = list(value) if isinstance(value, tuple) else value
    try:
        is_right = yaml.load(after) == wanted
    except YAMLError:
        is_right = False
    if not is_right:
        said = ", ".join(f"{key}: {_written(value)}" for key, value in values.items())
        raise ParamsError(f"{path}: can't be changed in its places; write by hand {said}")


def _span(text: str, key: str, path: Path) -> tuple[int, int]:
    """Where the value of a dotted key begins and ends in the text."""
    from ruamel.yaml import YAML

    node = YAML(pure=True).compose(text)
    for part in key.split("."):
        pairs = node.value if isinstance(node.value, list) else []
        found = [pair for pair in pairs if pair[0].value == part]
        if not found:
            raise ParamsError(f"{path}: {key} is not in it; add it")
        ((name, node),) = found
    if node.start_mark.index == node.end_mark.index:  # the mark of an empty value is where the next one begins
        behind = text.index(":", name.end_mark.index) + 1
        return behind, behind
    return node.start_mark.index, node.end_mark.index


def _written(value: Any) -> str:
    """A value as YAML 1.1 and 1.2 read it alike."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(_written(part) for part in value)}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_written(key)}: {_written(part)}" for key, part in value.items()) + "}"
    if isinstance(value, float):
        mantissa, e, exponent = repr(value).partition("e")  # `1e-05` would be a word in YAML 1.1
        return repr(value) if not e or "." in mantissa else f"{mantissa}.0e{exponent}"
    if isinstance(value, str) and PLAIN.fullmatch(value) and value.lower() not in WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)
