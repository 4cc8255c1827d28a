"""Bring the text of an older params.yaml to the keys of this version; comments and order stay."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from frostline.errors import ParamsError
from frostline.project import layout

# Keys by their old names. None was renamed so far; a key keeps its row for as long as projects may have it.
RENAMED: Mapping[str, str] = {}


def completed(text: str, template: str) -> str:
    """The text with each key of the template that it lacks, with the template's value and comment, at its place.

    Raises ParamsError if the text is not laid out in lines, so that a key can't be put into it.
    """
    before, blocks, lines = _values(text), layout.keys(template), template.splitlines()
    missing = [key for key in blocks if not _has(before, key)]
    added: list[str] = []
    for key in missing:
        if not key.startswith(tuple(f"{each}." for each in added)):  # it came with its section
            text = _inserted(text, key, lines[blocks[key].start : blocks[key].end], list(blocks))
            added.append(key)
    if missing and not _is_completed(text, missing, before):
        raise ParamsError(f"params.yaml: can't be completed in place; add by hand {', '.join(added)}")
    return text


def renamed(text: str, table: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """The text without the keys that have a new name, and their values by that name.

    In `sweep.space`, whose keys are names of other keys, they are renamed in place.
    """
    values = {}
    for old, new in table.items():
        text = re.sub(rf"^( +){re.escape(old)}:", rf"\g<1>{new}:", text, flags=re.MULTILINE)
        present = _values(text)
        if not _has(present, old):
            continue
        values[new] = _get(present, old)
        block, lines = layout.keys(text)[old], text.splitlines(keepends=True)
        text = "".join(lines[: block.start] + lines[block.end :])
    return text, values


def _is_completed(text: str, missing: list[str], before: dict[str, Any]) -> bool:
    """Whether a text has the missing keys, and all values that were there before."""
    try:
        after = _values(text)
    except ParamsError:
        return False
    return all(_has(after, key) for key in missing) and _is_part(before, after)


def _inserted(text: str, key: str, block: list[str], order: list[str]) -> str:
    """The text with the lines of a key, behind the key before it in the same section, or first in its section."""
    section = key.rpartition(".")[0]
    present, lines = layout.keys(text), text.splitlines()
    siblings = [other for other in order if other.rpartition(".")[0] == section]
    earlier = [other for other in siblings[: siblings.index(key)] if other in present]
    if earlier:
        place = present[earlier[-1]].end
    elif section in present:
        place = present[section].start + 1
    else:
        place = len(lines) if section else 0
    gap = [""] if not section and len(block) > 1 else []
    return "\n".join([*lines[:place], *gap, *block, *lines[place:]]) + "\n"


def _values(text: str) -> dict[str, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        values = YAML(typ="safe", pure=True).load(text)
    except YAMLError:
        values = None
    if not isinstance(values, dict):
        raise ParamsError("params.yaml: is no YAML of sections and keys; `frostline doctor` names the line")
    return values


def _has(values: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(values, dict) or part not in values:
            return False
        values = values[part]
    return True


def _get(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values[part]
    return values


def _is_part(part: Any, whole: Any) -> bool:
    """Whether all values of `part` are the same in `whole`."""
    if not isinstance(part, dict):
        return bool(part == whole)
    return isinstance(whole, dict) and all(key in whole and _is_part(value, whole[key]) for key, value in part.items())
