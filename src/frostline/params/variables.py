"""Environment variables in the values of params.yaml, so that it need not contain passwords."""

from __future__ import annotations

import os
import re

from frostline.errors import ParamsError

VARIABLE = re.compile(r"\$(\$)?\{([^{}]*)\}")


def expanded(text: str, key: str) -> str:
    """Replace each `${NAME}` by the value of this environment variable. `$${NAME}` becomes `${NAME}`.

    Call it only when the value is needed, so that logs and files contain the name. Raises ParamsError, naming the key,
    if a variable is not set.
    """

    def value(match: re.Match[str]) -> str:
        literal, name = match.groups()
        if literal:
            return "${" + name + "}"
        if name not in os.environ:
            raise ParamsError(f"params.yaml: {key} names ${{{name}}}, which is not set; export {name} with its value")
        return os.environ[name]

    return VARIABLE.sub(value, text)
