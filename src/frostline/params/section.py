"""The base class and common types of the sections of params.yaml."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from frostline.core import own_code

Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=0)]
OwnFunction = Annotated[str, Field(pattern=own_code.PATTERN)]  # `package.module:function`
Positive = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A section of params.yaml: frozen, without unknown keys, without conversions between types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def pairs(values: Any, key: str) -> Any:
    """The values of a section with a list under this key as a tuple: YAML has no tuples, and types are strict."""
    if isinstance(values, dict) and isinstance(values.get(key), list):
        return {**values, key: tuple(values[key])}
    return values
