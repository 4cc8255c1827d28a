"""The checks before a request is answered: the host name it was sent to, and the length and time of its body."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from frostline.serving.payload import RefusedRequestError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::\d*)?")
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

CODES = {
    400: "INVALID_PARAMETER_VALUE",
    404: "ENDPOINT_NOT_FOUND",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
}


def host_name(header: str) -> str | None:
    """The name or address in a Host header, without its port; None if the header is invalid."""
    match = HOST.fullmatch(header.strip().lower())
    return (match[1] or match[2].rstrip(".")) if match else None


class Guard:
    """Refuses requests to other host names than the server's, and answers open requests when the server stops.

    A hostile web page can point its own host name to 127.0.0.1 ("DNS rebinding"); the browser would then let it read
    this server's answers. But the browser still sends the host name of the page, so the request can be refused.

    hosts: the names that are accepted, with any port; None for all.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, as ASGI specifies."""
        host_headers = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if self.hosts is not None and (len(host_headers) != 1 or host_name(host_headers[0]) not in self.hosts):
            names = ", ".join(sorted(self.hosts))
            reason = f"the header Host must be one of {names}; `frostline serve --allow-host NAME` accepts more"
            await refusal(421, reason)(scope, receive, send)
            return
        try:
            await self.app(scope, receive, send)
        except asyncio.CancelledError:  # the server stops and waits no longer for this request
            with suppress(RuntimeError):  # the answer was already begun
                await refusal(503, "the server is stopping")(scope, receive, send)


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
            raise RefusedRequestError(413, f"the request has more than {self.most / 2**20:g} MB")
        if self._total > self.together:
            raise RefusedRequestError(503, "the server is busy with other requests; try again later")


def refusal(status: int, reason: str) -> Response:
    """A refusal in the format of MLflow's server."""
    from starlette.responses import Response

    body = json.dumps({"error_code": CODES.get(status, "BAD_REQUEST"), "message": reason})  # always ASCII
    headers = {"connection": "close"} if status == 408 else {}  # do not wait for the rest of the body
    return Response(body, status, headers, "application/json")
