"""A web application on a port: it listens, and it stops in time whatever its clients do."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from frostline.errors import StateError
from frostline.serving.bounds import Bounds

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONNECTIONS = 100  # at a time, besides those of the requests that are answered; more are answered 503
IDLE = 10.0  # seconds that a connection may stay open without a request that is being answered
DRAIN = 1.0  # seconds after SIGTERM in which requests are still taken, so that a proxy sees `/ready` and clients leave
GRACE = 3  # seconds for the open requests when the server stops
HARD = 7.0  # seconds after which the process ends even if requests are still open

STOPPING = "stopping"  # whether the server stops, in the state of a request


def require_free(host: str, port: int) -> None:
    """Raise StateError if a server could not listen here, before the model is loaded, which takes seconds."""
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
                probe.listen(1)
    except OSError as error:
        raise _listening_error(host, port, error.strerror) from error


def _listening_error(host: str, port: int, reason: str | None) -> StateError:
    return StateError(f"{host}:{port}: listening is not possible ({reason}); choose another --port or --host")


@contextmanager
def listening(application: ASGIApp, host: str, port: int, requests: int = Bounds.requests) -> Iterator[Listener]:
    """A server that answers until the block ends. requests: as in `Bounds`. Raises StateError if it cannot listen."""
    listener = Listener(application, host, port, requests)
    listener.thread.start()
    try:
        while not listener.server.started:
            if not listener.thread.is_alive():
                raise _listening_error(host, port, "another process has taken the port")
            listener.thread.join(0.01)
        yield listener
    finally:
        listener.stop()
        listener.thread.join()


class Listener:
    """A server in its own thread, so that the main thread is free for signals."""

    def __init__(self, application: ASGIApp, host: str, port: int, requests: int) -> None:
        import uvicorn

        self.is_stopping = False
        self._application = application
        self.server = uvicorn.Server(
            uvicorn.Config(
                self._answer,
                host=host,
                port=port,
                interface="asgi3",
                http=_protocol(),
                ws="none",
                lifespan="off",
                loop="asyncio",
                log_config=None,  # uvicorn's own would close the streams of all other logs of this process
                log_level="warning",
                proxy_headers=False,
                server_header=False,
                limit_concurrency=requests + CONNECTIONS,
                timeout_graceful_shutdown=GRACE,
            )
        )
        self.thread = threading.Thread(target=self._run, name="frostline-server")

    def _run(self) -> None:
        with suppress(SystemExit):  # it could not listen, and its log says so
            self.server.run()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Tell the application whether the server stops; then each client is told to close its connection too."""

        async def closing(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        scope.setdefault("state", {})[STOPPING] = self.is_stopping
        await self._application(scope, receive, closing if self.is_stopping else send)

    def stop(self) -> None:
        """Refuse new requests and wait up to GRACE seconds for the open ones."""
        self.is_stopping = self.server.should_exit = True

    def wait(self) -> None:
        """Wait for SIGINT (Ctrl-C) or SIGTERM, or for the end of the server. After SIGTERM, requests are still answered
        for DRAIN seconds. After either signal, the process ends within HARD seconds, even if a thread still works on a
        request."""
        drain = 0.0

        def handle(number: int, frame: Any) -> None:
            nonlocal drain
            if self.is_stopping:  # the second time
                os._exit(128 + number)
            drain = DRAIN if number == signal.SIGTERM else 0.0
            self.is_stopping = True

        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            while self.thread.is_alive() and not self.is_stopping:
                self.thread.join(0.2)
            timer = threading.Timer(HARD, _end)
            timer.daemon = True  # it does not keep the process alive
            timer.start()
            self.thread.join(drain)
            self.stop()
            self.thread.join()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _end() -> None:
    sys.stdout.flush()
    os._exit(0)


def _protocol() -> type[asyncio.Protocol]:
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Protocol(H11Protocol):
        """Closes the connection if a client sends no complete request within IDLE seconds, or sends more after the
        answer.

        uvicorn itself waits for the end of the headers without a limit. The application limits the time of a body.
        """

        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._update_timer()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._update_timer()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)

        def _update_timer(self) -> None:
            is_answering = self.conn.their_state is not h11.IDLE and self.conn.our_state is h11.SEND_RESPONSE
            if is_answering:
                self._stop_timer()
            elif self._timer is None:
                self._timer = self.loop.call_later(IDLE, self.transport.abort)

        def _stop_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return Protocol
