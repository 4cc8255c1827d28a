"""Show names of files and classes as plain text, and nothing more, in a terminal, a table or a page."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

# Spreadsheets read a cell that begins like this as a formula; https://owasp.org/www-community/attacks/CSV_Injection
FORMULA = re.compile(r"\s*[=+\-@].")

# Characters with a meaning in the Markdown of GitHub, Hugging Face and MLflow. The characters < and & also begin HTML.
MARKUP = re.compile(r"([\\`*_{}\[\]()#!|~$:@])")
HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def printable(text: str) -> str:
    """A text that is safe in a terminal: characters that control it, or are invisible, are written like \\x1b."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def cell(text: str) -> str:
    """A text as the cell of a CSV file: printable, with an apostrophe in front if it looks like a formula."""
    safe_text = printable(text)
    return f"'{safe_text}" if FORMULA.match(safe_text) else safe_text


def cells(table: pd.DataFrame) -> pd.DataFrame:
    """A copy of a table whose texts and column names are safe in a CSV file."""
    import pandas as pd

    def fit(value: object) -> object:
        return cell(value) if isinstance(value, str) else value

    columns = {
        number: table.iloc[:, number].map(fit)
        if pd.api.types.is_object_dtype(dtype) or pd.api.types.is_string_dtype(dtype)
        else table.iloc[:, number]
        for number, dtype in enumerate(table.dtypes)
    }
    return pd.DataFrame(columns).set_axis([cell(str(name)) for name in table.columns], axis=1)


def markdown(text: str) -> str:
    """A text on one line, escaped so that Markdown and HTML show it unchanged."""
    escaped = MARKUP.sub(r"\\\1", printable(" ".join(text.split()))).replace("www.", "www\\.")
    return "".join(HTML.get(sign, sign) for sign in escaped)


def code(text: str) -> str:
    """A text on one line as inline code in Markdown, also within a table."""
    safe_text = printable(" ".join(text.split())).replace("|", "\\|")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", safe_text)), default=0))
    return f"{fence}{safe_text}{fence}" if len(fence) == 1 else f"{fence} {safe_text} {fence}"


class PlainText(io.TextIOWrapper):
    """An output stream that escapes all control characters except line ends and tabs.

    steering: the same stream without escaping, for progress bars.
    """

    def __init__(self, below: io.TextIOWrapper) -> None:
        super().__init__(below.buffer, below.encoding, "backslashreplace", line_buffering=below.line_buffering)
        self.steering = below

    def write(self, text: str, /) -> int:
        parts = re.split(r"([\n\t])", text)
        super().write("".join(part if part in {"\n", "\t"} else printable(part) for part in parts))
        return len(text)
