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
    """`mlflow server` with one worker on a database in a folder; a port of its own. password: of the user admin, None
    for a server that knows no users."""

    def __init__(self, folder: Path, password: str | None = None) -> None:
        self.folder, self.port, self.password = folder, browser.free_port(), password
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        user = f"admin:{self.password}@" if self.password else ""
        return f"http://{user}127.0.0.1:{self.port}"

    def start(self) -> None:
        database = f"sqlite:///{self.folder}/server.db"
        place = ["--backend-store-uri", database, "--artifacts-destination", str(self.folder / "server-artifacts")]
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "mlflow",
                "server",
                *place,
                "--port",
                str(self.port),
                "--workers",
                "1",
                *self._users(),
            ],
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **self._settings_of_users()},
        )
        end = time.monotonic() + 120
        while time.monotonic() < end:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5):
                    return
            except OSError:
                assert self.process.poll() is None, "the server ended"
                time.sleep(0.2)
        raise AssertionError("the server does not answer")

    def _settings_of_users(self) -> dict[str, str]:
        if self.password is None:
            return {}
        return {
            "MLFLOW_AUTH_CONFIG_PATH": str(self.folder / "auth.ini"),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "any",
        }

    def _users(self) -> list[str]:
        if self.password is None:
            return []
        (self.folder / "auth.ini").write_text(
            f"[mlflow]\ndefault_permission = EDIT\ndatabase_uri = sqlite:///{self.folder}/users.db\n"
            f"admin_username = admin\nadmin_password = {self.password}\nauth_cache_ttl_seconds = 60\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        )
        return ["--app-name", "basic-auth"]

    def kill(self) -> None:
        """End it with all of its workers, without a chance to say good-bye."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
