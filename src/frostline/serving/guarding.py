"""What every request passes before it is answered: the name it was sent to, and the length and time of its body."""

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
    """The name or address in a Host header, without its port; None where it is none."""
    found = HOST.fullmatch(header.strip().lower())
    return (found[1] or found[2].rstrip(".")) if found else None


class Guard:
    """Refuses requests that were sent to another name than the server's, and ends well when the server must.

    A web page of a stranger's can make its own name lead to 127.0.0.1 ("DNS rebinding") and would then be read as the
    server's own; but the browser still sends the stranger's name.

    hosts: the names that are accepted, with any port; None for all.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI wants it."""
        given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if self.hosts is not None and (len(given) != 1 or host_name(given[0]) not in self.hosts):
            names = ", ".join(sorted(self.hosts))
            reason = f"the header Host must be one of {names}; `frostline serve --allow-host NAME` accepts more"
            await refusal(421, reason)(scope, receive, send)
            return
        try:
            await self.app(scope, receive, send)
        except asyncio.CancelledError:  # the server has waited for this request as long as it may
            with suppress(RuntimeError):  # the answer has begun
                await refusal(503, "the server is stopping")(scope, receive, send)


class Intake:
    """Receives bodies within bounds.

    most: bytes of one body; together: bytes of all bodies that are held at a time; seconds: for one to arrive.
    """

    def __init__(self, most: int, together: int, seconds: float) -> None:
        self.most, self.together, self.seconds = most, together, seconds
        self._held = 0

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """The body, counted as held until the block ends. Raises RefusedRequestError."""
        self._require(int(request.headers.get("content-length", "0")))
        data = bytearray()
        try:
            try:
                async with asyncio.timeout(self.seconds):
                    async for chunk in request.stream():
                        data += chunk
                        self._held += len(chunk)
                        self._require(len(data))
            except TimeoutError:
                raise RefusedRequestError(408, f"the body did not arrive within {self.seconds:g} seconds") from None
            yield bytes(data)
        finally:
            self._held -= len(data)

    def _require(self, length: int) -> None:
        if length > self.most:
            raise RefusedRequestError(413, f"the request has more than {self.most / 2**20:g} MB")
        if self._held > self.together:
            raise RefusedRequestError(503, "the server is busy with other requests; try again later")


def refusal(status: int, reason: str) -> Response:
    """An answer in the form that MLflow's server has for its refusals."""
    from starlette.responses import Response

    body = json.dumps(
        {"error_code": CODES.get(status, "BAD_REQUEST"), "message": reason}
    )  # in ASCII, whatever is in it
    headers = {"connection": "close"} if status == 408 else {}  # what is still to come is not waited for
    return Response(body, status, headers, "application/json")
