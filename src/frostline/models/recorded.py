"""Check the values that bundle.json records."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")


def checked(schema: TypeAdapter[T], values: Any, section: str) -> T:
    """The values as an object. section: their key in bundle.json.

    Raises ValueError, one line that names the first wrong value.
    """
    try:
        return schema.validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, (section, *first["loc"])))
        raise ValueError(f"{place}: {first['msg'][0].lower()}{first['msg'][1:]}") from None
