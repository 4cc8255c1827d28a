"""A classifier over HTTP: the addresses of MLflow's own scoring server, and a web page at `/`.

POST /invocations, GET /ping, /health and /version are MLflow's
(https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally); POST /explain takes the bytes of an image and gives
a PNG with the heat map of its label; GET /about describes the model. There is nothing else, and clients cannot read
files of this machine unless the limits of the scorer allow paths. A refusal is {"error_code", "message"}.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from frostline.core import machine
from frostline.data.images import UnreadableImageError
from frostline.serving import payload
from frostline.serving.guarding import Guard, Intake, refusal
from frostline.serving.inputs import UnusableInputError
from frostline.serving.payload import RefusedRequestError
from frostline.serving.scoring import Scorer

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

PAGE = Path(__file__).with_name("page.html")

# The bytes of an image -> a PNG. Raises UnreadableImageError.
Explain = Callable[[bytes], bytes]
Output = TypeVar("Output")


@dataclass(frozen=True)
class Bounds:
    """The limits of a request. body: its bytes; bodies: the bytes of all bodies in memory at a time; seconds: for a
    body to arrive, and again to answer it; health_seconds: within which a healthy network answers."""

    body: int = 32 * 2**20  # a photo of 24 megapixels has 10 MB, 13 MB in base64
    bodies: int = 512 * 2**20
    seconds: float = 60.0
    health_seconds: float = 5.0


def application(
    scorer: Scorer,
    about: dict[str, Any],
    explain: Explain,
    hosts: Collection[str] | None,
    bounds: Bounds | None = None,
) -> ASGIApp:
    """The web application. about: the answer to GET /about; hosts: see `guarding.Guard`."""
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect
    from starlette.routing import Route

    service = _Service(scorer, about, explain, bounds or Bounds())
    routes = [
        Route("/", service.page, methods=["GET"]),
        Route("/about", service.description, methods=["GET"]),
        Route("/ping", service.health, methods=["GET"]),
        Route("/health", service.health, methods=["GET"]),
        Route("/version", service.version, methods=["GET"]),
        Route("/invocations", service.invocations, methods=["POST"]),
        Route("/explain", service.explanation, methods=["POST"]),
    ]
    starlette = Starlette(routes=routes)
    starlette.router.redirect_slashes = False
    for kind in (
        RefusedRequestError,
        UnusableInputError,
        UnreadableImageError,
        MemoryError,
        ClientDisconnect,
        Exception,
    ):
        starlette.add_exception_handler(kind, _error_answer)
    starlette.add_exception_handler(HTTPException, _unknown_address)
    return Guard(starlette, hosts)


async def _error_answer(request: Request, error: Exception) -> Response:
    if isinstance(error, RefusedRequestError):
        return refusal(error.status, str(error))
    if isinstance(error, UnusableInputError | UnreadableImageError):
        return refusal(400, str(error))
    if isinstance(error, MemoryError):
        return refusal(503, "the server is short of memory; try again later, with less in one request")
    return refusal(500, "the server failed on this request; see its log")  # the log is uvicorn's


async def _unknown_address(request: Request, error: Any) -> Response:
    """The answer if there is no such address, or not for this method."""
    answer = refusal(error.status_code, f"{request.method} {request.scope['path'][:60]}: {error.detail.lower()}")
    answer.headers.update(error.headers or {})
    return answer


class _Service:
    """The answers of the addresses."""

    def __init__(self, scorer: Scorer, about: dict[str, Any], explain: Explain, bounds: Bounds) -> None:
        self.scorer, self.about, self.explain, self.bounds = scorer, about, explain, bounds
        self.intake = Intake(bounds.body, bounds.bodies, bounds.seconds)
        self.workers = machine.cores() + 4
        self.pool = ThreadPoolExecutor(self.workers, "frostline-request")
        self.overdue = 0  # threads whose client no longer waits
        self.explaining = asyncio.Semaphore(1)  # one at a time; a waiting request uses no thread

    async def page(self, request: Request) -> Response:
        from starlette.responses import HTMLResponse

        text = PAGE.read_text(encoding="utf-8")
        return HTMLResponse(text, headers={"Content-Security-Policy": _policy(text), "Referrer-Policy": "no-referrer"})

    async def description(self, request: Request) -> Response:
        return _json(json.dumps(self.about))

    async def version(self, request: Request) -> Response:
        from starlette.responses import PlainTextResponse

        return PlainTextResponse(version("mlflow"))

    async def health(self, request: Request) -> Response:
        """Whether the network answers, and a thread is free for requests."""
        if self.overdue < self.workers:
            with suppress(Exception):
                async with asyncio.timeout(self.bounds.health_seconds):
                    await asyncio.wrap_future(self.scorer.probe())
                    return _json("\n")
        return refusal(503, f"the network did not answer within {self.bounds.health_seconds:g} seconds")

    async def invocations(self, request: Request) -> Response:
        kind = payload.kind_of(request.headers.get("content-type"))
        async with self.intake.body(request) as body:
            return _json(await self._in_thread(partial(self._predict, body, kind)))

    def _predict(self, body: bytes, kind: str, stop: threading.Event) -> str:
        table = payload.parse(body, kind, self.scorer.limits)
        predictions = self.scorer.rows(table.column, table.values, stop)
        return json.dumps({"predictions": [prediction.as_json() for prediction in predictions]})

    async def explanation(self, request: Request) -> Response:
        from starlette.responses import Response

        async with self.intake.body(request) as body:
            image = await self._in_thread(lambda stop: self.explain(body), self.explaining)
        return Response(image, media_type="image/png")

    async def _in_thread(
        self, work: Callable[[threading.Event], Output], turn: asyncio.Semaphore | None = None
    ) -> Output:
        """The result of `work`, within the time for an answer. `work` takes an event, which is set when nobody waits
        for the result any more.

        turn: the semaphore to wait for first.
        """
        stop, future = threading.Event(), None
        try:
            async with asyncio.timeout(self.bounds.seconds), turn or nullcontext():
                future = self.pool.submit(work, stop)
                return await asyncio.wrap_future(future)
        except TimeoutError:
            if future is not None and future.running():
                self.overdue += 1
                loop = asyncio.get_running_loop()
                future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._done))
            raise RefusedRequestError(504, f"no answer within {self.bounds.seconds:g} seconds; send less") from None
        finally:
            stop.set()

    def _done(self) -> None:
        self.overdue -= 1


def _json(text: str) -> Response:
    from starlette.responses import Response

    return Response(text, media_type="application/json")


def _policy(page: str) -> str:
    """The page may use only its own script and style, even if the name of a class contains HTML."""
    sources = []
    for tag in ("script", "style"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        sources.append(f"{tag}-src 'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'")
    others = "img-src blob: data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; {'; '.join(sources)}; {others}"
