"""A classifier over HTTP: the addresses of MLflow's own scoring server, and a web page at `/`.

POST /invocations, GET /ping and /version are MLflow's
(https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally); POST /explain takes the bytes of an image and gives
a PNG with the heat map of its label, POST /neighbours the nearest training images, POST /feedback keeps what a person
says the image is; GET /about describes the model; GET /health, /ready and /metrics are for those who
run the server. There is nothing else, and clients cannot read files of this machine unless the limits of the scorer
allow paths. A refusal is {"error_code", "message"}.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from frostline.core import machine
from frostline.data.images import UnreadableImageError
from frostline.serving import payload
from frostline.serving.bounds import Bounds
from frostline.serving.feedback import UNKNOWN, Feedback
from frostline.serving.guarding import Allowed, Guard, Intake, refusal
from frostline.serving.inputs import UnusableInputError
from frostline.serving.listening import STOPPING
from frostline.serving.payload import RefusedRequestError
from frostline.serving.recording import PREDICTIONS, Observer, Recorder
from frostline.serving.scoring import Prediction, Scorer
from frostline.serving.served import Current, Served

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

PAGE = Path(__file__).with_name("page.html")
WAITING = 8  # threads that wait for the network besides one a core; with more of them batches are hardly cheaper, and
# each keeps memory of the images it has decoded
HUNG_UP = 499  # a status that HTTP does not have, as in the logs of nginx

Output = TypeVar("Output")
Handler = Callable[["_Service", "Request"], Awaitable["Response"]]


def application(
    current: Current,
    allowed: Allowed,
    bounds: Bounds,
    observers: Sequence[Observer] = (),
    feedback: Feedback | None = None,
) -> ASGIApp:
    """The web application of the current model.

    observers: are told of each request, besides the metrics; feedback: where answers of people are kept, if they are.
    """
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect
    from starlette.routing import Route

    service = _Service(current, bounds, feedback)
    routes = [
        Route(address, partial(handler, service), methods=[method]) for address, (method, handler) in ROUTES.items()
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
    return Recorder(Guard(starlette, allowed, bounds.requests), [current.metrics, *observers])


async def _error_answer(request: Request, error: Exception) -> Response:
    from starlette.requests import ClientDisconnect

    if isinstance(error, RefusedRequestError):
        return refusal(error.status, str(error))
    if isinstance(error, UnusableInputError | UnreadableImageError):
        return refusal(400, str(error))
    if isinstance(error, MemoryError):
        return refusal(503, "the server is short of memory; try again later, with less in one request")
    if isinstance(error, ClientDisconnect):
        return refusal(HUNG_UP, "the client hung up")  # nobody reads it, but it is counted
    return refusal(500, "the server failed on this request; see its log")  # the log is uvicorn's


async def _unknown_address(request: Request, error: Any) -> Response:
    """The answer if there is no such address, or not for this method."""
    answer = refusal(error.status_code, f"{request.method} {request.scope['path'][:60]}: {error.detail.lower()}")
    answer.headers.update(error.headers or {})
    return answer


class _Service:
    """The answers of the addresses."""

    def __init__(self, current: Current, bounds: Bounds, feedback: Feedback | None) -> None:
        self.current, self.bounds, self.keeper = current, bounds, feedback
        self.intake = Intake(bounds.body, bounds.bodies, bounds.seconds)
        self.workers = machine.cores() + WAITING
        self.pool = ThreadPoolExecutor(self.workers, "frostline-request")
        self.overdue = 0  # threads whose client no longer waits
        self.explaining = asyncio.Semaphore(1)  # one at a time; a waiting request uses no thread

    async def page(self, request: Request) -> Response:
        from starlette.responses import HTMLResponse

        text = PAGE.read_text(encoding="utf-8")
        return HTMLResponse(text, headers={"Content-Security-Policy": _policy(text), "Referrer-Policy": "no-referrer"})

    async def description(self, request: Request) -> Response:
        served = self.current.served
        return _json(json.dumps({**served.about, "feedback": self.keeper is not None}), served)

    async def version(self, request: Request) -> Response:
        from starlette.responses import PlainTextResponse

        return PlainTextResponse(version("mlflow"))

    async def health(self, request: Request) -> Response:
        """The process lives."""
        return _json("\n")

    async def ready(self, request: Request) -> Response:
        """Whether requests should be sent here: the server is not stopping, the network answers, a thread is free."""
        if getattr(request.state, STOPPING, False):
            return refusal(503, "the server is stopping")
        return await self.ping(request)

    async def ping(self, request: Request) -> Response:
        """Whether the network answers, and a thread is free for requests."""
        if self.overdue < self.workers:
            with suppress(Exception):
                async with asyncio.timeout(self.bounds.health_seconds):
                    await asyncio.wrap_future(self.current.served.scorer.probe())
                    return _json("\n")
        return refusal(503, f"the network did not answer within {self.bounds.health_seconds:g} seconds")

    async def metrics(self, request: Request) -> Response:
        from starlette.responses import Response

        text, kind = self.current.metrics.text(request.headers.get("accept", ""))
        return Response(text, headers={"content-type": kind})

    async def invocations(self, request: Request) -> Response:
        kind = payload.kind_of(request.headers.get("content-type"))
        async with self.intake.body(request) as body:
            served = self.current.served
            predictions, text = await self._in_thread(partial(_predict, served.scorer, body, kind))
        setattr(request.state, PREDICTIONS, predictions)
        return _json(text, served)

    async def explanation(self, request: Request) -> Response:
        from starlette.responses import Response

        async with self.intake.body(request) as body:
            served = self.current.served
            image = await self._in_thread(lambda stop: served.explain(body), self.explaining)
        return Response(image, media_type="image/png", headers=served.headers)

    async def neighbours(self, request: Request) -> Response:
        async with self.intake.body(request) as body:
            served = self.current.served
            found = await self._in_thread(
                lambda stop: served.neighbours.nearest(served.scorer.prepare(body)), self.explaining
            )
        if found is None:
            return _json("\n", served, 202, {"Retry-After": "2"})  # the training images are being read
        return _json(json.dumps({"neighbours": [vars(each) for each in found]}), served)

    async def feedback(self, request: Request) -> Response:
        if (keeper := self.keeper) is None:
            raise RefusedRequestError(404, "this server keeps no answers; `frostline serve --feedback FILE` does")
        label = request.query_params.get("label", "")
        scorer = self.current.served.scorer
        if label not in (*scorer.classes, UNKNOWN):
            raise RefusedRequestError(400, f"label={label[:60]}: give one of the classes of /about, or {UNKNOWN}")

        def keep(image: bytes, stop: threading.Event) -> None:
            scorer.prepare(image)  # raises UnreadableImageError
            keeper.keep(image, label)

        async with self.intake.body(request) as body:
            await self._in_thread(partial(keep, body))
        return _json("\n")

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


# The addresses: the method and the function of each.
ROUTES: dict[str, tuple[str, Handler]] = {
    "/": ("GET", _Service.page),
    "/about": ("GET", _Service.description),
    "/ping": ("GET", _Service.ping),
    "/health": ("GET", _Service.health),
    "/ready": ("GET", _Service.ready),
    "/version": ("GET", _Service.version),
    "/metrics": ("GET", _Service.metrics),
    "/invocations": ("POST", _Service.invocations),
    "/explain": ("POST", _Service.explanation),
    "/neighbours": ("POST", _Service.neighbours),
    "/feedback": ("POST", _Service.feedback),
}


def _predict(scorer: Scorer, body: bytes, kind: str, stop: threading.Event) -> tuple[list[Prediction], str]:
    """The predictions for a body, and the text of the answer."""
    table = payload.parse(body, kind, scorer.limits)
    predictions = scorer.rows(table.column, table.values, stop)
    return predictions, json.dumps({"predictions": [prediction.as_json() for prediction in predictions]})


def _json(
    text: str, served: Served | None = None, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    from starlette.responses import Response

    said = {**(served.headers if served else {}), **(headers or {})}
    return Response(text, status, said, "application/json")


def _policy(page: str) -> str:
    """The page may use only its own script and style, even if the name of a class contains HTML."""
    sources = []
    for tag in ("script", "style"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        sources.append(f"{tag}-src 'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'")
    others = "img-src blob: data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; {'; '.join(sources)}; {others}"
