"""A web application on a port: listening, and stopping in time whatever its clients do."""

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

if TYPE_CHECKING:
    from starlette.types import ASGIApp

CONNECTIONS = 200  # at a time; more are answered 503
IDLE = 10.0  # seconds that a connection may stay open without a request that is being answered
GRACE = 3  # seconds for the requests at hand, once the server shall stop
HARD = 6.0  # seconds after which the process ends in any case


def require_free(host: str, port: int) -> None:
    """Raises StateError where a server could not listen; so nothing is loaded in vain, which takes seconds."""
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            with socket.socket(family, kind, protocol) as tried:
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tried.bind(address)
                tried.listen(1)
    except OSError as error:
        raise _taken(host, port, error.strerror) from error


def _taken(host: str, port: int, reason: str | None) -> StateError:
    return StateError(f"{host}:{port}: listening is not possible ({reason}); choose another --port or --host")


@contextmanager
def listening(application: ASGIApp, host: str, port: int) -> Iterator[Listener]:
    """A server that answers as long as the block lasts. Raises StateError where it can't listen."""
    listener = Listener(application, host, port)
    listener.thread.start()
    try:
        while not listener.server.started:
            if not listener.thread.is_alive():
                raise _taken(host, port, "the port was taken meanwhile")
            listener.thread.join(0.01)
        yield listener
    finally:
        listener.stop()
        listener.thread.join()


class Listener:
    """A server in a thread of its own, so that the main one is free for signals."""

    def __init__(self, application: ASGIApp, host: str, port: int) -> None:
        import uvicorn

        self.server = uvicorn.Server(
            uvicorn.Config(
                application,
                host=host,
                port=port,
                http=_protocol(),
                ws="none",
                lifespan="off",
                loop="asyncio",
                log_level="warning",
                proxy_headers=False,
                server_header=False,
                limit_concurrency=CONNECTIONS,
                timeout_graceful_shutdown=GRACE,
            )
        )
        self.thread = threading.Thread(target=self._run, name="frostline-server")

    def _run(self) -> None:
        with suppress(SystemExit):  # it could not listen, and said so in its log
            self.server.run()

    def stop(self) -> None:
        """Refuse new requests and wait for those at hand, as long as GRACE says."""
        self.server.should_exit = True

    def wait(self) -> None:
        """Until SIGINT (Ctrl-C) or SIGTERM, or until the server ends by itself. From the signal on, the process ends
        within HARD seconds, even where a thread still works on a request."""

        def told(number: int, frame: Any) -> None:
            if self.server.should_exit:  # the second time
                os._exit(128 + number)
            self.stop()

        before = {number: signal.signal(number, told) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            while self.thread.is_alive() and not self.server.should_exit:
                self.thread.join(0.2)
            last = threading.Timer(HARD, _end)
            last.daemon = True  # gone with the process, where that ends earlier
            last.start()
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
        """Hangs up on who sends no whole request within IDLE seconds, or goes on sending after the answer.

        uvicorn itself waits for ever for the end of the headers. A body is timed by the application.
        """

        _last: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._rest()
            super().connection_lost(exc)

        def _watch(self) -> None:
            is_answering = self.conn.their_state is not h11.IDLE and self.conn.our_state is h11.SEND_RESPONSE
            if is_answering:
                self._rest()
            elif self._last is None:
                self._last = self.loop.call_later(IDLE, self.transport.abort)

        def _rest(self) -> None:
            if self._last is not None:
                self._last.cancel()
                self._last = None

    return Protocol
