"""Edit the text of params.yaml: it replaces values in place, and keeps everything else as it is."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from frostline.core import atomic
from frostline.errors import ParamsError

# PLAIN words need no quotes, except WORDS, which YAML would read as other values.
PLAIN = re.compile(r"[A-Za-z_][\w./-]*")
WORDS = {"yes", "no", "on", "off", "true", "false", "null", "y", "n"}


def change(path: Path, values: Mapping[str, Any]) -> None:
    """Set existing dotted keys to scalars, lists or mappings. Comments, order and columns stay.

    The file is replaced as a whole. Raises ParamsError for a key that does not exist, and if a value can't be changed
    without changing more, for example with anchors and values of several lines.
    """
    from ruamel.yaml import YAML

    with path.open(encoding="utf-8", newline="") as file:
        before = text = file.read()
    document = YAML(pure=True).compose(text)
    spans = {key: _span(text, document, key, path) for key in values}
    # From the end on, so that the other spans stay valid.
    for key, (start, end) in sorted(spans.items(), key=lambda item: item[1], reverse=True):
        value_text = _as_yaml(values[key]) if end > start else f" {_as_yaml(values[key])}"  # an empty value is a null
        comment_gap = re.match(r"( +)#", text[end:])
        if comment_gap:  # the comment stays in its column if there is room
            room = max(1, len(comment_gap[1]) + (end - start) - len(value_text))
            text = text[:start] + value_text + " " * room + text[end + len(comment_gap[1]) :]
        else:
            text = text[:start] + value_text + text[end:]
    _require_no_more(path, before, text, values)
    with atomic.file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.write(text)


def _require_no_more(path: Path, before: str, after: str, values: Mapping[str, Any]) -> None:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    yaml = YAML(typ="safe", pure=True)
    expected = yaml.load(before)
    for key, value in values.items():
        *sections, name = key.split(".")
        part = expected
        for section in sections:
            part = part[section]
        part[name] = list(value) if isinstance(value, tuple) else value
    try:
        is_right = yaml.load(after) == expected
    except YAMLError:
        is_right = False
    if not is_right:
        lines = ", ".join(f"{key}: {_as_yaml(value)}" for key, value in values.items())
        raise ParamsError(f"{path}: can't be edited in place; write by hand {lines}")


def _span(text: str, document: Any, key: str, path: Path) -> tuple[int, int]:
    """The start and end of a dotted key's value in the text. Raises ParamsError if the key does not exist.

    document: the node that ruamel.yaml composes of the text.
    """
    node = document
    for part in key.split("."):
        pairs = node.value if isinstance(node.value, list) else []
        matches = [pair for pair in pairs if pair[0].value == part]
        if not matches:
            raise ParamsError(f"{path}: {key} is not in it; add it")
        ((name, node),) = matches
    if node.start_mark.index == node.end_mark.index:  # the mark of an empty value is at the start of the next one
        after_colon = text.index(":", name.end_mark.index) + 1
        return after_colon, after_colon
    return node.start_mark.index, node.end_mark.index


def _as_yaml(value: Any) -> str:
    """A value as text that YAML 1.1 and 1.2 read in the same way."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(_as_yaml(part) for part in value)}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_as_yaml(key)}: {_as_yaml(part)}" for key, part in value.items()) + "}"
    if isinstance(value, float):
        mantissa, e, exponent = repr(value).partition("e")  # `1e-05` would be a string in YAML 1.1
        return repr(value) if not e or "." in mantissa else f"{mantissa}.0e{exponent}"
    if isinstance(value, str) and PLAIN.fullmatch(value) and value.lower() not in WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)
