"""Ask git. Without git, or outside a repository, there is no answer."""

from __future__ import annotations

import subprocess


def output(*arguments: str, text: str | None = None) -> str | None:
    """The output of a git command; None if it fails. text: its standard input."""
    try:
        result = subprocess.run(["git", *arguments], input=text, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()
