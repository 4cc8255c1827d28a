"""What is wrong with params.yaml, in one line that names the key and the fix."""

from __future__ import annotations

import re
import reprlib
from typing import TYPE_CHECKING, Any, TypeGuard, get_args

from pydantic import BaseModel, ValidationError

from frostline.core import suggest

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

# How pydantic calls the types that it tries where a key may have several.
BRANCH = re.compile(r"int|float|str|bool|none|\{\}|\[key\]|(constrained|nullable|list|dict|union|literal)\W.*")


def one_line(text: str) -> str:
    """A key or a value that spans lines must not break the message."""
    return " ".join(text.split())


def broken(error: Exception) -> str:
    """Where a file is no YAML, and why, in one line."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    if mark:
        return f"line {mark.line + 1}: {one_line(problem)}; fix that line"
    return f"not YAML in UTF-8 ({one_line(problem)}); fix it"


def explain(error: ValidationError, schema: type[BaseModel]) -> str:
    """The first problem in one line, with how many more there are."""
    problems = error.errors()
    # An unknown key first: a misspelt key is also a missing one, and only the former says what to fix.
    first = min(problems, key=lambda p: p["type"] not in {"extra_forbidden", "invalid_key"})
    location = _location(first)
    key = ".".join(location)
    more = len({tuple(_location(problem)) for problem in problems}) - 1
    if location[:2] == ["sweep", "space"] and len(location) == 3:
        said = [problem["msg"] for problem in problems if problem["type"] == "value_error"]
        why = (
            said[0].removeprefix("Value error, ")
            if said
            else ("must be {low: 1.0e-5, high: 1.0e-2, log: true}, a list of values, or for finetune.freeze {auto: 8}")
        )
        text = f"{key}: {why}"
    elif first["type"] == "extra_forbidden":
        text = f"{key} is not a key; {suggest.hint(location[-1], _keys(schema, location[:-1]), 'remove it')}"
    elif first["type"] == "missing":
        text = f"{key} is missing; add it"
    else:
        messages = [problem["msg"] for problem in problems if _location(problem) == location]
        message = " or ".join(messages).removeprefix("Value error, ").replace(" or Input should be ", " or ")
        if first["type"] == "model_type":
            message = "should be a section of keys"
        got = f", not {reprlib.repr(first['input'])}" if not isinstance(first["input"], dict) else ""
        text = f"{key or 'the file'}: {message[0].lower()}{message[1:]}{got}"
    return text + (f" (and {more} more)" if more else "")


def _location(problem: ErrorDetails) -> list[str]:
    """Where a problem is, as a person writes it: pydantic adds the tried type where a key may have several."""
    location = [str(part) for part in problem["loc"]]
    if location[:2] == ["sweep", "space"]:
        return location[:3]
    key = location.pop() if problem["type"] == "extra_forbidden" else ""  # which may be called as a type is
    return [part for part in location if not BRANCH.fullmatch(part)] + ([key] if key else [])


def _keys(schema: type[BaseModel], path: list[str]) -> list[str]:
    """The known keys of the section at `path`."""
    section = schema
    for name in path:
        found = _section(section.model_fields[name].annotation)
        if found is None:
            return []
        section = found
    return list(section.model_fields)


def _section(annotation: Any) -> type[BaseModel] | None:
    """The section within a type such as `Section | None`."""
    if _is_section(annotation):
        return annotation
    return next((found for one in get_args(annotation) if (found := _section(one)) is not None), None)


def _is_section(annotation: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
