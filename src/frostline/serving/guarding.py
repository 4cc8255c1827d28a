"""The checks before a request is answered: the host name it was sent to, the page it comes from, how many others are
being answered, and the length and time of its body."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from frostline.serving.bounds import MEBIBYTE
from frostline.serving.payload import RefusedRequestError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::\d*)?")
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

RETRY = {429: 1, 503: 5}  # seconds after which a client may try again, by status
SAFE = {"GET", "HEAD", "OPTIONS"}  # methods that change nothing and need no turn (RFC 9110, section 9.2.1)

CODES = {
    400: "INVALID_PARAMETER_VALUE",
    403: "PERMISSION_DENIED",
    404: "ENDPOINT_NOT_FOUND",
    429: "REQUEST_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
}


def host_name(header: str) -> str | None:
    """The name or address in a Host header, without its port; None if the header is invalid."""
    match = HOST.fullmatch(header.strip().lower())
    return (match[1] or match[2].rstrip(".")) if match else None


@dataclass(frozen=True)
class Allowed:
    """Whose requests are answered.

    hosts: the names that requests may be sent to, with any port; None for all. origins: the names of other sites whose
    pages may send requests; those of the server itself always may.
    """

    hosts: Collection[str] | None = None
    origins: Collection[str] = ()


class Guard:
    """Refuses requests to other host names than the server's, requests that a page of another site makes a browser
    send, and more requests at a time than allowed. It answers open requests when the server stops.

    A hostile web page can point its own host name to 127.0.0.1 ("DNS rebinding"); the browser would then let it read
    this server's answers. But the browser still sends the host name of the page, so the request can be refused. A page
    of another site cannot read the answers, but it can make a browser send requests; these name the page in the header
    `Origin`, which programs do not send.

    most: requests at a time, without those that only read.
    """

    def __init__(self, app: ASGIApp, allowed: Allowed, most: int) -> None:
        self.app, self.allowed, self.most = app, allowed, most
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, as ASGI specifies."""
        if reason := self._refused(scope):
            await refusal(*reason)(scope, receive, send)
            return
        turn = int(scope["method"] not in SAFE)
        self._open += turn
        try:
            await self.app(scope, receive, send)
        except asyncio.CancelledError:  # the server stops and waits no longer for this request
            with suppress(RuntimeError):  # the answer was already begun
                await refusal(503, "the server is stopping")(scope, receive, send)
        finally:
            self._open -= turn

    def _refused(self, scope: Scope) -> tuple[int, str] | None:
        """The status and reason with which a request is refused; None if it is answered."""
        hosts, origins = _values(scope, b"host"), _values(scope, b"origin")
        allowed = self.allowed.hosts
        if allowed is not None and (len(hosts) != 1 or host_name(hosts[0]) not in allowed):
            names = ", ".join(sorted(allowed))
            return 421, f"the header Host must be one of {names}; `frostline serve --allow-host NAME` accepts more"
        if scope["method"] in SAFE:
            return None
        if not all(self._is_allowed(origin, hosts) for origin in origins):
            return 403, "the request comes from a page of another site; `frostline serve --allow-host NAME` allows it"
        if self._open >= self.most:
            return 429, f"the server already answers {self.most} requests, which is its limit; try again later"
        return None

    def _is_allowed(self, origin: str, hosts: list[str]) -> bool:
        """Whether pages of an origin (RFC 6454; `null` if the browser hides it) may send requests to this host."""
        _, _, place = origin.lower().partition("://")
        return bool(place) and ([place] == [each.lower() for each in hosts] or host_name(place) in self.allowed.origins)


def _values(scope: Scope, key: bytes) -> list[str]:
    """The values of a header."""
    return [value.decode("latin-1") for name, value in scope["headers"] if name == key]


class Intake:
    """Receives bodies within limits.

    most: bytes of one body; together: bytes of all bodies in memory at a time; seconds: for one body to arrive.
    """

    def __init__(self, most: int, together: int, seconds: float) -> None:
        self.most, self.together, self.seconds = most, together, seconds
        self._total = 0  # bytes of all bodies in memory

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """The body, which counts for `together` until the block ends. Raises RefusedRequestError."""
        self._require(int(request.headers.get("content-length", "0")))
        data = bytearray()
        try:
            try:
                async with asyncio.timeout(self.seconds):
                    async for chunk in request.stream():
                        data += chunk
                        self._total += len(chunk)
                        self._require(len(data))
            except TimeoutError:
                raise RefusedRequestError(408, f"the body did not arrive within {self.seconds:g} seconds") from None
            yield bytes(data)
        finally:
            self._total -= len(data)

    def _require(self, length: int) -> None:
        if length > self.most:
            raise RefusedRequestError(413, f"the request has more than {self.most / MEBIBYTE:g} MB")
        if self._total > self.together:
            raise RefusedRequestError(503, "the server is busy with other requests; try again later")


def refusal(status: int, reason: str) -> Response:
    """A refusal in the format of MLflow's server."""
    from starlette.responses import Response

    body = json.dumps({"error_code": CODES.get(status, "BAD_REQUEST"), "message": reason})  # always ASCII
    headers = {"connection": "close"} if status == 408 else {}  # do not wait for the rest of the body
    if status in RETRY:
        headers["retry-after"] = str(RETRY[status])
    return Response(body, status, headers, "application/json")
