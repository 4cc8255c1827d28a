"""A real MLflow server as a process that a test can end and start again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import browser


class Server:
    """`mlflow server` with one worker on a database in a folder; a port of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, browser.free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        database = f"sqlite:///{self.folder}/server.db"
        place = ["--backend-store-uri", database, "--artifacts-destination", str(self.folder / "server-artifacts")]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *place, "--port", str(self.port), "--workers", "1"],
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )
        end = time.monotonic() + 120
        while time.monotonic() < end:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                    return
            except OSError:
                assert self.process.poll() is None, "the server ended"
                time.sleep(0.2)
        raise AssertionError("the server does not answer")

    def kill(self) -> None:
        """End it with all of its workers, without a chance to say good-bye."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
