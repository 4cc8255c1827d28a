"""Variables of the environment in the values of params.yaml, so that no password is written there."""

from __future__ import annotations

import os
import re

from frostline.errors import ParamsError

VARIABLE = re.compile(r"\$(\$)?\{([^{}]*)\}")


def expanded(text: str, key: str) -> str:
    """A text with the environment's value for each `${NAME}`; `$${NAME}` stands for `${NAME}` itself.

    Used where a value is needed and nowhere before, so that what is logged or written keeps the name. Raises
    ParamsError, which names the key, for a variable that is not set.
    """

    def value(found: re.Match[str]) -> str:
        literal, name = found.groups()
        if literal:
            return "${" + name + "}"
        if name not in os.environ:
            raise ParamsError(f"params.yaml: {key} names ${{{name}}}, which is not set; export {name} with its value")
        return os.environ[name]

    return VARIABLE.sub(value, text)
