"""A classifier over HTTP: MLflow's own scoring server, with a page for a person at `/`.

POST /invocations, GET /ping and /version are MLflow's (https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally);
POST /explain takes the bytes of a picture and gives a PNG of what spoke for its label; GET /about says what is served.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frostline.images import UnreadableImageError

if TYPE_CHECKING:
    from fastapi import FastAPI
    from mlflow.pyfunc import PyFuncModel
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

PAGE = Path(__file__).with_name("page.html")
LIMIT = 32 * 2**20  # bytes of a request; a photo of 24 megapixels has 10 MB, 13 MB in base64

# The encoded picture -> a PNG. Raises UnreadableImageError.
Explain = Callable[[bytes], bytes]


def application(model: PyFuncModel, about: dict[str, Any], explain: Explain) -> FastAPI:
    """The web application. about: what GET /about answers."""
    from fastapi.responses import HTMLResponse, JSONResponse, Response
    from mlflow.pyfunc import scoring_server
    from starlette.requests import Request

    served = scoring_server.init(model)

    async def page(request: Request) -> Response:
        return HTMLResponse(PAGE.read_text(encoding="utf-8"))

    async def what(request: Request) -> Response:
        return JSONResponse(about)

    async def explained(request: Request) -> Response:
        data = await request.body()
        try:
            return Response(await asyncio.to_thread(explain, data), media_type="image/png")
        except UnreadableImageError as reason:
            return JSONResponse({"error_code": "INVALID_PARAMETER_VALUE", "message": str(reason)}, 400)

    served.router.add_route("/", page, methods=["GET"])
    served.router.add_route("/about", what, methods=["GET"])
    served.router.add_route("/explain", explained, methods=["POST"])
    served.add_middleware(_Bounded, limit=LIMIT)
    return served


class _Bounded:
    """Refuses requests that are too large before they are in memory, and those that MLflow's server trips over."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app, self.limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if int(headers.get(b"content-length", b"0")) > self.limit:
            await _refuse(send, 413, f"the request has more than {self.limit // 2**20} MB")
            return
        if scope["path"] == "/invocations" and b"content-type" not in headers:
            await _refuse(send, 415, "the header Content-Type is missing; send application/json")
            return
        seen = 0

        async def counted() -> Message:
            """For a request that does not say how long it is."""
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self.limit:
                raise _TooLargeError
            return message

        try:
            await self.app(scope, counted, send)
        except _TooLargeError:
            await _refuse(send, 413, f"the request has more than {self.limit // 2**20} MB")


class _TooLargeError(Exception):
    pass


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"error_code": "BAD_REQUEST", "message": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
