"""`frostline serve` on a small bundle: in a thread of this process, or as a process of its own."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import browser

from frostline.commands import serve
from frostline.serving import app, listening, metrics, served
from frostline.serving.bounds import Bounds

JSON = {"Content-Type": "application/json"}


@contextmanager
def in_thread(bundle: Path, settings: serve.ServerSettings, bounds: Bounds | None = None) -> Iterator[int]:
    """The port of a server that is what `serve.run` would start."""
    current = served.Current(serve.load(bundle, "models:/pets/3", settings), metrics.Metrics(app.ROUTES))
    application = serve.application(current, settings, bounds or settings.bounds)
    with of(application) as port:
        yield port


@contextmanager
def of(application: Any) -> Iterator[int]:
    """The port of a server with a web application."""
    port = browser.free_port()
    with listening.listening(application, "127.0.0.1", port):
        yield port


@contextmanager
def as_process(folder: Path, *arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`frostline serve` in a folder, once it answers, and its port."""
    port = browser.free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "frostline", "serve", *arguments, "--port", str(port)],
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        end = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < end:
            try:
                if ask(port, None, "/ping", method="GET")[0] == 200:
                    break
            except OSError:
                time.sleep(0.1)
        else:
            raise AssertionError(process.communicate()[1] if process.poll() is not None else "it does not answer")
        yield process, port
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()


def ask(port, body, path="/invocations", headers=None, method="POST"):
    """Status and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, JSON if headers is None else headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
