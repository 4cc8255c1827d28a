"""What is known of each request once it is answered, for the metrics and the access log. No content, no query."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frostline.errors import UserError, of_system

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from frostline.serving.scoring import Prediction

PREDICTIONS = "predictions"  # where the application leaves them in the state of a request
LONGEST = 100  # letters of an address
STDERR = "-"


@dataclass(frozen=True)
class Exchange:
    """A request and its answer.

    time: when it began, in UTC; address: without the query; size: bytes of the body that arrived; status: of HTTP, 0 if
    there was no answer; reason: of a refusal, else empty.
    """

    time: datetime
    address: str
    method: str
    status: int
    size: int
    seconds: float
    predictions: Sequence[Prediction]
    reason: str

    def as_json(self) -> str:
        """The line of the access log."""
        labels = Counter(each.label for each in self.predictions)
        return json.dumps(
            {
                "time": self.time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "address": self.address[:LONGEST],
                "method": self.method[:LONGEST],
                "status": self.status,
                "bytes": self.size,
                "seconds": round(self.seconds, 6),
                "images": len(self.predictions),
                **({"labels": labels} if labels else {}),
                **({"reason": self.reason} if self.reason else {}),
            }
        )


Observer = Callable[[Exchange], None]


class Recorder:
    """Tells observers of each request once it is answered."""

    def __init__(self, app: ASGIApp, observers: Sequence[Observer]) -> None:
        self.app, self.observers = app, observers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, as ASGI specifies."""
        began, clock = datetime.now(UTC), time.perf_counter()
        status, size, body = 0, 0, b""

        async def receiving() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            return message

        async def sending(message: Message) -> None:
            nonlocal status, body
            if message["type"] == "http.response.start":
                status = message["status"]
            elif status >= 400:  # the reason is read from the refusal, so the log says what the client was told
                body += message.get("body", b"")
            await send(message)

        try:
            await self.app(scope, receiving, sending)
        finally:
            predictions = scope.get("state", {}).get(PREDICTIONS, ())
            spent = time.perf_counter() - clock
            exchange = Exchange(began, scope["path"], scope["method"], status, size, spent, predictions, _reason(body))
            for observe in self.observers:
                observe(exchange)


def _reason(body: bytes) -> str:
    with suppress(ValueError, KeyError, TypeError):
        return str(json.loads(body)["message"])
    return ""


class AccessLog:
    """A file with one line of JSON for each request; `-` is standard error."""

    def __init__(self, name: str) -> None:
        """Raises UserError if the file cannot be written."""
        self._lock = threading.Lock()
        try:
            self._file: Any = sys.stderr if name == STDERR else Path(name).open("a", encoding="utf-8", buffering=1)  # noqa: SIM115
        except OSError as error:
            raise UserError(f"--access-log {of_system(error)}") from error

    def __call__(self, exchange: Exchange) -> None:
        """Write the line of a request. If the disk is full, the line is lost and the request is not."""
        with self._lock, suppress(OSError):
            self._file.write(exchange.as_json() + "\n")
