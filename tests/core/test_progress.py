"""Progress yields all items, and prints little if the output is not a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import termios
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from frostline.core import progress
from frostline.core.escaping import PlainText


def test_quick_work_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.track(iter("abc"), 3, "prepare")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_plain_lines_show_the_progress(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    assert list(progress.track(range(3), 70, "prepare", 32)) == [0, 1, 2]
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == ["prepare: 32/70 images", "prepare: 64/70 images"]
    assert all(line.endswith("s left") for line in lines)


def test_on_a_terminal_a_bar_counts_images(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert list(progress.track(range(3), 70, "prepare", 32)) == [0, 1, 2]
    assert "prepare:   0%|" in capsys.readouterr().err


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], object]], str]:
    """Do work whose standard error is a terminal of so many columns. Returns what it wrote there."""

    def run(columns: int, work: Callable[[], object]) -> str:
        here, there = pty.openpty()
        fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        with os.fdopen(there, "w", encoding="utf-8") as stream, monkeypatch.context() as patch:
            patch.setattr("sys.stderr", PlainText(stream))
            work()
        with os.fdopen(here, "rb", buffering=0) as screen:
            written = b""
            with suppress(OSError):  # at the end, since nobody holds the terminal any more
                while part := screen.read(65536):
                    written += part
        return written.decode()

    return run


@pytest.mark.parametrize("columns", [40, 100])
def test_a_bar_is_no_wider_than_its_terminal_and_leaves_nothing(columns: int, terminal: Any) -> None:
    written = terminal(columns, lambda: list(progress.track(range(3), 70_000, "prepare", 30_000)))
    states = re.split(r"[\r\n]+", written)
    assert any(state.startswith("prepare:") for state in states)
    assert max(map(len, states)) <= columns
    assert "\n" not in written  # no bar stands on a line of its own
    assert [state.strip() for state in states][-2:] == ["", ""]  # the last bar was overwritten with spaces


def test_the_bar_of_work_within_other_work_replaces_the_waiting_bar(terminal: Any) -> None:
    def work() -> None:
        for _ in progress.track(range(2), 2, "outer"):
            list(progress.track(range(3), 3, "inner"))

    written = terminal(60, work)
    assert "outer:" in written
    assert "inner:" in written
    assert "\n" not in written
    assert "\x1b[A" not in written  # the cursor does not go up
