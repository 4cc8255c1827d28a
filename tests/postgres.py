"""A PostgreSQL server of a test's own, which can be stopped, and a line to it that breaks when it is told to."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import browser
import pytest


class Server:
    """A server in a folder. url: for SQLAlchemy; port: on 127.0.0.1."""

    def __init__(self, programs: Path, place: Path) -> None:
        self.programs, self.place, self.data, self.port = programs, place, place / "data", browser.free_port()
        self.url = self.at(self.port)
        self.run("initdb", "-D", str(self.data), "-A", "trust", "-U", "postgres")

    @staticmethod
    def at(port: int) -> str:
        return f"postgresql+psycopg://postgres:s3cret@127.0.0.1:{port}/postgres"

    def run(self, program: str, *arguments: str) -> None:
        as_user = {"user": "postgres"} if os.geteuid() == 0 else {}  # the server refuses to run as root
        command = [f"{self.programs}/{program}", *arguments]
        subprocess.run(command, cwd=self.place, check=True, capture_output=True, timeout=60, **as_user)

    def control(self, *arguments: str) -> None:
        """`pg_ctl`: start, stop or restart."""
        options = f"-p {self.port} -k {self.place} -c listen_addresses=127.0.0.1"
        self.run("pg_ctl", "-D", str(self.data), "-w", "-o", options, "-l", str(self.place / "log"), *arguments)


@contextmanager
def running(folder: Path) -> Iterator[Server]:
    """A server that is stopped at the end; the test is skipped where PostgreSQL is not installed."""
    # Debian keeps them out of PATH, in a folder a version.
    programs = [*map(Path, filter(None, [shutil.which("pg_ctl")])), *Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")]
    if not programs:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install -e .[postgres]")
    place = folder / "pg"
    place.mkdir()
    if os.geteuid() == 0:
        shutil.chown(place, "postgres")
        for parent in (folder, *folder.parents[:3]):
            parent.chmod(parent.stat().st_mode | 0o011)
    server = Server(programs[0].resolve().parent, place)
    server.control("start")
    try:
        yield server
    finally:
        with suppress(subprocess.CalledProcessError):  # a test may have stopped it
            server.control("-m", "immediate", "stop")


@contextmanager
def losing(port: int, loses: Callable[[bool], bool]) -> Iterator[int]:
    """The port of a line to a server that breaks before the answer to those commits that `loses` says.

    It is asked at each commit, and told whether that writes to the table of trials.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    near, _ = listening.accept()
                except OSError:  # closed
                    return
                far = socket.create_connection(("127.0.0.1", port))
                broken = threading.Event()
                threading.Thread(target=_ask, args=(near, far, loses, broken), daemon=True).start()
                threading.Thread(target=_answer, args=(far, near, broken), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


def _ask(near: socket.socket, far: socket.socket, loses: Callable[[bool], bool], broken: threading.Event) -> None:
    writes = False
    with suppress(OSError):
        while sent := near.recv(1 << 16):
            writes = writes or b"UPDATE trials" in sent
            if b"COMMIT" in sent:
                if loses(writes):
                    broken.set()
                writes = False
            far.sendall(sent)
        far.shutdown(socket.SHUT_RDWR)


def _answer(far: socket.socket, near: socket.socket, broken: threading.Event) -> None:
    with suppress(OSError):
        while got := far.recv(1 << 16):
            if broken.is_set():
                break
            near.sendall(got)
    for end in (near, far):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
