"""The limits of requests and of the server that answers them."""

from __future__ import annotations

from dataclasses import dataclass

MEBIBYTE = 2**20


@dataclass(frozen=True)
class Bounds:
    """The limits of requests.

    body: bytes of one body; bodies: bytes of all bodies in memory at a time; requests: with a body, at a time; seconds:
    for a body to arrive, and again to answer it; health_seconds: within which a healthy network answers.
    """

    body: int = 32 * MEBIBYTE  # a photo of 24 megapixels has 10 MB, 13 MB in base64
    bodies: int = 512 * MEBIBYTE
    requests: int = 200
    seconds: float = 60.0
    health_seconds: float = 5.0
