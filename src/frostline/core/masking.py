"""Remove secrets from messages, logs and cards: passwords and keys within URLs, and the path of the home directory."""

from __future__ import annotations

import re
from pathlib import Path

HIDDEN = "***"

# User and password of a URL: up to the last @ before its path. A password may, wrongly, contain a / that is not
# encoded. Text that looks like a port is not a password.
CREDENTIALS = re.compile(
    r"""(?<=://)(?: [^\s/?#"<>`]*@ | [^\s/?#"<>`:\[]*:(?!\d*(?:[/?#]|$))[^\s"<>`@]*@ )""", re.VERBOSE
)

# The parts of a URL's query that give access.
SECRETS = re.compile(
    r"""(?<=[?&;\#])
    ( (?: user(?:name)? | sig | pwd | auth | credentials? | [^\s=&"<>`]* (?: password | passwd | passphrase | token
      | secret | signature | api[-_]?key | accesskey(?:id)? | x-(?:amz|goog)-) [^\s=&"<>`]* ) = )
    [^\s&\#"<>`]*""",
    re.VERBOSE | re.IGNORECASE,
)


def masked(text: str) -> str:
    """The text with `***` instead of user, password and secret query parts in all URLs."""
    return SECRETS.sub(rf"\1{HIDDEN}", CREDENTIALS.sub(f"{HIDDEN}@", text))


def from_home(text: str) -> str:
    """The text with `~` instead of the home directory in all paths, because its path may contain a user name."""
    home = str(Path.home()).rstrip("/")
    if not home:  # the user has no home directory
        return text
    return re.sub(rf"(?<![\w.~-]){re.escape(home)}(?![\w.-])", "~", text)
