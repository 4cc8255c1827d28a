"""What messages, logs and cards must not tell: passwords and keys within URLs, and where somebody's home is."""

from __future__ import annotations

import re
from pathlib import Path

HIDDEN = "***"

# User and password of a URL: up to the last @ before its path. A password may, wrongly, have a / that is not encoded;
# what looks like a port is none.
CREDENTIALS = re.compile(
    r"""(?<=://)(?: [^\s/?#"<>`]*@ | [^\s/?#"<>`:\[]*:(?!\d*(?:[/?#]|$))[^\s"<>`@]*@ )""", re.VERBOSE
)

# Those parts of a URL's query that let somebody in.
SECRETS = re.compile(
    r"""(?<=[?&;\#])
    ( (?: user(?:name)? | sig | pwd | auth | credentials? | [^\s=&"<>`]* (?: password | passwd | passphrase | token
      | secret | signature | api[-_]?key | accesskey(?:id)? | x-(?:amz|goog)-) [^\s=&"<>`]* ) = )
    [^\s&\#"<>`]*""",
    re.VERBOSE | re.IGNORECASE,
)


def masked(text: str) -> str:
    """A text whose URLs have `***` for user and password, and for the parts of their query that let somebody in."""
    return SECRETS.sub(rf"\1{HIDDEN}", CREDENTIALS.sub(f"{HIDDEN}@", text))


def from_home(text: str) -> str:
    """A text whose paths within the home directory begin with `~`, which names nobody."""
    home = str(Path.home()).rstrip("/")
    if not home:  # of a user without a home
        return text
    return re.sub(rf"(?<![\w.~-]){re.escape(home)}(?![\w.-])", "~", text)
