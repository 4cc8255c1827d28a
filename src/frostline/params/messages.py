"""Error messages for params.yaml: one line that names the key and the fix."""

from __future__ import annotations

import re
import reprlib
from typing import TYPE_CHECKING, Any, TypeGuard, get_args

from pydantic import BaseModel, ValidationError

from frostline.core import suggest

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

# Pydantic's names for the types that it tries if a key may have several types.
BRANCH = re.compile(r"int|float|str|bool|none|\{\}|\[key\]|(constrained|nullable|list|dict|union|literal)\W.*")


def one_line(text: str) -> str:
    """The text on one line, because a key or value of several lines must not break the message."""
    return " ".join(text.split())


def yaml_problem(error: Exception) -> str:
    """The line and the reason why a file is not YAML, on one line."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    if mark:
        return f"line {mark.line + 1}: {one_line(problem)}; fix that line"
    return f"not YAML in UTF-8 ({one_line(problem)}); fix it"


def explain(error: ValidationError, schema: type[BaseModel]) -> str:
    """The first problem on one line, with the number of further ones."""
    problems = error.errors()
    # An unknown key goes first: a misspelt key is also a missing one, but only the message on the unknown key helps.
    first = min(problems, key=lambda p: p["type"] not in {"extra_forbidden", "invalid_key"})
    location = _location(first)
    key = ".".join(location)
    more = len({tuple(_location(problem)) for problem in problems}) - 1
    if location[:2] == ["sweep", "space"] and len(location) == 3:
        value_errors = [problem["msg"] for problem in problems if problem["type"] == "value_error"]
        reason = (
            value_errors[0].removeprefix("Value error, ")
            if value_errors
            else ("must be {low: 1.0e-5, high: 1.0e-2, log: true}, a list of values, or for finetune.freeze {auto: 8}")
        )
        text = f"{key}: {reason}"
    elif first["type"] == "extra_forbidden":
        text = f"{key} is not a key; {suggest.hint(location[-1], _keys(schema, location[:-1]), 'remove it')}"
    elif first["type"] == "missing":
        text = f"{key} is missing; add it"
    else:
        messages = [problem["msg"] for problem in problems if _location(problem) == location]
        message = " or ".join(messages).removeprefix("Value error, ").replace(" or Input should be ", " or ")
        if first["type"] == "model_type":
            message = "should be a section of keys"
        actual = f", not {reprlib.repr(first['input'])}" if not isinstance(first["input"], dict) else ""
        text = f"{key or 'the file'}: {message[0].lower()}{message[1:]}{actual}"
    return text + (f" (and {more} more)" if more else "")


def _location(problem: ErrorDetails) -> list[str]:
    """The key of a problem, without the types that pydantic adds to it if a key may have several types."""
    location = [str(part) for part in problem["loc"]]
    if location[:2] == ["sweep", "space"]:
        return location[:3]
    key = location.pop() if problem["type"] == "extra_forbidden" else ""  # this key may have the name of a type
    return [part for part in location if not BRANCH.fullmatch(part)] + ([key] if key else [])


def _keys(schema: type[BaseModel], path: list[str]) -> list[str]:
    """The known keys of the section at `path`."""
    section = schema
    for name in path:
        subsection = _section(section.model_fields[name].annotation)
        if subsection is None:
            return []
        section = subsection
    return list(section.model_fields)


def _section(annotation: Any) -> type[BaseModel] | None:
    """The section within a type like `Section | None`."""
    if _is_section(annotation):
        return annotation
    return next((section for one in get_args(annotation) if (section := _section(one)) is not None), None)


def _is_section(annotation: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
