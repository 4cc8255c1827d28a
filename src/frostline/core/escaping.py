"""Names of files and classes as text and nothing more, whatever shows them: a terminal, a table, a page."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

# What spreadsheets take for the beginning of a formula; https://owasp.org/www-community/attacks/CSV_Injection
FORMULA = re.compile(r"\s*[=+\-@].")

# Signs that mean something in Markdown as GitHub, Hugging Face and MLflow read it; < and & also begin HTML.
MARKUP = re.compile(r"([\\`*_{}\[\]()#!|~$:@])")
HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def printable(text: str) -> str:
    """A text as a terminal may show it: what would steer the terminal, or change what is read, is written as \\x1b."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def cell(text: str) -> str:
    """A text as the cell of a CSV file: printable, and behind an apostrophe where a spreadsheet would run it."""
    shown = printable(text)
    return f"'{shown}" if FORMULA.match(shown) else shown


def cells(table: pd.DataFrame) -> pd.DataFrame:
    """A copy of a table whose texts and column names are fit for a CSV file."""
    import pandas as pd

    def fit(value: object) -> object:
        return cell(value) if isinstance(value, str) else value

    fitted = {
        number: table.iloc[:, number].map(fit)
        if pd.api.types.is_object_dtype(dtype) or pd.api.types.is_string_dtype(dtype)
        else table.iloc[:, number]
        for number, dtype in enumerate(table.dtypes)
    }
    return pd.DataFrame(fitted).set_axis([cell(str(name)) for name in table.columns], axis=1)


def markdown(text: str) -> str:
    """A text on one line that Markdown and HTML show as it is."""
    shown = MARKUP.sub(r"\\\1", printable(" ".join(text.split()))).replace("www.", "www\\.")
    return "".join(HTML.get(sign, sign) for sign in shown)


def code(text: str) -> str:
    """A text on one line as a piece of code in Markdown, also within a table."""
    shown = printable(" ".join(text.split())).replace("|", "\\|")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    return f"{fence}{shown}{fence}" if len(fence) == 1 else f"{fence} {shown} {fence}"


class PlainText(io.TextIOWrapper):
    """An output stream on which no control character gets out but the ends of lines and tabs.

    steering: the same place without that rule, for what draws a bar of progress.
    """

    def __init__(self, below: io.TextIOWrapper) -> None:
        super().__init__(below.buffer, below.encoding, "backslashreplace", line_buffering=below.line_buffering)
        self.steering = below

    def write(self, text: str, /) -> int:
        parts = re.split(r"([\n\t])", text)
        super().write("".join(part if part in {"\n", "\t"} else printable(part) for part in parts))
        return len(text)
